"""The waiting line before the desk: bounded, fair by person, with a place number, a deadline and a way out.

People are served in turn, one question each, so that whoever asks thirty waits for those who ask one; and nobody may
fill the line alone. It knows nothing of questions, models or threads but its own lock.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from storage.errors import BusyError

Work = TypeVar("Work")

SHARE = 4
"""One person may hold this part of the line (a quarter) and no more."""


class Ticket(Future[Any]):
    """What somebody holds who waits. Cancelled while the answer is being made, it says so in `unwanted`."""

    def __init__(self) -> None:
        """Wait."""
        super().__init__()
        self.unwanted = False

    def cancel(self) -> bool:
        """Leave; whether that was before the answer was begun."""
        self.unwanted = True
        return super().cancel()


@dataclass(frozen=True)
class Waiting(Generic[Work]):
    """Somebody in the line. `alone` is work that is not taken together with other work.

    It is not lost either: it may wait as long as it must, and is still taken from a line that is closed.
    """

    work: Work
    ticket: Ticket
    user: str
    since: float
    alone: bool


@dataclass
class Line(Generic[Work]):
    """Who waits, by person. `limit` is the longest it gets, `seconds` the longest a question waits (0: no limit)."""

    limit: int
    seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic
    in_hand: int = 0
    """How many are being served, who stand before the first in the line."""
    _by_user: "OrderedDict[str, deque[Waiting[Work]]]" = field(default_factory=OrderedDict)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._by_user.values()))

    def join(self, work: Work, user: str, *, alone: bool = False) -> Ticket:
        """Stand in line. Raises BusyError when the line is full, or this person's part of it, or it is closed."""
        with self._changed:
            if self._closed:
                raise BusyError("The bot is stopping; please ask again in a minute.")
            if len(self) >= self.limit:
                raise BusyError(f"{len(self)} questions are waiting already; please ask again in a minute.")
            own = self._by_user.setdefault(user, deque())
            if len(own) >= max(1, self.limit // SHARE):
                raise BusyError(f"{len(own)} of your questions are waiting already; please let them be answered first.")
            own.append(Waiting(work, Ticket(), user, self.clock(), alone))
            self._changed.notify()
            return own[-1].ticket

    def place(self, ticket: "Future[Any]") -> int:
        """How many are served before this one, itself counted: 1 is next; 0 when it does not wait any more."""
        with self._changed:
            for turn, own in enumerate(self._by_user.values()):
                for at, one in enumerate(own):
                    if one.ticket is ticket:
                        others = [len(q) for q in self._by_user.values() if q is not own]
                        ahead = sum(min(n, at + (i < turn)) for i, n in enumerate(others))
                        return self.in_hand + at + ahead + 1
        return 0

    def take(self, most: int, timeout: float) -> list[Waiting[Work]]:
        """Who is served next, at most `most` together; none when nobody came within `timeout` seconds.

        Who has left is forgotten, and who waited beyond the deadline hears a sentence.
        """
        with self._changed:
            self.in_hand = 0
            if not self._by_user:
                self._changed.wait(timeout)
            taken: list[Waiting[Work]] = []
            while self._by_user and len(taken) < most:
                user, own = next(iter(self._by_user.items()))
                if taken and own[0].alone:
                    break
                one = own.popleft()
                self._by_user.move_to_end(user)
                if not own:
                    del self._by_user[user]
                if self._begins(one):
                    taken.append(one)
                if taken and taken[-1].alone:
                    break
            self.in_hand = len(taken)
            return taken

    def _begins(self, one: Waiting[Work]) -> bool:
        """Whether one is to be served: neither gone nor too late."""
        if not one.ticket.set_running_or_notify_cancel():
            return False
        waited = self.clock() - one.since
        if one.alone or not self.seconds or waited <= self.seconds:
            return True
        one.ticket.set_exception(
            BusyError(f"So many people asked that your question waited {waited:.0f} seconds. Please ask it again.")
        )
        return False

    def close(self) -> None:
        """Let nobody in any more, and tell those who wait for an answer; work that is done alone is still taken."""
        with self._changed:
            self._closed = True
            waiting = [one for own in self._by_user.values() for one in own]
            self._by_user.clear()
            for one in waiting:
                if one.alone:
                    self._by_user.setdefault(one.user, deque()).append(one)
        for one in (one for one in waiting if not one.alone):
            if one.ticket.set_running_or_notify_cancel():
                one.ticket.set_exception(BusyError("The bot is stopping; please ask again in a minute."))
