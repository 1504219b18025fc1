"""Give memory that is no longer needed back to the system.

A model that gives way leaves hundreds of megabytes in the allocator's hands: in five swaps the process grew from 0.6
to 1.0 GB (DECISIONS.md, 2026-11-20). It knows nothing of models.
"""

import ctypes
import gc
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Collect reference cycles, which hold old weights, and hand free pages to the system (about 30 ms)."""
    gc.collect()
    trim()(0)


@cache
def trim() -> Callable[[int], int]:
    """The `malloc_trim` of the C library where it has one (glibc), else what does nothing.

    Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda _: 0
    return found
