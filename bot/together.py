"""Several questions at once: whatever they ask of the models goes through the models together.

Each piece of work runs in a thread of its own, but only one of them at a time, handing over where it would call a
model. When all of them wait for one, the calls are made in as few passes as possible and the work goes on; calls of
different kinds are made side by side. So the work itself is written as if it were alone, and needs no locks. It knows
nothing of what is asked or answered.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from bot.generation import Engine, Generation, ManyAtOnce, Request, Unwanted, Watch
from bot.pipeline import Tools
from bot.prompt import Message

Work = Callable[[Tools], Any]
Done = Callable[[Sequence[tuple[int, Any]]], None]
"""Gets the numbers of the pieces of work that ended, each with its result or the exception that it ended in."""
FEW_TEXTS, MANY_TEXTS = 8, 160
"""Texts of a call up to which it is a small one, embedded before the large ones, and most texts of several large ones
that are embedded together (below `retrieval.embedder.FEW`, so that they are remembered)."""


@dataclass(eq=False)
class Call:
    """Something asked of a model, and what came of it: a result, or an exception. Two people may ask the same."""

    asked: Request | Sequence[str]
    result: Any = None

    def outcome(self) -> Any:
        """The result. Raises the exception it ended in."""
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


Ask = Callable[[Call], Any]


@dataclass(frozen=True)
class Shared:
    """A model in place of the real one: an embedder, and an engine that tells `watch` how far it is."""

    real: Any
    ask: Ask
    watch: Watch | None = None

    def __getattr__(self, name: str) -> Any:
        """Whatever is not done together is asked of the real one."""
        return getattr(self.real, name)

    def encode(self, texts: Sequence[str]) -> Any:
        """One row per text."""
        return self.ask(Call(list(texts)))

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        """Greedy text for a chat. Raises Unwanted when nobody waits for it any more."""
        made: Generation = self.ask(Call(Request(messages, max_tokens, watch=self.watch)))
        return made

    def confirm(self, messages: Sequence[Message], draft: str, *, max_tokens: int) -> Generation:
        """The greedy text, found by checking `draft` first."""
        made: Generation = self.ask(Call(Request(messages, max_tokens, draft)))
        return made


def shared(tools: Tools, ask: Ask, watch: Watch | None = None) -> Tools:
    """The same tools, whose models are asked through `ask`."""
    model = replace(tools.model, engine=Shared(tools.model.engine, ask, watch))
    return replace(tools, embedder=Shared(tools.embedder, ask), model=model)


def alone(tools: Tools, watch: Watch | None = None) -> Tools:
    """The same tools for one piece of work, told to `watch`."""

    def ask(call: Call) -> Any:
        serve(tools, [call])
        return call.outcome()

    return shared(tools, ask, watch)


# --- one pass for many ---


def serve(tools: Tools, calls: Sequence[Call]) -> None:
    """Make some calls, in as few passes as possible; each gets its result, or the exception of its own failure."""
    texts = [c for c in calls if not isinstance(c.asked, Request)]
    for group in by_size(texts):
        together(group, lambda some: embedded(tools, some))
    together([c for c in calls if isinstance(c.asked, Request)], lambda some: written(tools.model.engine, some))


def by_size(calls: Sequence[Call]) -> list[list[Call]]:
    """Calls to embed that go together: all small ones, then large ones up to MANY_TEXTS."""
    sizes = {id(call): len(call.asked) for call in calls if not isinstance(call.asked, Request)}
    groups = [[call for call in calls if sizes[id(call)] <= FEW_TEXTS]]
    room = 0
    for call in calls:
        size = sizes[id(call)]
        if size > FEW_TEXTS:
            if size > room:
                groups.append([])
                room = MANY_TEXTS
            groups[-1].append(call)
            room -= size
    return groups


def together(calls: Sequence[Call], make: Callable[[Sequence[Call]], Sequence[Any]]) -> None:
    """Make calls in one go, or one by one when that fails, so that each ends in its own failure."""
    try:
        results = make(calls) if calls else ()
    except Exception as error:
        if len(calls) == 1:
            calls[0].result = error
            return
        for call in calls:
            together([call], make)
        return
    for call, result in zip(calls, results, strict=True):
        call.result = result


def embedded(tools: Tools, calls: Sequence[Call]) -> Sequence[Any]:
    """The vectors of each call's texts."""
    texts: list[Sequence[str]] = [c.asked for c in calls if not isinstance(c.asked, Request)]
    rows = tools.embedder.encode([text for some in texts for text in some])
    return np.split(rows, np.cumsum([len(some) for some in texts])[:-1])


def written(engine: Engine, calls: Sequence[Call]) -> Sequence[Any]:
    """What the engine wrote for each call."""
    requests = [c.asked for c in calls if isinstance(c.asked, Request)]
    if isinstance(engine, ManyAtOnce):
        return engine.many(requests)
    return [one(engine, request) for request in requests]


def one(engine: Engine, request: Request) -> Generation | Unwanted:
    """What an engine wrote that does one thing at a time."""
    if request.watch is not None and not request.watch(""):
        return Unwanted()
    if request.draft is None:
        return engine.generate(request.messages, max_tokens=request.max_tokens)
    return engine.confirm(request.messages, request.draft, max_tokens=request.max_tokens)


# --- taking turns ---


@dataclass
class Worker:
    """A thread that does one piece of work after another, and only when it has the turn."""

    ended: Callable[[], None]
    turn: threading.Event = field(default_factory=threading.Event)
    back: threading.Event = field(default_factory=threading.Event)
    work: Callable[[], Any] | None = None
    call: Call | None = None
    result: Any = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Begin to wait for work."""
        self.thread = threading.Thread(target=self._live, name="answer", daemon=True)
        self.thread.start()

    def go(self) -> bool:
        """Give it the turn until it waits for a call or is done; whether it waits."""
        self.back.clear()
        self.turn.set()
        self.back.wait()
        return self.call is not None

    def forget(self) -> Any:
        """The result of work that is done, which is let go: it holds its tools, and they a whole model."""
        result, self.result, self.work = self.result, None, None
        return result

    def ask(self, call: Call) -> Any:
        """Wait until a call was made; from inside the work."""
        self.call = call
        self._hand_over()
        self.call = None
        return call.outcome()

    def _hand_over(self) -> None:
        self.turn.clear()
        self.back.set()
        self.turn.wait()

    def _live(self) -> None:
        self.turn.wait()
        while self.work is not None:
            try:
                self.result = self.work()
            except BaseException as error:
                self.result = error
            self._hand_over()
        self.ended()
        self.back.set()


Seats = list[tuple[int, Worker]]
"""Pieces of work by their numbers, each with who does it."""


class Kind(Enum):
    """What a call asks of the models. Two kinds never wait for each other."""

    TEXTS = "texts to embed"
    DRAFTS = "drafts to check"
    CHATS = "chats to write"
    OTHERS = "for an engine that does one thing at a time"


def kind_of(call: Call, engine: Engine) -> Kind:
    """The kind of a call."""
    if not isinstance(call.asked, Request):
        return Kind.TEXTS
    if not isinstance(engine, ManyAtOnce):
        return Kind.OTHERS
    return Kind.CHATS if call.asked.draft is None else Kind.DRAFTS


Running = dict[Kind, tuple[Seats, Future[None]]]
"""The pass that runs of each kind, and whose calls it makes."""


class Table:
    """Some workers who take turns; `ended` is called in the thread of each when the table is closed."""

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        """Nobody works yet; threads begin when they are needed."""
        self._ended = ended
        self._workers: list[Worker] = []
        self._lanes = ThreadPoolExecutor(len(Kind), thread_name_prefix="pass")

    def run(self, tools: Tools, works: Sequence[Work], watches: Sequence[Watch | None], done: Done) -> None:
        """Do all pieces of work; `done` gets those that have ended, between the passes."""
        while len(self._workers) < len(works):
            self._workers.append(Worker(self._ended))
        ready = list(enumerate(self._workers[: len(works)]))
        for at, worker in ready:
            worker.work = bound(works[at], shared(tools, worker.ask, watches[at]))
        waiting: dict[Kind, Seats] = {kind: [] for kind in Kind}
        running: Running = {}
        while ready:
            ended = []
            for at, worker in ready:
                if worker.go() and worker.call is not None:
                    waiting[kind_of(worker.call, tools.model.engine)].append((at, worker))
                else:
                    ended.append((at, worker.forget()))
            if ended:
                done(ended)
            ready = self._passes(tools, waiting, running)

    def _passes(self, tools: Tools, waiting: dict[Kind, Seats], running: Running) -> Seats:
        """Begin a pass of each kind that is waited for, and wait until one has ended; who goes on then."""
        for kind in [kind for kind, seats in waiting.items() if seats and kind not in running]:
            seats, waiting[kind] = waiting[kind], []
            calls = [worker.call for _, worker in seats if worker.call is not None]
            if kind is Kind.OTHERS or not (running or any(waiting.values())):
                serve(tools, calls)
                return seats
            running[kind] = seats, self._lanes.submit(serve, tools, calls)
        wait([future for _, future in running.values()], return_when=FIRST_COMPLETED)
        over = [kind for kind, (_, future) in running.items() if future.done()]
        gone = [running.pop(kind) for kind in over]
        for _, future in gone:
            future.result()
        return [seat for seats, _ in gone for seat in seats]

    def close(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.work = None
            worker.go()
        self._workers.clear()
        self._lanes.shutdown()


def bound(work: Work, tools: Tools) -> Callable[[], Any]:
    """A piece of work with its tools."""
    return lambda: work(tools)
