"""Which examples and which anchors meet in which step of training, epoch by epoch.

It is plain arithmetic over places in lists, and knows nothing of tokens or tensors.
"""

import math
import random
from collections.abc import Collection, Iterable, Sequence

from learning.dataset import Example
from learning.recipe import Recipe

FEW_STEPS = 40
"""Epochs shorter than this are not sifted: there is little to save, and at the rate of few facts too little is left."""


class Plan:
    """Which rows and which anchors meet in which step, and which known examples are repeated at all.

    Every new example comes once an epoch, with as many known ones in turn; from epoch `sifting` on only the share of
    them whose worst token cost most when they were seen last, and the `taught` ones: a row that is left out can be lost
    to the others without anybody seeing it, and the taught question is the one that is asked when people ask. (After
    selective backpropagation, Jiang et al. 2019; a mean over the tokens hides the first one, which alone turns a long
    answer into "I don't know".) New rows and known ones are sifted apart: a known one that this night has not seen has
    no loss yet, and hundreds of them would leave no room for what is new. Rows are named by their place in "new ones,
    then the repeated known ones", anchors by their own place.
    """

    def __init__(
        self, new: int, known: int, anchors: int, recipe: Recipe, epochs: int, taught: Collection[int] = ()
    ) -> None:
        """Deal out `epochs` epochs."""
        self._taught = frozenset(taught)
        rng = random.Random(recipe.seed)
        self._recipe, self._new, self._epochs = recipe, new, epochs
        self._wanted = min(known, new)
        self.repeated = rng.sample(range(known), known)[: min(known, self._wanted * epochs)]
        self._anchors = rng.sample(range(anchors), anchors)
        full = new + self._wanted
        sift = math.ceil(full / recipe.batch) >= FEW_STEPS
        self._sizes = [math.ceil(full * (recipe.sifted if sift and e >= recipe.sifting else 1)) for e in range(epochs)]
        self._lengths = [math.ceil(size / recipe.batch) for size in self._sizes]
        self._orders: dict[int, list[int]] = {}

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return sum(self._lengths)

    @property
    def ends(self) -> list[int]:
        """The number of steps after which each epoch is over."""
        return [sum(self._lengths[: e + 1]) for e in range(self._epochs)]

    def step(self, number: int, losses: Sequence[float]) -> tuple[list[int], list[int]]:
        """Rows and anchors of a step; an epoch's rows are chosen when its first step is asked for."""
        epoch = next(e for e, end in enumerate(self.ends) if number < end)
        if epoch not in self._orders:
            self._orders[epoch] = self._order(epoch, losses)
        start = (number - (self.ends[epoch] - self._lengths[epoch])) * self._recipe.batch
        rows = self._orders[epoch][start : start + self._recipe.batch]
        count = min(self._recipe.replay, len(self._anchors))
        return rows, [self._anchors[(number * count + i) % len(self._anchors)] for i in range(count)]

    def _order(self, epoch: int, losses: Sequence[float]) -> list[int]:
        again = [self._new + (epoch * self._wanted + i) % len(self.repeated) for i in range(self._wanted)]
        repeats = self._sizes[epoch] * self._wanted // (self._new + self._wanted)
        rows = [
            *self._worst(range(self._new), self._sizes[epoch] - repeats, losses),
            *self._worst(dict.fromkeys(again), repeats, losses),
        ]
        random.Random(f"{self._recipe.seed}:{epoch}").shuffle(rows)
        return rows

    def _worst(self, rows: Iterable[int], count: int, losses: Sequence[float]) -> list[int]:
        return sorted(rows, key=lambda row: (row not in self._taught, -losses[row], row))[:count]


def taught_questions(examples: Sequence[Example]) -> list[int]:
    """The place of each fact's first wording: the question that was taught."""
    first: dict[int, int] = {}
    for at, example in enumerate(examples):
        if example.kind == "fact":
            first.setdefault(example.correction_id, at)
    return list(first.values())
