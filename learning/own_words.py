"""Does a model answer from passages in its own words, and how surely? The labelled rows of the head `generated`.

The questions are the demo company's with the passages that the search finds for them (`ship`), so a night needs no
documents for it. A base model that reads poorly is asked a few, once: what is made of it answers from documents by
quoting. It decides nothing about an answer; `calibrate` and the pipeline do.
"""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bot import pipeline, prompt
from bot.generation import Generation, ManyAtOnce, Request
from learning import cached
from learning.replay import weights_of
from storage.company import answer_matches
from storage.database import Row

FEW = 12
WORTH = 0.5
"""The share of the first few answers of a base that must be right; quotes are right more often (DECISIONS.md)."""


def questions() -> list[dict[str, Any]]:
    """The questions that ship: asked, fact, keys (none where no passage answers), passages and search features."""
    text = (files("learning") / "own_words.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def reads_well(base: Path, cache: Path, max_tokens: int, load: Callable[[], ManyAtOnce]) -> bool:
    """Whether a base model may be right often enough to be worth asking; it is asked once for its weights."""
    stored = cache / f"own-words-{weights_of(base)[:16]}.json"
    told = cached.read(stored)
    if told is None:
        right = sum(row["correct"] for row in answered(load(), questions()[:FEW], max_tokens))
        cached.write(stored, told := {"right": right, "asked": FEW})
    return bool(told["right"] >= WORTH * told["asked"])


def answered(engine: ManyAtOnce, asked: Sequence[dict[str, Any]], max_tokens: int) -> list[Row]:
    """The rows of some questions; one that the model says it cannot answer gives none."""
    chats = [prompt.messages(one["asked"], one["passages"]) for one in asked]
    made = engine.many([Request(chat, max_tokens) for chat in chats])
    return [
        {
            "head": "generated", "kind": "answerable" if one["keys"] else "unknown", "fact": one["fact"],
            "asked": one["asked"], "features": pipeline.generated_features(one["features"], said),
            "correct": int(bool(one["keys"]) and answer_matches(said.text, one["keys"])),
        }
        for one, said in zip(asked, made, strict=True)
        if isinstance(said, Generation) and said.text != prompt.UNKNOWN
    ]  # fmt: skip
