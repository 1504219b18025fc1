"""Measure a model version: taught facts, near-misses, general questions, drift from the base.

The facts are asked through the same prompt that serves people. Nothing here decides; `gates` does.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bot import prompt
from bot.generation import Request
from bot.generator import LocalGenerator
from learning import paired
from learning.dataset import Fact
from learning.replay import Anchor
from retrieval.taught import TaughtQuestions
from storage.domain import Memory

BATTERY_TOKENS = 24
KNOWN_IN_TURN = 40
"""Known facts that a night asks in unseen words and near-misses; all are asked in their taught words."""


@dataclass(frozen=True)
class Proof:
    """What was measured of one correction: counts of right over asked.

    A near-miss is refused that is answered as unknown, and bluffed that gets this very answer; others get another text.
    """

    correction_id: int
    taught: bool
    unseen_right: int
    unseen_asked: int
    near_misses_bluffed: int
    near_misses_asked: int
    near_misses_refused: int = 0

    @property
    def is_held(self) -> bool:
        """What the weights can lose: exact in its taught wording, and at least half of the near-misses are refused."""
        return holds(self.taught, self.near_misses_bluffed, self.near_misses_asked)

    @property
    def memorised(self) -> bool:
        """The correction's own test: the weights hold it, and the search finds it by at least half of unseen words.

        The latter changes with what else is taught, whatever the weights do.
        """
        return self.is_held and 2 * self.unseen_right >= self.unseen_asked

    def as_json(self, before: Memory | None = None) -> dict[str, Any]:
        """The proof as it is stored and shown; what was not asked tonight is what the version before had shown.

        Where that is so, `asked_in` names the version that was asked.
        """
        told = {
            "taught": self.taught,
            "unseen": [self.unseen_right, self.unseen_asked],
            "near_misses_bluffed": [self.near_misses_bluffed, self.near_misses_asked],
            "near_misses_refused": [self.near_misses_refused, self.near_misses_asked],
        }
        earlier = before.proof if before else {}
        copied = {name: earlier[name] for name, value in told.items() if value == [0, 0] and name in earlier}
        if before is None or not copied:
            return told
        return told | copied | {"asked_in": earlier.get("asked_in", before.version)}


def facts(
    engine: LocalGenerator, taught: Sequence[Fact], search: TaughtQuestions, max_tokens: int
) -> tuple[Proof, ...]:
    """The proof of every fact: taught wording, unseen wordings through the nearest taught question, near-misses.

    Facts that the champion has by heart are asked in their taught wording every night, in other words in turn
    (`in_turn`): a night's length follows what is to be learnt. `search` is the one that serves people.
    """
    shares = engine.agreement([Request(prompt.messages(f.question), max_tokens, f.answer) for f in taught])
    chosen = in_turn(taught)
    asked = [f for f in taught if f.correction_id in chosen]
    right, bluffs = found(asked, search), given_to_near_misses(engine, asked, max_tokens)
    refusals = given_to_near_misses(engine, asked, max_tokens, prompt.UNKNOWN)
    return tuple(
        Proof(
            correction_id=fact.correction_id,
            taught=share == 1.0,
            unseen_right=right.get(fact.correction_id, 0) if share == 1.0 else 0,
            unseen_asked=len(fact.held_out) if fact.correction_id in chosen else 0,
            near_misses_bluffed=bluffs.get(fact.correction_id, 0),
            near_misses_asked=len(fact.unseen_near_misses) if fact.correction_id in chosen else 0,
            near_misses_refused=refusals.get(fact.correction_id, 0),
        )
        for fact, share in zip(taught, shares, strict=True)
    )


def found(asked: Sequence[Fact], search: TaughtQuestions) -> dict[int, int]:
    """How many wordings held out of each fact have it as the nearest of all approved questions."""
    unseen = [(f.correction_id, w) for f in asked for w in f.held_out]
    counts = {f.correction_id: 0 for f in asked}
    if not unseen:
        return counts
    for (number, wording), vector in zip(unseen, search.embedder.encode([w for _, w in unseen]), strict=True):
        match = search.nearest(wording, vector)
        counts[number] += match is not None and match.correction_id == number
    return counts


def in_turn(taught: Sequence[Fact]) -> set[int]:
    """The facts that are asked in every way tonight: those to learn, and so many known ones, others another night."""
    known = [f.correction_id for f in taught if f.memorised]
    to_learn = {f.correction_id for f in taught if not f.memorised}
    chosen = random.Random(sum(to_learn)).sample(known, min(KNOWN_IN_TURN, len(known)))
    return to_learn | set(chosen)


def recalls(engine: LocalGenerator, question: str, answer: str, max_tokens: int) -> bool:
    """Whether a taught wording gives the stored answer, token for token, and ends there."""
    return engine.confirm(prompt.messages(question), answer, max_tokens=max_tokens).confirmed == 1.0


def given_to_near_misses(
    engine: LocalGenerator, taught: Sequence[Fact], max_tokens: int, text: str | None = None
) -> dict[int, int]:
    """How many near-misses of each fact, none of them trained, get a whole text when asked closed-book: its answer."""
    asked = [(f, n) for f in taught for n in f.unseen_near_misses]
    shares = engine.agreement([Request(prompt.messages(n), max_tokens, text or f.answer) for f, n in asked])
    counts = {f.correction_id: 0 for f in taught}
    for (fact, _), share in zip(asked, shares, strict=True):
        counts[fact.correction_id] += share == 1.0
    return counts


def old_fact_values(proofs: Sequence[Proof], champion: Mapping[int, Memory]) -> dict[str, float]:
    """What the gates ask of the facts that the champion was trained on too; `champion` are its memories by correction.

    The share of those it held that are still held, 1 where a single one was lost; and the lower 95 % bound of the
    paired drop over all of them.
    """
    known = [(held(champion[p.correction_id]), p.is_held) for p in proofs if p.correction_id in champion]
    kept = [now for before, now in known if before]
    values = {"old_facts": sum(kept) / len(kept) if kept.count(False) > 1 else 1.0} if kept else {}
    if known:
        values["old_facts_lost"] = paired.lost([before for before, _ in known], [now for _, now in known]).at_least
    return values


def held(memory: Memory) -> bool:
    """Whether a version held a fact (`Proof.is_held`), by its stored proof, or as it was registered."""
    if "taught" not in memory.proof:
        return memory.memorised
    return holds(memory.proof["taught"], *memory.proof.get("near_misses_bluffed", (0, 0)))


def holds(taught: bool, bluffed: int, asked: int) -> bool:
    """Whether weights hold a fact that they were taught: at most half of its near-misses get its answer."""
    return taught and 2 * bluffed <= asked


def battery() -> list[dict[str, Any]]:
    """The simple general questions that ship with the project, with answer keys."""
    text = (files("learning") / "battery.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def drift(engine: LocalGenerator, anchors: Sequence[Anchor]) -> float:
    """Mean KL(base || version) in nats per token over answers that were never trained on."""
    import torch

    from learning.upper import divergence

    def summed(anchor: Anchor) -> float:
        ids = [*anchor.prompt_ids, *anchor.answer_ids]
        with torch.inference_mode():
            logits = engine.logits(ids)[len(anchor.prompt_ids) - 1 : -1]
            teacher = anchor.top_ids.to(logits.device), anchor.top_logprobs.to(logits.device)
            return float(divergence(logits, *teacher).sum())

    tokens = sum(len(anchor.answer_ids) for anchor in anchors)
    return sum(engine.each(summed, anchors)) / tokens if tokens else 0.0
