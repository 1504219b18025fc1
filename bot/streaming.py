"""A long answer as a message that grows: what may be sent, when, and how often.

A `Stream` takes text as it comes, from a whole answer or from a model token by token, and sends it on its own timer.
Whatever it sends was redacted and made harmless as a whole, not piece by piece. It raises what Slack's client raises;
what becomes of a stream that died is decided in `answers`. It knows nothing of answers, blocks or threads.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bot import safety

MINUTE = 60.0
STARTS_AND_STOPS = 20
APPENDS = 100
"""Slack's limits for the whole workspace, in a minute."""
LIFETIME = 240.0
"""Seconds; Slack ends a stream after about five minutes."""
TICK = 0.5
"""Seconds between two appends of one stream."""
LONGEST = 11_000
"""Characters of one streamed message; Slack takes 12,000, and escaping makes a text longer."""
HELD_BACK = 120
"""Characters at the end that wait for what follows, so that a secret or a link is seen whole before it is sent."""


class StreamError(Exception):
    """A stream cannot go on, for a reason of ours; what was sent of it stands."""


class Slack(Protocol):
    """The methods of Slack's client that a stream needs."""

    def chat_startStream(self, *, channel: str, thread_ts: str, **more: Any) -> Awaitable[Any]:
        """Begin."""
        ...

    def chat_appendStream(self, *, channel: str, ts: str, **more: Any) -> Awaitable[Any]:
        """Go on."""
        ...

    def chat_stopStream(self, *, channel: str, ts: str, **more: Any) -> Awaitable[Any]:
        """End."""
        ...


@dataclass
class Limiter:
    """Counts the calls of the last minute in the whole workspace; an open stream has its stop booked."""

    clock: Callable[[], float] = time.monotonic
    open: int = 0
    _ends: deque[float] = field(default_factory=deque)
    _appends: deque[float] = field(default_factory=deque)

    def begin(self) -> bool:
        """Whether a stream may begin now; its start is counted and its stop is booked."""
        if self._lately(self._ends) + self.open + 2 > STARTS_AND_STOPS:
            return False
        self._ends.append(self.clock())
        self.open += 1
        return True

    def append(self) -> bool:
        """Whether an append may be made now; it is counted."""
        if self._lately(self._appends) >= APPENDS:
            return False
        self._appends.append(self.clock())
        return True

    def end(self) -> None:
        """Count the stop of a stream."""
        self._ends.append(self.clock())
        self.open -= 1

    def _lately(self, made: deque[float]) -> int:
        while made and made[0] <= self.clock() - MINUTE:
            made.popleft()
        return len(made)


@dataclass
class Stream:
    """One message that grows. `write` as often as you like, `finish` once."""

    slack: Slack
    limiter: Limiter
    channel: str
    thread: str
    user: str = ""
    team: str = ""
    clock: Callable[[], float] = time.monotonic
    ts: str = ""
    _stopped: bool = False
    _raw: str = ""
    _sent: str = ""
    _began: float = 0.0
    _last: float = 0.0

    async def begin(self) -> bool:
        """Start the message; False when the workspace has used up its streams for now."""
        if not self.limiter.begin():
            return False
        recipient: dict[str, str] = {"recipient_user_id": self.user} if self.user else {}
        if self.team:
            recipient["recipient_team_id"] = self.team
        try:
            told = await self.slack.chat_startStream(channel=self.channel, thread_ts=self.thread, **recipient)
        except BaseException:
            self.limiter.end()
            raise
        self.ts, self._began = str(told["ts"]), self.clock()
        self._last = self._began - TICK
        return True

    async def write(self, piece: str) -> None:
        """Take a piece of text; it is sent with the next tick. Raises StreamError when the stream must end here."""
        self._raw += piece
        if self.clock() - self._began > LIFETIME:
            raise StreamError("the stream is about to die of age")
        if self.clock() - self._last >= TICK:
            await self._flush()

    async def finish(self, blocks: Sequence[dict[str, Any]] = ()) -> None:
        """Send what is left, and the blocks under it. Raises StreamError when what was sent must be taken back."""
        rest = self._unsent(harmless(self._raw))
        more: dict[str, Any] = {"markdown_text": rest} if rest else {}
        await self.stop(blocks=list(blocks), **more)

    async def stop(self, **last: Any) -> None:
        """End the message as it stands, once; later calls do nothing."""
        if self.ts and not self._stopped:
            self._stopped = True
            self.limiter.end()
            await self.slack.chat_stopStream(channel=self.channel, ts=self.ts, **last)

    async def _flush(self) -> None:
        ready = self._raw[: ready_until(self._raw)]
        rest = self._unsent(harmless(ready))
        if rest and self.limiter.append():
            self._last = self.clock()
            await self.slack.chat_appendStream(channel=self.channel, ts=self.ts, markdown_text=rest)
            self._sent += rest

    def _unsent(self, shown: str) -> str:
        if not shown.startswith(self._sent):
            raise StreamError("what follows changes what was sent already")
        if len(shown) > LONGEST:
            raise StreamError("the text is too long for one message")
        return shown[len(self._sent) :]


def ready_until(text: str) -> int:
    """How much of a growing text may be shown: up to a space, not into open code, and never its last characters."""
    end = max(text.rfind(" ", 0, max(0, len(text) - HELD_BACK)), 0)
    return text.rfind("```", 0, end) if text.count("```", 0, end) % 2 else end


_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_LINKED = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]*://|\bwww\.|\bmailto:)[^\s`]+|\b[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}\b[^\s`]*", re.IGNORECASE
)
_LABELLED = re.compile(r"\](?=[(\[:])")


def harmless(text: str) -> str:
    """Markdown in which nothing links, pings or shows a picture.

    A stream has no switch that keeps Slack from looking into links, so every address stands as code, and a backtick
    that would open or close code elsewhere than we think becomes an apostrophe.
    """
    shown = re.sub("`{4,}", "```", safety.escape(safety.redact_secrets(text)))
    return "".join(part if _CODE.fullmatch(part) else _unlinked(part) for part in _CODE.split(shown))


def _unlinked(text: str) -> str:
    return _LINKED.sub(lambda found: f"`{found[0]}`", _LABELLED.sub("] ", text.replace("`", "'")))


async def pieces(text: str, parts: int = 5) -> AsyncIterator[str]:
    """A whole text in some pieces, one a tick, as if it were being written."""
    size = max(HELD_BACK + 1, -(-len(text) // parts))
    for start in range(0, len(text), size):
        yield text[start : start + size]
        await asyncio.sleep(TICK)
