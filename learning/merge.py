"""Merge an adapter into the pristine base in fp32, and prove that nothing was lost in merging.

The result is always base + one adapter, never a merge on top of a merge: rounding errors would add up (FACTS.md).
`prove` reloads the merged folder from disk and compares it with the unmerged pair. It knows nothing of facts.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.generator import LocalGenerator
from bot.prompt import Message
from learning import deltas
from storage.errors import NightshiftError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
GREEDY_TOKENS = 16
"""Tokens that each prompt is continued by, so that answers are compared and not prompts alone."""
NOT_SETTINGS = ("_from_model_config", "transformers_version")
"""What a generation configuration notes of its own origin."""


class MergeError(NightshiftError):
    """An adapter that cannot be merged."""

    code = "merge_failed"


@dataclass(frozen=True)
class Parity:
    """How the merged folder, reloaded from disk, compares with base + adapter in fp32."""

    largest_logit_difference: float
    same_greedy_tokens: float
    largest_change_of_weights: float
    finite: bool
    same_tokenizer: bool
    same_generation: bool

    @property
    def values(self) -> dict[str, float]:
        """The parity by the names of the gates; of weights that are not all numbers nothing else is known."""
        if not self.finite:
            return {"finite": 0.0}
        return {
            "merge_logits": self.largest_logit_difference,
            "merge_tokens": self.same_greedy_tokens,
            "changed": self.largest_change_of_weights,
            "finite": 1.0,
            "same_tokenizer": float(self.same_tokenizer),
            "same_generation": float(self.same_generation),
        }


UNUSABLE = Parity(math.inf, 0.0, math.inf, finite=False, same_tokenizer=False, same_generation=False)
"""A folder whose weights are not all numbers: it does not load, so nothing else of it is known."""


def merge(base: Path, adapter: Path, out: Path, *, scale: float = 1.0) -> None:
    """Write base + scale * adapter into `out` as fp32 safetensors with the base's tokenizer.

    Raises MergeError when a merged weight is not a finite number.
    """
    try:
        pair = load_pair(base, adapter, scale)
        merged = pair.merge_and_unload(safe_merge=True) if isinstance(pair, PeftModel) else pair
    except ValueError as error:
        raise MergeError(f"{adapter.name} cannot be merged: {error}") from error
    merged.save_pretrained(out, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)


def load_pair(base: Path, adapter: Path, scale: float = 1.0) -> Any:
    """Base + scale * adapter in fp32, unmerged; the adapter may be a difference of all weights (see `deltas`)."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    if deltas.is_in(adapter):
        deltas.add(model, adapter, scale)
        return model
    return scaled(PeftModel.from_pretrained(model, adapter).eval(), scale)


def scaled(pair: Any, scale: float) -> Any:
    """The pair with the adapter's contribution multiplied by `scale` (WiSE-FT, Wortsman et al. 2022)."""
    for module in pair.modules():
        if isinstance(module, LoraLayer):
            module.scaling = {name: scale * value for name, value in module.scaling.items()}
    return pair


def prove(base: Path, adapter: Path, merged: Path, chats: Sequence[Sequence[Message]], *, scale: float = 1.0) -> Parity:
    """Compare the merged folder with base + adapter on some chats, and its files with the base's."""
    if not all_finite(merged):
        return UNUSABLE
    engine = LocalGenerator(merged, form="float32")
    pristine = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    change = largest_change(pristine, engine.model)
    same_generation = generation_of(pristine) == generation_of(engine.model)
    del pristine  # a night must fit into the memory of two models
    difference, same = closeness(engine, load_pair(base, adapter, scale).to(engine.device), chats)
    return Parity(
        largest_logit_difference=difference,
        same_greedy_tokens=same,
        largest_change_of_weights=change,
        finite=True,
        same_tokenizer=tokenizer_of(base) == tokenizer_of(merged),
        same_generation=same_generation,
    )


def closeness(engine: LocalGenerator, pair: Any, chats: Sequence[Sequence[Message]]) -> tuple[float, float]:
    """The largest logit difference on chats with the merged model's answers, and the share of the same greedy tokens.

    The tokens are those of the answers. After one that differs, both go on from the merged model's choice.
    """
    prompts = [engine.prompt_ids(c) for c in chats]
    answers = engine.continue_many(prompts, GREEDY_TOKENS)
    differences, equal = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        row = torch.tensor([[*prompt, *answer]], device=engine.device)
        with torch.inference_mode():
            left, right = engine.model(row).logits[0], pair(row).logits[0]
        differences.append(float((left - right).abs().max()))
        chosen = [logits[len(prompt) - 1 : -1].argmax(-1) for logits in (left, right)]
        equal += (chosen[0] == chosen[1]).tolist()
    return max(differences), sum(equal) / len(equal)


def all_finite(folder: Path) -> bool:
    """Whether every weight in a folder's files is a finite number."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            if not all(bool(torch.isfinite(stored.get_tensor(name)).all()) for name in stored.keys()):  # noqa: SIM118
                return False
    return True


def largest_change(pristine: Any, merged: Any) -> float:
    """The largest absolute difference of any weight; 0 means that the merge did nothing."""
    before = dict(pristine.named_parameters())
    return max(float((p.detach().cpu() - before[n].detach()).abs().max()) for n, p in merged.named_parameters())


def tokenizer_of(folder: Path) -> tuple[Any, ...]:
    """What must not change: vocabulary, merges and rules, chat template, special tokens, the end of a sequence."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    inner = getattr(tokenizer, "backend_tokenizer", None)
    rules = inner.to_str() if inner is not None else tokenizer.get_vocab()
    return rules, tokenizer.chat_template, tokenizer.eos_token, tokenizer.special_tokens_map


def generation_of(model: Any) -> dict[str, Any]:
    """The settings that a model generates with by itself, and the tokens at which its configuration says it ends."""
    settings = {k: v for k, v in model.generation_config.to_dict().items() if k not in NOT_SETTINGS}
    return settings | {f"config.{name}": getattr(model.config, name, None) for name in ("bos_token_id", "eos_token_id")}
