"""Is a probability to be believed? Reliability table, calibration error, AUROC, risk and coverage, from plain arrays.

`right` is 0 or 1 for each answer, `said` the probability that was given for it, `weight` how much it counts. It knows
nothing of models, rows or how a probability came about.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Outcomes:
    """Answers with the probability that was said of each, and whether it was right."""

    said: Numbers
    right: Numbers
    weight: Numbers

    def __len__(self) -> int:
        """How many answers there are."""
        return len(self.said)

    def only(self, chosen: NDArray[np.bool_]) -> "Outcomes":
        """Some of them."""
        return Outcomes(self.said[chosen], self.right[chosen], self.weight[chosen])


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies between `low` and `high`: how many, what was said, what was right."""

    low: float
    high: float
    answers: int
    share: float
    said: float
    right: float


@dataclass(frozen=True)
class Curve:
    """Share of questions answered, and share of wrong ones among those, from the surest answer to all of them."""

    coverage: Numbers
    risk: Numbers

    @property
    def area(self) -> float:
        """The area under the curve (AURC, Geifman and El-Yaniv, 2017): the mean risk over all coverages."""
        return float((self.risk * np.diff(self.coverage, prepend=0.0)).sum()) if len(self.risk) else 0.0

    def at(self, coverage: float) -> float:
        """The risk when at least this share (0..1) is answered; 0 of nothing."""
        enough = np.flatnonzero(self.coverage >= coverage - 1e-9)
        return float(self.risk[enough[0]]) if len(enough) else 0.0


def outcomes(said: object, right: object, weight: object = None) -> Outcomes:
    """Outcomes from anything that numpy takes for arrays; every answer counts 1 without weights."""
    told = np.asarray(said, dtype=np.float64)
    counts = np.ones(len(told)) if weight is None else np.asarray(weight, dtype=np.float64)
    return Outcomes(told, np.asarray(right, dtype=np.float64), counts)


def table(seen: Outcomes) -> tuple[Bin, ...]:
    """Ten bins of equal width; empty ones are left out."""
    at = np.minimum((seen.said * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        own = seen.only(at == number)
        if len(own):
            share = float(own.weight.sum() / seen.weight.sum())
            rows.append(
                Bin(number / BINS, (number + 1) / BINS, len(own), share, mean(own, own.said), mean(own, own.right))
            )
    return tuple(rows)


def calibration_error(seen: Outcomes) -> float:
    """Expected calibration error (Naeini and others, 2015): what was said against what was right, over ten bins."""
    return sum(row.share * abs(row.said - row.right) for row in table(seen))


def auroc(seen: Outcomes) -> float:
    """How surely a right answer is given a higher probability than a wrong one; ties count half, 0.5 without either."""
    order = np.argsort(seen.said, kind="stable")
    said, right, weight = seen.said[order], seen.right[order], seen.weight[order]
    good, bad = weight * right, weight * (1 - right)
    if not good.sum() or not bad.sum():
        return 0.5
    _, group = np.unique(said, return_inverse=True)
    good_in, bad_in = np.bincount(group, weights=good), np.bincount(group, weights=bad)
    below = np.cumsum(bad_in) - bad_in
    return float((good_in * (below + bad_in / 2)).sum() / (good.sum() * bad.sum()))


def risk_coverage(seen: Outcomes) -> Curve:
    """The curve of selective answering; answers of equal probability come and go together."""
    if not len(seen):
        return Curve(np.zeros(0), np.zeros(0))
    levels, group = np.unique(-seen.said, return_inverse=True)
    answered = np.cumsum(np.bincount(group, weights=seen.weight, minlength=len(levels)))
    wrong = np.cumsum(np.bincount(group, weights=seen.weight * (1 - seen.right), minlength=len(levels)))
    return Curve(answered / answered[-1], wrong / answered)


def mean(seen: Outcomes, values: Numbers) -> float:
    """A weighted mean."""
    return float((seen.weight * values).sum() / seen.weight.sum())
