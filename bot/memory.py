"""Keep the memory of a bot that swaps models where it was.

Two things stand in the way (DECISIONS.md, 2026-11-20): glibc keeps the pages of what was freed, and weights that lie
among other allocations leave holes that never close. So weights are given pages of their own, which go back when they
are freed, and after a swap every other free page is handed back. Elsewhere than on glibc nothing is done.
"""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Options of mallopt: https://man7.org/linux/man-pages/man3/mallopt.3.html"""
APART, TOGETHER = 128 << 10, 32 << 20
"""Bytes from which a block gets pages of its own: while weights are loaded, and else (the most that glibc takes)."""
KEPT = 64 << 20
"""Free bytes at the end of the heap that stay between answers, so that none pays for getting them again."""


@contextmanager
def weights_apart() -> Iterator[None]:
    """Give blocks that are made in this context, in any thread, pages of their own."""
    option = of_the_c_library("mallopt")
    option(MMAP_THRESHOLD, APART)
    try:
        yield
    finally:
        option(MMAP_THRESHOLD, TOGETHER)
        option(TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Collect reference cycles, which hold old weights, and hand free pages to the system (about 30 ms)."""
    gc.collect()
    of_the_c_library("malloc_trim")(0)


@cache
def of_the_c_library(name: str) -> Callable[..., int]:
    """A function of the C library where it has one of this name (glibc), else what does nothing."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return lambda *_: 0
    return found
