"""Did this process, or the one before it, die while Chroma was at work?

A mark stands in the index folder as long as a call into Chroma runs. A process that ends there, by a segmentation
fault or otherwise, leaves it behind; the next owner finds it, and counts. An owner that closes in good order after
it has used the index begins the count anew. It knows nothing of what the index holds.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

MARK, COUNT = "busy", "crashes"
SEARCHING, KEEPING = "search", "upkeep"
"""What the mark says of the call: a search is all that an answering process does; upkeep runs beside other work."""
MOST = 3
"""Deaths in a row after which the index is not opened any more: it is not the files that are at fault then."""


class Crashes:
    """The mark and the count of one index folder. A disk that takes neither costs no search."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read before `look_back`.

        `before` is whether the last owner died inside, `searching` whether in a search, `count` how many in a row.
        """
        self._mark, self._count = folder / MARK, folder / COUNT
        self._guard = threading.Lock()
        self._inside = 0
        self.before, self.searching, self.count = False, False, 0

    def look_back(self) -> None:
        """Read what the owner before left, and count it."""
        self.before = self._mark.exists()
        with suppress(OSError):
            self.searching = self._mark.read_text(encoding="ascii", errors="replace") == SEARCHING
        self.count = count_of(self._count) + self.before
        if self.before:
            log.error("the process before died while the vector index was in use (%s in a row)", self.count)
            self._keep()

    @property
    def too_many(self) -> bool:
        """Whether the index is to be left alone."""
        return self.count >= MOST

    def forgive(self) -> None:
        """Begin the count anew."""
        if self.count:
            self.count = 0
            self._keep()

    @contextmanager
    def inside(self, doing: str = KEEPING) -> Iterator[None]:
        """Set the mark for as long as some thread is inside; it says what the first of them does."""
        with self._guard:
            self._inside += 1
            if self._inside == 1:
                with suppress(OSError):
                    self._mark.write_text(doing, encoding="ascii")
        try:
            yield
        finally:
            with self._guard:
                self._inside -= 1
                if not self._inside:
                    with suppress(OSError):
                        self._mark.unlink(missing_ok=True)

    def _keep(self) -> None:
        with suppress(OSError):
            self._mark.unlink(missing_ok=True)
            self._count.write_text(str(self.count), encoding="ascii")


def count_of(file: Path) -> int:
    """The number in a file, 0 where there is none."""
    try:
        return int(file.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return 0
