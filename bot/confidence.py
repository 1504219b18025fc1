"""From cheap features to a calibrated probability that an answer is right.

A `Head` is a logistic regression on standardised features, a small forest beside it, and two thresholds; the heads of
a model version are fitted for its weights by `learning.calibrate` and stored on it, and the file beside this module
holds the heads that the base model starts with. Nothing here decides from a raw number: the pipeline asks
`Head.probability`.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from bot.generation import Generation
from bot.same_question import compare
from bot.words import STOP as STOP
from bot.words import codes as codes
from bot.words import content as content
from bot.words import negated as negated
from bot.words import other_identifiers, share_outside
from retrieval.taught import Match
from storage.texts import plain

Features = dict[str, float]


@dataclass(frozen=True)
class Platt:
    """Calibration by a logistic curve over the log-odds (Platt, 1999): two numbers, for few labels."""

    slope: float = 1.0
    shift: float = 0.0

    def __call__(self, log_odds: float) -> float:
        """The calibrated probability (0..1)."""
        z = self.slope * log_odds + self.shift
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, z))))


@dataclass(frozen=True)
class Isotonic:
    """Calibration by a rising line through knots over the log-odds (Zadrozny and Elkan, 2002), flat beyond its ends."""

    log_odds: tuple[float, ...]
    probability: tuple[float, ...]

    def __call__(self, log_odds: float) -> float:
        """The calibrated probability (0..1)."""
        at = bisect_right(self.log_odds, log_odds)
        if at in (0, len(self.log_odds)):
            return self.probability[0 if at == 0 else -1]
        (left, right), (low, high) = self.log_odds[at - 1 : at + 1], self.probability[at - 1 : at + 1]
        return low + (high - low) * (log_odds - left) / (right - left)


Calibration = Platt | Isotonic
Tree = float | tuple[int, float, "Tree", "Tree"]
"""A decision tree: a probability, or (place of a feature, threshold, the branch up to it, the branch above it)."""
SUREST = 0.99
"""What a forest that is of one mind counts as; a share of 1 has no log-odds."""


@dataclass(frozen=True)
class Head:
    """A fitted classifier: probability = calibration(log-odds), from a logistic regression and a forest of trees.

    Without trees the log-odds are intercept + sum(weight * (x - mean) / scale); with trees they are the mean of that
    and of the log-odds of the trees' mean.
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
    calibration: Calibration = Platt()
    forest: tuple[Tree, ...] = ()
    verifiers: Mapping[str, "Head"] = field(default_factory=dict)
    """Heads that are asked first; their log-odds are features of this one, under these names."""

    def probability(self, features: Mapping[str, float]) -> float:
        """The calibrated probability (0..1) that the answer with these features is right."""
        return self.calibration(self.log_odds(features))

    def log_odds(self, features: Mapping[str, float]) -> float:
        """What the classifier says before it is calibrated; a feature that is missing counts as 0."""
        verified = {name: first.log_odds(features) for name, first in self.verifiers.items()}
        x = [verified.get(name, features.get(name, 0.0)) for name in self.features]
        z = self.intercept
        for value, mean, scale, weight in zip(x, self.mean, self.scale, self.weight, strict=True):
            z += weight * (value - mean) / scale
        if not self.forest:
            return z
        share = sum(leaf(tree, x) for tree in self.forest) / len(self.forest)
        share = min(SUREST, max(1 - SUREST, share))
        return (z + math.log(share / (1 - share))) / 2


def leaf(tree: Tree, x: Sequence[float]) -> float:
    """The probability that a tree gives to some features."""
    while isinstance(tree, tuple):
        place, threshold, below, above = tree
        tree = below if x[place] <= threshold else above
    return tree


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
    """The confidence stored on a ModelVersion; a head that is the name of another one is that one."""
    told = stored["heads"]
    heads = {name: head_of(told[head] if isinstance(head, str) else head) for name, head in told.items()}
    return Confidence(heads, str(stored.get("reading", "quoted")))


def head_of(told: Mapping[str, Any]) -> Head:
    """One stored head."""
    return Head(
        features=tuple(told["features"]),
        mean=tuple(told["mean"]),
        scale=tuple(told["scale"]),
        weight=tuple(told["weight"]),
        intercept=told["intercept"],
        direct=told.get("direct", NEVER.direct),
        related=told.get("related", NEVER.related),
        calibration=calibration_of(told.get("calibration")),
        forest=tuple(map(tree_of, told.get("forest", ()))),
        verifiers={name: head_of(first) for name, first in told.get("verifier", {}).items()},
    )


def tree_of(told: Any) -> Tree:
    """One stored tree: a number, or [place, threshold, below, above]."""
    if isinstance(told, list):
        place, threshold, below, above = told
        return place, threshold, tree_of(below), tree_of(above)
    return float(told)


def calibration_of(told: Mapping[str, Any] | None) -> Calibration:
    """A stored calibration map; heads that were stored before there were any have none."""
    if told is None:
        return Platt()
    if told["kind"] == "isotonic":
        return Isotonic(tuple(told["log_odds"]), tuple(told["probability"]))
    return Platt(told["slope"], told["shift"])


def shipped() -> dict[str, Any]:
    """The confidence that the base model starts with, as stored JSON."""
    loaded: dict[str, Any] = json.loads((files("bot") / "base_confidence.json").read_text(encoding="utf-8"))
    return loaded


def pair_features(asked: str, match: Match) -> Features:
    """Is `asked` the question that was taught? Similarities, what each side says that the other does not, numbers."""
    asked_words, taught_words = content(asked), content(match.question)
    known = set(taught_words).union(*(content(w) for w in match.wordings))
    told = known | set(content(match.answer))
    texts = " ".join((match.question, match.answer, *match.wordings))
    compared = match.compared or compare(asked, (match.question, *match.wordings))
    return dict(compared) | {
        "cosine": match.cosine,
        "gap": match.gap,
        "taught_cosine": match.taught_cosine,
        "nearness": match.nearness,
        "lead": match.lead,
        "word_lead": match.word_lead,
        "unseen": match.unseen,
        "exact": float(plain(asked) in {plain(w) for w in (match.question, *match.wordings)}),
        "unknown_words": share_outside(asked_words, told),
        "new_words": share_outside(asked_words, known),
        "missing_words": share_outside(taught_words, set(asked_words)),
        "other_numbers": float(bool(codes(asked) - codes(texts))),
        "other_codes": float(bool(other_identifiers(asked, texts))),
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
