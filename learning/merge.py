"""Merge an adapter into the pristine base in fp32, and prove that nothing was lost in merging.

The result is always base + one adapter, never a merge on top of a merge: rounding errors would add up (FACTS.md).
`prove` reloads the merged folder from disk and compares it with the unmerged pair. It knows nothing of facts.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.generator import LocalGenerator
from bot.prompt import Message

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Parity:
    """How the merged folder, reloaded from disk, compares with base + adapter in fp32."""

    largest_logit_difference: float
    same_greedy_tokens: float
    largest_change_of_weights: float
    finite: bool
    same_tokenizer: bool


def merge(base: Path, adapter: Path, out: Path, *, scale: float = 1.0) -> None:
    """Write base + scale * adapter into `out` as fp32 safetensors with the base's tokenizer."""
    merged = scaled(load_pair(base, adapter), scale).merge_and_unload(safe_merge=True)
    merged.save_pretrained(out, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)


def load_pair(base: Path, adapter: Path) -> Any:
    """Base + adapter in fp32, unmerged."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    return PeftModel.from_pretrained(model, adapter).eval()


def scaled(pair: Any, scale: float) -> Any:
    """The pair with the adapter's contribution multiplied by `scale` (WiSE-FT, Wortsman et al. 2022)."""
    for module in pair.modules():
        if isinstance(module, LoraLayer):
            module.scaling = {name: scale * value for name, value in module.scaling.items()}
    return pair


def prove(base: Path, adapter: Path, merged: Path, chats: Sequence[Sequence[Message]], *, scale: float = 1.0) -> Parity:
    """Compare the merged folder with base + adapter on some chats, and its files with the base's."""
    engine = LocalGenerator(merged, form="float32")
    prompts = [engine.prompt_ids(c) for c in chats]
    pair = scaled(load_pair(base, adapter), scale).to(engine.device)
    differences, equal = [], []
    for ids in prompts:
        row = torch.tensor([ids], device=engine.device)
        with torch.inference_mode():
            left, right = engine.model(row).logits, pair(row).logits
        differences.append(float((left - right).abs().max()))
        equal.append((left.argmax(-1) == right.argmax(-1)).float().mean().item())
    return Parity(
        largest_logit_difference=max(differences),
        same_greedy_tokens=sum(equal) / len(equal),
        largest_change_of_weights=largest_change(base, engine.model),
        finite=all(bool(torch.isfinite(p).all()) for p in engine.model.parameters()),
        same_tokenizer=tokenizer_of(base) == tokenizer_of(merged),
    )


def largest_change(base: Path, merged: Any) -> float:
    """The largest absolute difference of any weight; 0 means that the merge did nothing."""
    pristine = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    before = dict(pristine.named_parameters())
    return max(float((p.detach().cpu() - before[n].detach()).abs().max()) for n, p in merged.named_parameters())


def tokenizer_of(folder: Path) -> tuple[Any, ...]:
    """What must not change: vocabulary, chat template, and the end-of-sequence token."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer.get_vocab(), tokenizer.chat_template, tokenizer.eos_token
