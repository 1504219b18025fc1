"""A folder's weights in memory, in the form that serves.

    float32    as they were trained
    bfloat16   half the memory; on a processor that computes in it, laid out the way its kernels read it
    int8       every linear layer's weights as 8-bit whole numbers with one scale a row; activations stay bfloat16

It knows nothing of prompts, tokens or versions; which form serves is chosen in `learning.serving_form`.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from bot import attention
from retrieval import precision
from storage import manifest
from storage.errors import IntegrityError

FORMS = ("float32", "bfloat16", "int8")
CHOSEN = "serving_form"
"""Under this name a published folder's manifest says which form was chosen for it."""
STEPS = 127
"""Whole numbers on each side of zero in the form int8."""
NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
"""Norms that are the plain one, weight times row."""
FEW_ROWS = 4
"""Rows of activations up to which the kernel that reads 8-bit weights is the faster one (measured on AVX-512)."""


def form_of(folder: Path, setting: str) -> str:
    """The form to load: what the setting names, or with "auto" what was measured when the folder was published.

    A folder that was never measured, as the base, loads in the quicker of the two forms that break nothing.
    """
    if setting != "auto":
        return setting
    try:
        told = json.loads((folder / manifest.NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    chosen = told.get(CHOSEN)
    return chosen if chosen in FORMS else quicker()


def quicker() -> str:
    """The quicker of fp32 and bfloat16 on this machine."""
    return "bfloat16" if precision.computes_bfloat16() else "float32"


def load(folder: Path, form: str) -> Any:
    """The model of a folder, ready to answer. Raises IntegrityError when a weight is not finite."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if form == "float32" else torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise IntegrityError(f"{folder.name} holds weights that are not finite numbers.")
    if form == "int8":
        replace_linears(model, Rounded)
    elif form == "bfloat16" and model.device.type == "cpu" and reads_packed():
        replace_linears(model, Packed)
        model.set_attn_implementation("eager")
        replace_norms(model)
    attention.separate(model)
    return model


def reproducible(model: Any) -> bool:
    """Whether a token's numbers are the same to the bit however many tokens are computed with it.

    So it is with packed layers, plain attention and whole norms: measured, and tested on the real model. The fused
    attention and a single row of a long sum are what is not.
    """
    return any(isinstance(module, Packed) for module in model.modules())


def replace_norms(model: nn.Module) -> None:
    """Let one kernel compute each norm: by steps it depends on the number of rows."""
    found = [name for name, module in model.named_modules() if type(module).__name__ in NORMS]
    for name in found:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Norm(model.get_submodule(name)))


class Norm(nn.Module):
    """A root-mean-square norm in one kernel."""

    def __init__(self, norm: Any) -> None:
        """Take over a norm's weight."""
        super().__init__()
        self.weight, self.epsilon = norm.weight, float(norm.variance_epsilon)

    def forward(self, rows: Tensor) -> Tensor:
        """The rows, each of length one, times the weight."""
        return nn.functional.rms_norm(rows, self.weight.shape, self.weight, self.epsilon)


def replace_linears(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Put another module in the place of every linear layer."""
    found = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for name in found:
        parent, _, last = name.rpartition(".")
        linear = model.get_submodule(name)
        if isinstance(linear, nn.Linear):
            setattr(model.get_submodule(parent), last, make(linear))


class Packed(nn.Module):
    """A bfloat16 linear layer whose weights lie in oneDNN's own order: the same sums, up to twice as fast.

    Unpacked weights are put into that order again at every call, which costs most where few tokens are computed.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Copy a layer's weights into the order of the kernel."""
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """What the layer makes of rows of activations; a single row would be summed in another order."""
        flat = rows.reshape(-1, rows.shape[-1])
        many = flat if len(flat) > 1 else flat.expand(2, -1).contiguous()
        made: Tensor = torch.ops.mkldnn._linear_pointwise(many, self.packed, self.bias, "none", [], "")
        return made[: len(flat)].view(*rows.shape[:-1], -1)


class Rounded(nn.Module):
    """A linear layer with weights rounded to 8 bits, a scale for each output; activations are not rounded.

    The whole numbers fit into bfloat16 without loss, so that many rows are computed by its kernel, from the same
    weights as a few rows by the one that reads 8 bits.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Round a layer's weights."""
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(1e-12) / STEPS
        self.whole = (weight / scale[:, None]).round().to(torch.int8)
        self.scale = scale.to(torch.bfloat16)
        wide = self.whole.to(torch.bfloat16)
        on_cpu = wide.device.type == "cpu"
        self.packed = on_cpu and reads_packed()
        self.wide = torch.ops.mkldnn._reorder_linear_weight(wide, None) if self.packed else wide
        self.small = on_cpu and has_int8_kernel()
        self.bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """What the layer makes of rows of activations."""
        flat = rows.reshape(-1, rows.shape[-1])
        if self.small and len(flat) <= FEW_ROWS:
            made = torch._weight_int8pack_mm(flat, self.whole, self.scale)
        elif self.packed:
            made = torch.ops.mkldnn._linear_pointwise(flat, self.wide, None, "none", [], "") * self.scale
        else:
            made = nn.functional.linear(flat, self.wide) * self.scale
        made = made if self.bias is None else made + self.bias
        return made.view(*rows.shape[:-1], -1)


@cache
def reads_packed() -> bool:
    """Whether this processor and this torch have oneDNN's packed bfloat16 layers, found by trying one."""
    return works(lambda: Packed(nn.Linear(64, 64, dtype=torch.bfloat16))(torch.zeros(1, 64, dtype=torch.bfloat16)))


@cache
def has_int8_kernel() -> bool:
    """Whether this torch has the kernel that reads 8-bit weights, found by trying it."""
    rows, weight = torch.zeros(1, 64, dtype=torch.bfloat16), torch.zeros(64, 64, dtype=torch.int8)
    return works(lambda: torch._weight_int8pack_mm(rows, weight, torch.ones(64, dtype=torch.bfloat16)))


def works(attempt: Callable[[], object]) -> bool:
    """Whether a computation runs here at all."""
    try:
        with torch.inference_mode():
            attempt()
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True
