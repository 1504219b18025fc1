"""An answer that its asker watches while the model writes it, as a Slack message that grows.

What the model writes may still be held back or be replaced by a quotation: then the message is replaced, as one whose
stream died. It knows nothing of how an answer is found; what may be shown of a text is decided in `streaming`.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from bot import streaming
from bot.delivery import UNREACHABLE, Parts
from bot.streaming import Stream, StreamError

log = logging.getLogger(__name__)

LAST_APPEND = 5.0
"""Seconds that an append on its way is waited for: cut off, it may have arrived, and its text would be sent again."""
WORTH_SHOWING = streaming.HELD_BACK + 80
"""Characters from which a message is begun: the last ones are held back, and a short text is read sooner whole."""


@dataclass
class Growing:
    """Takes the text that is being written (`take`, from any thread) and shows it in a thread."""

    parts: Parts
    channel: str
    thread: str
    user: str
    stream: Stream | None = None
    written: str = ""
    _text: str = ""
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _task: "asyncio.Task[None] | None" = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def take(self, text: str) -> None:
        """The text so far, whole."""
        with contextlib.suppress(RuntimeError):  # the bot is stopping, and its loop is closed
            self._loop.call_soon_threadsafe(self._took, text)

    def _took(self, text: str) -> None:
        self._text = text
        if self._task is None and len(text) >= WORTH_SHOWING:
            self._task = self.parts.begin(self._show())

    async def _show(self) -> None:
        """Send what is new, a tick at a time, until somebody ends it."""
        stream = Stream(self.parts.client, self.parts.streams, self.channel, self.thread, self.user, self.parts.team)
        try:
            if not await stream.begin():
                return
            self.stream = stream
            while self._text.startswith(self.written) and not self._over.is_set():
                piece = self._text[len(self.written) :]
                self.written += piece
                await stream.write(piece)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), streaming.TICK)
        except (*UNREACHABLE, StreamError) as error:
            log.info("an answer is not watched any more: %s", error)

    async def ended(self) -> Stream | None:
        """Stop showing; the stream that was begun, if any."""
        self._over.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LAST_APPEND)
            self._task.cancel()
            await asyncio.wait({self._task})
        return self.stream

    async def withdrawn(self) -> None:
        """Take back what was shown: there will be no answer here."""
        stream = await self.ended()
        if stream is not None:
            with contextlib.suppress(*UNREACHABLE):
                await stream.stop()
            with contextlib.suppress(*UNREACHABLE):
                await self.parts.client.chat_delete(channel=self.channel, ts=stream.ts)
