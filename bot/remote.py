"""The remote engine: the interface of the local one over a model server, one model name for each version.

There is no single-pass check of a draft that all servers share, so a draft is checked by writing the greedy text and
comparing. An engine that is away is left alone for a while, each time a little longer, so that nobody waits for it;
meanwhile every call fails at once, with the reason. It knows nothing of HTTP, routes or databases.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile
from pathlib import PurePath
from typing import TypeVar

from bot.generation import Engine, Generation, Request, Unwanted
from bot.generation import Watch as TextWatch
from bot.modelserver import ModelServer, Reply
from bot.prompt import Message
from storage.errors import EngineAwayError, IntegrityError

log = logging.getLogger(__name__)

SIDE_BY_SIDE = 16
"""Requests that a server is sent at the same time, as many as the desk takes together."""
LONGEST_REST = 30.0
"""Seconds that a server which stays away is left alone at most; the first rest is one second, each next the double."""
TOLD_AGAIN = 3600.0
"""Seconds in which a server that comes and goes is told of once."""
Result = TypeVar("Result")


class RemoteEngine:
    """One version on a model server, served there by that very name."""

    def __init__(self, server: ModelServer, version: str) -> None:
        """Nothing is asked yet."""
        self.server, self.version = server, version

    def generate(self, messages: Sequence[Message], *, max_tokens: int, watch: TextWatch | None = None) -> Generation:
        """Greedy text for a chat. Raises EngineError when it is not given, Unwanted when `watch` ends it."""
        reply = self.server.chat(self.version, messages, max_tokens=max_tokens, watch=watch)
        if reply.model != self.version:
            raise self.server.away(
                f"answers as {PurePath(reply.model).name or 'nobody'} and not as {self.version}; start it with "
                f"--served-model-name {self.version} (vLLM) or --alias {self.version} (llama.cpp)"
            )
        return generation_of(reply)

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, compared with `draft`; `confirmed` counts characters. Raises EngineError."""
        written = self.generate(messages, max_tokens=max_tokens)
        return replace(written, confirmed=agreement(written, draft.strip()))

    def many(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        """The outcome of each request, asked side by side: the server batches them. Raises EngineError for all."""
        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="remote") as pool:
            return list(pool.map(self._one, requests))

    def _one(self, request: Request) -> Generation | Unwanted:
        try:
            if request.draft is not None:
                return self.confirm(request.messages, request.draft, max_tokens=request.max_tokens)
            return self.generate(request.messages, max_tokens=request.max_tokens, watch=request.watch)
        except Unwanted as gone:
            return gone


class ProvenEngine:
    """A remote engine that proves its weights before it answers."""

    def __init__(self, engine: RemoteEngine, prove: Callable[[Engine], None], watch: "Watch") -> None:
        """Answer with `engine` once `prove` has passed; it raises IntegrityError when the weights are other ones.

        The proof is repeated after the server was away, since one that comes back may hold other weights.
        """
        self._engine, self._prove, self._watch = engine, prove, watch
        self._proved, self._proving = False, threading.Lock()

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """Greedy text for a chat. Raises EngineError when the server does not give it."""
        return self._proven(lambda: self._engine.generate(messages, max_tokens=max_tokens))

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, compared with `draft`. Raises EngineError when the server does not give it."""
        return self._proven(lambda: self._engine.confirm(messages, draft, max_tokens=max_tokens))

    def many(self, requests: Sequence[Request]) -> list[Generation | Unwanted]:
        """The outcome of each request, asked side by side. Raises EngineError when the server does not give them."""
        return self._proven(lambda: self._engine.many(requests))

    def greet(self) -> bool:
        """Whether the server offers the version now; one that is away is told of and not raised."""
        try:
            self._proven(lambda: None)
        except EngineAwayError:
            return False
        return True

    def _proven(self, work: Callable[[], Result]) -> Result:
        def work_when_proven() -> Result:
            self._make_sure()
            return work()

        try:
            return self._watch.call(work_when_proven)
        except EngineAwayError:
            self._proved = False
            raise

    def _make_sure(self) -> None:
        with self._proving:
            if self._proved:
                return
            server, version = self._engine.server, self._engine.version
            offered = server.models()
            if version not in offered:
                instead = f"{named(offered)} and not {version}"
                raise server.away(f"offers {instead}; serve the version's folder under its name")
            try:
                self._prove(self._engine)
            except IntegrityError as error:
                raise server.away(f"serves other weights under the name {version}: {str(error).rstrip('.')}") from error
            self._proved = True


class Watch:
    """Leaves a server alone while it is away, and tells when it goes and when it is back."""

    def __init__(
        self, tell: Callable[[str], None] = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`tell` gets one sentence for each change, and at most one going in an hour."""
        self._tell, self._clock = tell, clock
        self._failures, self._rest_until, self._why = 0, 0.0, ""
        self._told_at, self._told = -TOLD_AGAIN, False
        self._lock = threading.Lock()

    def call(self, work: Callable[[], Result]) -> Result:
        """What `work` gives. Raises EngineAwayError at once while the server is left alone."""
        if self._clock() < self._rest_until:
            raise EngineAwayError(self._why)
        try:
            done = work()
        except EngineAwayError as error:
            with self._lock:
                self._went(str(error))
            raise
        with self._lock:
            self._came()
        return done

    def _went(self, why: str) -> None:
        rest = min(LONGEST_REST, 2.0**self._failures)
        self._failures += 1
        self._rest_until, self._why = self._clock() + rest, why
        log.warning("%s It is tried again in %g s.", why, rest)
        if not self._told and self._clock() - self._told_at >= TOLD_AGAIN:
            self._told_at, self._told = self._clock(), True
            self._tell(f"{why} Until that is mended, approved answers and quotes go on, word for word.")

    def _came(self) -> None:
        if self._failures:
            log.info("the model server is back")
        self._failures = 0
        if self._told:
            self._told = False
            self._tell("The model server is back, and the model answers again.")


def greeted(
    server: ModelServer, version: str, prove: Callable[[Engine], None], tell: Callable[[str], None]
) -> ProvenEngine:
    """The engine of a version on a server, which was looked for but need not be there yet."""
    engine = ProvenEngine(RemoteEngine(server, version), prove, Watch(tell))
    engine.greet()
    return engine


def generation_of(reply: Reply) -> Generation:
    """A reply as an engine gives it; margins are differences of log-probabilities, which equal those of logits."""
    pairs = [token.likeliest for token in reply.tokens]
    margins = tuple(p[0][1] - p[1][1] if len(p) > 1 else 0.0 for p in pairs)
    return Generation(reply.text.strip(), tuple(t.logprob for t in reply.tokens), margins, reply.stopped)


def agreement(written: Generation, draft: str) -> float:
    """How much of a draft the model wrote itself: 1 for all of it, as far as it was allowed to write."""
    cut_within = not written.stopped and written.text and draft.startswith(written.text)
    if cut_within or (written.stopped and written.text == draft):
        return 1.0
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(written.text, draft, strict=False)))
    return same / (len(draft) + 1)


def named(models: Sequence[str]) -> str:
    """Some models in words, without the folders that a server may show."""
    return ", ".join(PurePath(m).name for m in models[:5]) or "no model"
