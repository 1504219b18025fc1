"""What training of all weights leaves in place of an adapter: the difference to the base, weight by weight.

Kept as a difference, it is merged at any scale and proved like an adapter. It knows nothing of how it was trained.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

NAME = "delta.safetensors"


def is_in(folder: Path) -> bool:
    """Whether a folder holds a difference (and not a LoRA adapter)."""
    return (folder / NAME).is_file()


def save(model: Any, base: Path, out: Path) -> None:
    """Write `model` minus the base on disk, in fp32."""
    pristine = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    before = dict(pristine.named_parameters())
    out.mkdir(parents=True, exist_ok=True)
    save_file({n: (p.detach().cpu() - before[n].detach()) for n, p in model.named_parameters()}, out / NAME)


def add(model: Any, folder: Path, scale: float) -> None:
    """Add the difference in a folder, scaled, to a model's weights in place."""
    delta = load_file(folder / NAME)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += scale * delta[name].to(parameter)
