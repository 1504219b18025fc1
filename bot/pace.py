"""How much one person may do within a minute: ask, vote, correct. Who does more hears when to go on.

Counted in memory, in the one process that speaks to Slack: a restart begins anew. Every refusal is in the audit log.
It knows nothing of what is asked or taught.
"""

import time
from collections import deque
from collections.abc import Callable

from storage import audit
from storage.database import Database
from storage.errors import BusyError

WINDOW = 60.0
"""Seconds."""
MOST_REMEMBERED = 10_000


class Pace:
    """Counts per person what happened within the last minute; `limit` 0 lets everything pass."""

    def __init__(self, limit: int, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the limit; `what` names the thing in the plural, as in "questions"."""
        self.limit, self.what, self._clock = limit, what, clock
        self._done: dict[str, deque[float]] = {}

    def take(self, user: str) -> None:
        """Count one more. Raises BusyError when a person had as many within a minute as they may."""
        if not self.limit:
            return
        now = self._clock()
        done = self._done.setdefault(user, deque())
        while done and done[0] <= now - WINDOW:
            done.popleft()
        if len(done) >= self.limit:
            seconds = max(1, round(done[0] + WINDOW - now))
            raise BusyError(
                f"I take {self.limit} {self.what} a minute from one person, and you sent more. "
                f"Please go on in {seconds} seconds."
            )
        done.append(now)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop who was quiet for a minute when many are remembered."""
        if len(self._done) > MOST_REMEMBERED:
            self._done = {user: done for user, done in self._done.items() if done and done[-1] > now - WINDOW}


def note_refusal(database: Database, user: str, what: str) -> None:
    """Log that somebody was too fast."""
    audit.append(database, "pace.refused", user=user, what=what)
