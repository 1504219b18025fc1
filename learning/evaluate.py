"""Measure a model version: taught facts, near-misses, general questions, drift from the base.

The facts are asked through the same prompt that serves people. Nothing here decides; `gates` does.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from bot import prompt
from bot.generation import Request
from bot.generator import LocalGenerator
from learning import paired
from learning.dataset import Fact
from learning.replay import Anchor
from retrieval.taught import Encoder
from storage.company import answer_matches
from storage.domain import Memory

BATTERY_TOKENS = 24
RAW_TOKENS = 48
KNOWN_IN_TURN = 40
"""Known facts that a night asks in unseen words and near-misses; all are asked in their taught words."""


@dataclass(frozen=True)
class Proof:
    """What was measured of one correction: counts of right over asked."""

    correction_id: int
    taught: bool
    unseen_right: int
    unseen_asked: int
    near_misses_bluffed: int
    near_misses_asked: int

    @property
    def memorised(self) -> bool:
        """The correction's own test: the taught wording gives the exact answer, and unseen wordings find it."""
        return self.taught and self.unseen_right * 2 >= self.unseen_asked

    def as_json(self, before: Memory | None = None) -> dict[str, Any]:
        """The proof as it is stored and shown; what was not asked tonight is what the version before had shown."""
        told = {
            "taught": self.taught,
            "unseen": [self.unseen_right, self.unseen_asked],
            "near_misses_bluffed": [self.near_misses_bluffed, self.near_misses_asked],
        }
        if before is None:
            return told
        return {name: before.proof.get(name, value) if value == [0, 0] else value for name, value in told.items()}


def facts(engine: LocalGenerator, taught: Sequence[Fact], embedder: Encoder, max_tokens: int) -> tuple[Proof, ...]:
    """The proof of every fact: taught wording, unseen wordings through the nearest taught question, near-misses.

    Facts that were known already are asked in their taught wording every night, in other words in turn (`in_turn`):
    a night's length follows what is new.
    """
    questions = [f.question for f in taught]
    vectors = embedder.encode(questions) if questions else np.zeros((0, 1), dtype=np.float32)
    shares = engine.agreement([Request(prompt.messages(f.question), max_tokens, f.answer) for f in taught])
    exact = {f.correction_id: share == 1.0 for f, share in zip(taught, shares, strict=True)}
    asked = in_turn(taught)
    bluffs = bluffed(engine, [f for f in taught if f.correction_id in asked])
    made = []
    for fact in taught:
        held_out = list(fact.held_out) if fact.correction_id in asked else []
        nearest = np.argmax(embedder.encode(held_out) @ vectors.T, axis=1) if held_out else []
        made.append(
            Proof(
                correction_id=fact.correction_id,
                taught=exact[fact.correction_id],
                unseen_right=sum(exact[fact.correction_id] and questions[i] == fact.question for i in nearest),
                unseen_asked=len(held_out),
                near_misses_bluffed=bluffs.get(fact.correction_id, 0),
                near_misses_asked=len(fact.unseen_near_misses) if fact.correction_id in asked else 0,
            )
        )
    return tuple(made)


def in_turn(taught: Sequence[Fact]) -> set[int]:
    """The facts that are asked in every way tonight: new ones, and so many known ones, others on another night."""
    known = [f.correction_id for f in taught if not f.is_new]
    mixed = sum(f.correction_id for f in taught if f.is_new)
    chosen = random.Random(mixed).sample(known, min(KNOWN_IN_TURN, len(known)))
    return {f.correction_id for f in taught if f.is_new} | set(chosen)


def recalls(engine: LocalGenerator, question: str, answer: str, max_tokens: int) -> bool:
    """Whether a taught wording gives the stored answer, token for token, and ends there."""
    return engine.confirm(prompt.messages(question), answer, max_tokens=max_tokens).confirmed == 1.0


def bluffed(engine: LocalGenerator, taught: Sequence[Fact]) -> dict[int, int]:
    """How many near-misses of each fact, none of them trained, get its answer when asked closed-book."""
    asked = [(f, n) for f in taught for n in f.unseen_near_misses]
    shares = engine.agreement([Request(prompt.messages(n), RAW_TOKENS, f.answer) for f, n in asked])
    counts = {f.correction_id: 0 for f in taught}
    for (fact, _), share in zip(asked, shares, strict=True):
        counts[fact.correction_id] += share == 1.0
    return counts


def old_fact_values(proofs: Sequence[Proof], champion: Mapping[int, Memory]) -> dict[str, float]:
    """What the gates ask of the facts that the champion was trained on too; `champion` are its memories by correction.

    The share of those it held that are still held, and the lower 95 % bound of the paired drop over all of them.
    """
    known = [(champion[p.correction_id].memorised, p.memorised) for p in proofs if p.correction_id in champion]
    held = [now for before, now in known if before]
    values = {"old_facts": sum(held) / len(held)} if held else {}
    if known:
        values["old_facts_lost"] = paired.lost([before for before, _ in known], [now for _, now in known]).at_least
    return values


def battery() -> list[dict[str, Any]]:
    """The simple general questions that ship with the project, with answer keys."""
    text = (files("learning") / "battery.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def general(engine: LocalGenerator) -> dict[str, bool]:
    """Which of the simple general questions are answered rightly, by id."""
    rows = battery()
    texts = engine.generate_many([prompt.messages(r["question"]) for r in rows], max_tokens=BATTERY_TOKENS)
    return {r["id"]: answer_matches(t, r["keys"]) for r, t in zip(rows, texts, strict=True)}


def drift(engine: LocalGenerator, anchors: Sequence[Anchor]) -> float:
    """Mean KL(base || version) in nats per token over answers that were never trained on."""
    import torch

    from learning.upper import divergence

    total, tokens = 0.0, 0
    for anchor in anchors:
        ids = [*anchor.prompt_ids, *anchor.answer_ids]
        with torch.inference_mode():
            logits = engine.logits(ids)[len(anchor.prompt_ids) - 1 : -1]
            teacher = anchor.top_ids.to(logits.device), anchor.top_logprobs.to(logits.device)
            total += len(logits) * float(divergence(logits, *teacher))
        tokens += len(anchor.answer_ids)
    return total / tokens if tokens else 0.0
