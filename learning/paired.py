"""Statistics for two models that answered the same items: is the second one worse, or is it noise?

Pure functions on lists of results, in the order of the items. They know nothing of models.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from learning.calibrate import at_least

LEVEL = 0.95


@dataclass(frozen=True)
class Drop:
    """A mean drop (before - after) with both ends of its one-sided 95 % intervals."""

    mean: float
    at_least: float
    at_most: float


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The one-sided exact p-value of "after is worse" from the discordant items (McNemar, 1947; binomial form).

    1.0 when nothing changed. Raises ValueError when the lists differ in length.
    """
    lost, won = discordant(before, after)
    changed = lost + won
    at_least_as_many = sum(comb(changed, k) for k in range(lost, changed + 1))
    return float(at_least_as_many / 2**changed)


def lost(before: Sequence[bool], after: Sequence[bool]) -> Drop:
    """The drop in the share of right answers, bounded exactly given how many items changed at all.

    `at_least` is above 0 just when `mcnemar` is below 0.05. Source: Clopper and Pearson, 1934, on the discordant items.
    Raises ValueError when the lists differ in length.
    """
    gone, won = discordant(before, after)
    changed, items = gone + won, max(1, len(before))
    lowest, highest = least_share(gone, changed), 1 - least_share(won, changed)
    return Drop((gone - won) / items, changed * (2 * lowest - 1) / items, changed * (2 * highest - 1) / items)


def discordant(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    """How many items were right only before, and only after."""
    pairs = list(zip(before, after, strict=True))
    return sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs)


def least_share(right: int, asked: int) -> float:
    """The lower end of the exact one-sided 95 % interval for a share (Clopper and Pearson, 1934)."""
    return at_least(right, asked, LEVEL)


def dropped(before: Sequence[float], after: Sequence[float], *, resamples: int = 2000, seed: int = 7) -> Drop:
    """The mean drop of any scores, bounded by paired bootstrap over the items (Efron, 1979).

    Raises ValueError when the lists differ in length.
    """
    differences = [b - a for b, a in zip(before, after, strict=True)]
    if not differences:
        return Drop(0.0, 0.0, 0.0)
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(differences, k=len(differences))) / len(differences) for _ in range(resamples))
    last = resamples - 1
    return Drop(
        sum(differences) / len(differences), means[int((1 - LEVEL) * last)], means[min(last, int(LEVEL * resamples))]
    )
