"""Memory of weights: it goes back to the system when they are freed, also from between what stays."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bot import memory

LAYERS, SIZE = 64, 1 << 20


def resident() -> float:
    """Megabytes of memory that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc on Linux alone can be told")
def test_weights_that_are_freed_leave_nothing_behind() -> None:
    memory.give_back()
    before, kept = resident(), []
    for _ in range(3):
        weights = []
        with memory.weights_apart():
            for _ in range(LAYERS):
                weights.append(np.ones(SIZE, dtype=np.uint8))
                kept.append(np.ones(1000, dtype=np.uint8))  # what stays lies in between
        assert resident() - before > 0.9 * LAYERS
        del weights
        memory.give_back()
        assert resident() - before < 0.1 * LAYERS


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    memory.of_the_c_library.cache_clear()
    with memory.weights_apart():
        pass
    memory.give_back()
    memory.of_the_c_library.cache_clear()
