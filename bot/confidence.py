"""From cheap features to a calibrated probability that an answer is right.

A `Head` is a logistic regression on standardised features with two thresholds; the heads of a model version are
fitted for its weights by `learning.calibrate` and stored on it, and the file beside this module holds the heads
that the base model starts with. Nothing here decides from a raw number: the pipeline asks `Head.probability`.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bot.generation import Generation
from retrieval.taught import Match

Features = dict[str, float]

STOP = frozenset(
    """
    a an the is are was were be been am do does did can could should would will shall may might must i we you he
    she it they my our your his her its their me us him them this that these those of to in on at for from by with
    as and or but if then so than there here what which who whom whose when where why how much many any some no
    not please hi hey hello thanks thx anyone anybody know tell say get got have has had need want just about into
    out up down
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
NEGATIONS = frozenset(
    """
    not no never without cannot can't don't doesn't isn't aren't won't didn't wasn't shouldn't
    """.split()  # noqa: SIM905  (a paragraph of words reads better than forty lines)
)
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:[.,:]\d+)*|[a-z]+-?\d[\w-]*", re.IGNORECASE)
CODE = re.compile(r"\b[a-z]{1,6}-\d+\b|\b\d+(?:[.,:]\d+)*", re.IGNORECASE)


@dataclass(frozen=True)
class Head:
    """A fitted classifier: probability = sigmoid(intercept + sum(weight * (x - mean) / scale)).

    `direct` is the least probability at which an answer is given as the answer, `related` the least at which it is
    offered as the closest taught one; 1.01 means that no probability is enough.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    intercept: float
    direct: float
    related: float

    def probability(self, features: Mapping[str, float]) -> float:
        """The calibrated probability (0..1) that the answer with these features is right."""
        z = self.intercept
        for name, mean, scale, weight in zip(self.features, self.mean, self.scale, self.weight, strict=True):
            z += weight * (features.get(name, 0.0) - mean) / scale
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, z))))


@dataclass(frozen=True)
class Confidence:
    """The heads of one model version: same (asked = taught?), memorised, quoted, generated; and who reads best."""

    heads: Mapping[str, Head]
    reading: str = "quoted"

    def head(self, name: str) -> Head:
        """A head by name; one that was never fitted refuses everything."""
        return self.heads.get(name, NEVER)


NEVER = Head((), (), (), (), -30.0, 1.01, 1.01)


def from_json(stored: Mapping[str, Any]) -> Confidence:
    """The confidence stored on a ModelVersion."""
    heads = {name: head_of(told) for name, told in stored["heads"].items()}
    return Confidence(heads, str(stored.get("reading", "quoted")))


def head_of(told: Mapping[str, Any]) -> Head:
    """One stored head."""
    return Head(
        features=tuple(told["features"]),
        mean=tuple(told["mean"]),
        scale=tuple(told["scale"]),
        weight=tuple(told["weight"]),
        intercept=told["intercept"],
        direct=told["direct"],
        related=told["related"],
    )


def shipped() -> dict[str, Any]:
    """The confidence that the base model starts with, as stored JSON."""
    loaded: dict[str, Any] = json.loads((files("bot") / "base_confidence.json").read_text(encoding="utf-8"))
    return loaded


def pair_features(asked: str, match: Match) -> Features:
    """Is `asked` the question that was taught? Similarities, what each side says that the other does not, numbers."""
    asked_words, taught_words = content(asked), content(match.question)
    known = set(taught_words).union(*(content(w) for w in match.wordings))
    told = known | set(content(match.answer))
    return {
        "cosine": match.cosine,
        "gap": match.gap,
        "taught_cosine": match.taught_cosine,
        "exact": float(plain(asked) in {plain(w) for w in (match.question, *match.wordings)}),
        "unknown_words": share_outside(asked_words, told),
        "new_words": share_outside(asked_words, known),
        "missing_words": share_outside(taught_words, set(asked_words)),
        "other_numbers": float(bool(codes(asked) - codes(" ".join((match.question, match.answer, *match.wordings))))),
        "missing_numbers": float(bool(codes(match.question) - codes(asked))),
        "negation": float(negated(asked) != negated(match.question)),
        "length": math.log((1 + len(asked_words)) / (1 + len(taught_words))),
    }


def memory_features(asked: str, match: Match, generation: Generation) -> Features:
    """Pair features, and what the model thought of the answer while it was checked against the stored one."""
    return pair_features(asked, match) | {
        "confirmed": generation.confirmed,
        "mean_logprob": max(-5.0, generation.mean_logprob),
        "lowest_logprob": max(-10.0, generation.lowest_logprob),
    }


def content(text: str) -> list[str]:
    """The words that carry meaning, lower case, cut to a crude stem."""
    return [stem(w) for w in WORD.findall(text.casefold()) if w not in STOP]


def stem(word: str) -> str:
    """A word without its most common endings; numbers and codes stay whole."""
    if any(c.isdigit() for c in word):
        return word
    for ending in ("ings", "ing", "ies", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def codes(text: str) -> set[str]:
    """Numbers and error codes in a text."""
    return {c.casefold() for c in CODE.findall(text)}


def negated(text: str) -> bool:
    """Whether a text holds a negation."""
    return bool(NEGATIONS & set(text.casefold().replace("\u2019", "'").split()))


def plain(text: str) -> str:
    """A text without case, punctuation and double spaces, for exact comparison."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def share_outside(words: Sequence[str], known: Iterable[str]) -> float:
    """The share (0..1) of words that are not among the known ones; 0 for no words."""
    known = set(known)
    return sum(w not in known for w in words) / len(words) if words else 0.0
