"""The processors, in equal parts for the passes that run at once: one alone uses all, two use half of them each.

Passes of a small model gain little from a second processor; two of them side by side gain nearly all of it. It knows
nothing of models.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Processors:
    """Counts who computes, in threads of their own."""

    def __init__(self) -> None:
        """Nobody computes yet."""
        self._all = torch.get_num_threads()
        self._busy = 0
        self._lock = threading.Lock()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Compute beside others; the thread has all processors again when it ends."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
            use(self._all)

    def take(self) -> None:
        """Give the thread its part for the next pass."""
        use(max(1, self._all // max(1, self._busy)))


def use(count: int) -> None:
    """Let the passes of this thread use so many processors."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
