"""What the base model says of its own accord: the anchor against forgetting.

For a list of general prompts the base model's own answers are kept with its distribution at every answer token (the
64 likeliest tokens; the rest is one bucket), cached under the hash of its weights. Training pulls the new weights
towards them (KL), which forgets least (FACTS: hard labels on the same answers cost half of the recall).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from bot import prompt
from bot.generation import in_batches
from bot.prompt import Message
from storage import manifest

log = logging.getLogger(__name__)

TOP = 64
ANSWER_TOKENS = 24
FORM = "float32"
"""The base is asked in fp32 on every machine: what bfloat16 rounds in its distributions is learnt like anything else,
and the drift on answers that are never trained was half as large again (DECISIONS.md)."""
PROMPTS, HELD_OUT = 576, 24
"""How many of the prompts that ship are replayed, and how many are never trained but looked at.

With 96 prompts beside sixty facts, what was kept of them was not kept of others: the drift on held-out answers was
twice as large (tests/bench/sweep.md), and with 296 more simple questions were lost than with 576 (DECISIONS.md).
"""
FEW_FACTS, FEW_PROMPTS = 12, 288
"""A night of so few facts passes each of these prompts twice, and does not wait for more to be asked. 96 were too few:
31 of the base's 36 simple questions were left after four facts, 35 with 288 (DECISIONS.md)."""
BATCH = 32
DECIDE = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*", "*.model",
    "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template*",
)  # fmt: skip
"""The files of a model's folder that decide what it says: weights, configuration, and how text becomes tokens."""


@dataclass(frozen=True)
class Anchor:
    """One prompt with the base's answer, and per answer token the ids and log-probabilities of its top 64."""

    question: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    top_ids: Any
    top_logprobs: Any


@dataclass(frozen=True)
class Anchors:
    """Prompts to replay while training (general ones, and notes to read from), and others to measure forgetting on."""

    trained: tuple[Anchor, ...]
    held_out: tuple[Anchor, ...]


def general_prompts() -> list[str]:
    """The prompts that ship with the project."""
    text = (files("learning") / "replay_prompts.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def readings() -> list[tuple[str, str]]:
    """(notes, question) pairs that ship with the project: a model that learns by heart should go on reading."""
    text = (files("learning") / "replay_readings.txt").read_text(encoding="utf-8")
    pairs = (line.split(" ||| ") for line in text.splitlines() if line.strip())
    return [(notes.strip(), question.strip()) for notes, question in pairs]


def chats(prompts: int) -> list[tuple[str, list[Message]]]:
    """Every replayed prompt as (question, chat): trained general ones, readings, then those that are held out."""
    general = [(q, prompt.messages(q)) for q in general_prompts()[: PROMPTS + HELD_OUT]]
    read = [(question, prompt.messages(question, [notes])) for notes, question in readings()]
    return [*general[:prompts], *read, *general[PROMPTS:]]


def prompts_for(facts: int) -> int:
    """How many general prompts are replayed beside so many facts."""
    return FEW_PROMPTS if facts <= FEW_FACTS else PROMPTS


def anchors(base: Path, cache: Path, progress: Callable[[str], None], prompts: int = PROMPTS) -> Anchors:
    """The anchors of a base model, from the cache; those that it lacks are made now (a minute or more for all)."""
    asked = chats(prompts)
    about = hashlib.sha256(f"{weights_of(base)} {TOP} {ANSWER_TOKENS} {FORM}".encode()).hexdigest()
    stored = cache / f"anchors-{about[:16]}.safetensors"
    found = answered(base, asked, stored, progress)
    return Anchors(tuple(found[:-HELD_OUT]), tuple(found[-HELD_OUT:]))


def answered(
    base: Path, asked: Sequence[tuple[str, list[Message]]], stored: Path, progress: Callable[[str], None]
) -> list[Anchor]:
    """The anchors of some (question, chat), from a file to which those that it lacks are added."""
    missing = lacking(stored, [chat for _, chat in asked])
    if missing:
        progress(f"asking the base model {len(missing)} general questions, once")
        make(base, missing, stored)
    return load(stored, asked)


def weights_of(base: Path) -> str:
    """A hash that names the model in a folder: of its manifest, or where it has none of every file that decides.

    A file that did not change is read once by a process.
    """
    sealed = base / manifest.NAME
    if sealed.is_file():
        return manifest.sha256(sealed)
    found = sorted({path for pattern in DECIDE for path in base.glob(pattern) if path.is_file()})
    told = {path.name: hash_of(path, (about := path.stat()).st_size, about.st_mtime_ns) for path in found}
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@lru_cache(maxsize=1000)
def hash_of(path: Path, _size: int, _changed: int) -> str:
    """The SHA-256 of a file, remembered for its size in bytes and the time of its last change."""
    return manifest.sha256(path)


def lacking(stored: Path, asked: Sequence[list[Message]]) -> list[list[Message]]:
    """The chats that a cache does not hold."""
    from safetensors import safe_open

    if not stored.is_file():
        return list(asked)
    with safe_open(stored, framework="pt") as held:
        known = set(held.keys())
    return [chat for chat in asked if f"{key(chat)}.prompt" not in known]


def key(chat: list[Message]) -> str:
    """The name of a chat in the cache."""
    return hashlib.sha256(json.dumps(chat).encode()).hexdigest()[:32]


def make(base: Path, asked: Sequence[list[Message]], stored: Path) -> None:
    """Generate the base's answers and keep its distributions, beside what is stored already."""
    import torch
    from safetensors.torch import load_file, save_file

    from bot.generator import LocalGenerator

    engine = LocalGenerator(base, form=FORM)
    tensors: dict[str, torch.Tensor] = load_file(stored) if stored.is_file() else {}
    prompts = [engine.prompt_ids(chat) for chat in asked]
    for at, found in enumerate(in_batches(map, partial(said, engine), prompts, BATCH)):
        chat = key(asked[at])
        tensors |= {f"{chat}.prompt": torch.tensor(prompts[at], dtype=torch.int32)}
        tensors |= {f"{chat}.{name}": tensor for name, tensor in found.items()}
    stored.parent.mkdir(parents=True, exist_ok=True)
    temporary = stored.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.rename(stored)


def said(engine: Any, prompts: Sequence[list[int]]) -> list[dict[str, Any]]:
    """The base's greedy answers, with its likeliest tokens and their log-probabilities at every token.

    One padded batch: where rounding turns a close choice it is the base's own answer all the same, and its distribution
    comes from the very pass that chose. What the base's own configuration would add to greedy choice is switched off.
    """
    import torch

    ids, mask = padded(prompts, engine.eos)
    with torch.inference_mode():
        made = engine.model.generate(
            inputs=ids.to(engine.device), attention_mask=mask.to(engine.device), max_new_tokens=ANSWER_TOKENS,
            do_sample=False, repetition_penalty=1.0, eos_token_id=engine.eos, pad_token_id=engine.eos,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        tops = [step.float().log_softmax(-1).topk(TOP, dim=-1) for step in made.logits]
    top_ids, values = (torch.stack([getattr(t, n) for t in tops], 1).cpu() for n in ("indices", "values"))
    found = []
    for row, answer in enumerate(made.sequences[:, ids.shape[1] :].tolist()):
        length = answer.index(engine.eos) + 1 if engine.eos in answer else len(answer)
        found.append(
            {
                "answer": torch.tensor(answer[:length], dtype=torch.int32),
                "ids": top_ids[row, :length].to(torch.int32).contiguous(),
                "logprobs": values[row, :length].to(torch.float16).contiguous(),
            }
        )
    return found


def padded(prompts: Sequence[list[int]], fill: int) -> tuple[Any, Any]:
    """Tokens and mask [prompts, longest] of several prompts, filled up on the left."""
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[fill] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def load(stored: Path, asked: Sequence[tuple[str, list[Message]]]) -> list[Anchor]:
    """Read the anchors of some (question, chat) from the cache."""
    from safetensors.torch import load_file

    t = load_file(stored)
    return [
        Anchor(
            question,
            tuple(t[f"{name}.prompt"].tolist()),
            tuple(t[f"{name}.answer"].tolist()),
            t[f"{name}.ids"].long(),
            t[f"{name}.logprobs"].float(),
        )
        for question, name in ((question, key(chat)) for question, chat in asked)
    ]
