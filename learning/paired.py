"""Statistics for two models that answered the same items: is the second one worse, or is it noise?

Pure functions on lists of results, in the order of the items. They know nothing of models.
"""

import random
from collections.abc import Sequence
from math import comb


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """The one-sided exact p-value of "after is worse" from the discordant items (McNemar, 1947; binomial form).

    1.0 when nothing changed. Raises ValueError when the lists differ in length.
    """
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    won = sum(a and not b for b, a in zip(before, after, strict=True))
    changed = lost + won
    at_least_as_many = sum(comb(changed, k) for k in range(lost, changed + 1))
    return float(at_least_as_many / 2**changed)


def drop(
    before: Sequence[float], after: Sequence[float], *, resamples: int = 2000, seed: int = 7
) -> tuple[float, float]:
    """The mean drop (before - after), and the upper end of its one-sided 95 % interval by paired bootstrap."""
    differences = [b - a for b, a in zip(before, after, strict=True)]
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(differences, k=len(differences))) / len(differences) for _ in range(resamples))
    return sum(differences) / len(differences), means[int(0.95 * resamples)]
