"""The processors, in equal parts for the passes that run at once: one alone uses all, two use half of them each.

Passes of a small model gain little from a second processor; two of them side by side gain nearly all of it. It knows
nothing of models.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

ABREAST = 2
"""Computations side by side in `each`; the same on every machine: how sums are split decides their last digits."""
Given = TypeVar("Given")
Found = TypeVar("Found")


class Processors:
    """Counts who computes, in threads of their own."""

    def __init__(self) -> None:
        """Nobody computes yet."""
        self._all = torch.get_num_threads()
        self._busy = 0
        self._lock = threading.Lock()

    @contextmanager
    def shared(self, passes: int = 1) -> Iterator[None]:
        """Compute beside others, in so many passes; the thread has all processors again when it ends."""
        with self._lock:
            self._busy += passes
        try:
            yield
        finally:
            with self._lock:
                self._busy -= passes
            use(self._all)

    def take(self) -> None:
        """Give the thread its part for the next pass."""
        use(max(1, self._all // max(1, self._busy)))

    def each(self, compute: Callable[[Given], Found], given: Iterable[Given]) -> list[Found]:
        """What is computed of each, in their order; some at a time, in threads of their own."""
        with self.shared(ABREAST), ThreadPoolExecutor(ABREAST) as pool:
            return list(pool.map(lambda one: self._beside(compute, one), given))

    def _beside(self, compute: Callable[[Given], Found], given: Given) -> Found:
        self.take()
        try:
            return compute(given)
        finally:
            use(self._all)  # threads that start later begin with the count that was set last


def use(count: int) -> None:
    """Let the passes of this thread use so many processors."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
