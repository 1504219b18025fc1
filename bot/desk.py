"""The desk: one thread that answers questions, several at once where many wait, and swaps the model between answers.

Whoever wants an answer leaves the question here and gets a future; the line is bounded and fair, and a full one is
said so. While nobody asks, what the model has memorised is checked beforehand.
The thread watches the registry: when the champion changes, it verifies and loads the new weights and drops the old
ones, without a restart. A version that fails its checks, or ends the process twice while it is new, gives way to the
version before it, and the reviewers are told. It knows nothing of Slack.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bot import asking, base_model, confidence, memory, modelserver, prompt, remote, teaching
from bot.asking import Asked, answer_and_store, check
from bot.generation import Engine, ManyAtOnce, Request
from bot.line import Line, Waiting
from bot.pipeline import Model, Tools
from bot.same_question import Comparer
from bot.together import Table
from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import corrections, manifest, nights, registry, trust
from storage.database import Database
from storage.domain import Answer, Status
from storage.errors import IntegrityError, NightshiftError, UserError
from storage.grounds import Staleness
from storage.settings import Settings

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
CANARIES_THAT_MUST_HOLD = 0.75
TRIAL_SECONDS, TRIAL_ANSWERS = 60.0, 3
"""A version has proved itself when it has served so long and answered so often."""
TIDY_SECONDS = 120.0
NOT_LOADED = (NightshiftError, OSError, ValueError, RuntimeError, MemoryError)
REHEARSED = 4
"""Memories that are checked in one go while nobody asks; a question waits for no more than that."""
Job = Asked | Callable[[], Any]
"""A question, or other work that needs the models."""


class Desk:
    """Answers questions. `start` before use, `close` after."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Keep the settings; nothing is loaded before `start`."""
        self._database = database
        self._settings = settings
        self._line: Line[Job] = Line(settings.integer("QUEUE_LIMIT"), settings.number("ANSWER_DEADLINE"))
        self._table = Table(database.close)
        self._contacts = settings.names("COMPANY_CONTACTS")
        self._unrehearsed: list[Request] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._tools: Tools | None = None
        self._index: VectorIndex | None = None
        self._revision = -1
        self._refused = ""
        self._tidied = time.monotonic()
        self._trial_began, self._answered, self._proved = time.monotonic(), 0, False

    def start(self) -> str:
        """Load the models and begin to answer; returns the version that serves."""
        self._tools, self._index = open_tools(self._database, self._settings, serving=True)
        champion = registry.champion(self._database)
        self._refused = "" if self.version == champion else champion
        self._trial_began = time.monotonic()
        self._tools.embedder.encode(["The first call loads the embedder, so that the first asker need not wait."])
        memory.give_back()
        self._thread.start()
        return self.version

    @property
    def version(self) -> str:
        """The version that serves now."""
        return self._tools.model.version if self._tools else ""

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return len(self._line)

    def place(self, ticket: "Future[Any]") -> int:
        """How many are answered before what `submit` gave out, itself counted; 0 when it does not wait any more."""
        return self._line.place(ticket)

    def submit(self, asked: Asked) -> "Future[Answer]":
        """Queue a question; cancelling the future ends it, even while the model writes.

        Raises UserError for an empty or oversized question, BusyError when the line is full. The future raises
        BusyError when the question waited beyond the deadline.
        """
        check(asked.text, self._settings.integer("MAX_QUESTION_CHARS"))
        return self._line.join(asked, asked.user)

    def teach(self, **proposal: Any) -> "Future[teaching.Proposal]":
        """Queue a correction (arguments of `teaching.propose`); the future raises UserError when it is refused."""
        given = {**teaching.rules_of(self._settings), **proposal}
        work = partial(self._taught, given)
        return self._line.join(work, str(proposal.get("author", "")), alone=True)

    def close(self) -> None:
        """Finish the answer in hand and the corrections that wait, and stop; who waits for an answer is told so."""
        self._line.close()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=60)
        if self._tools is not None and not self._proved:
            trust.end_trial(self._database, self.version, proved=False)
        if self._index is not None:
            self._index.close()

    def _ready(self) -> Tools:
        if self._tools is None:
            raise UserError("The bot is still starting; ask again in a moment.")
        return self._tools

    def _taught(self, given: dict[str, Any]) -> teaching.Proposal:
        return teaching.propose(self._database, self._ready().embedder, **given)

    def _work(self) -> None:
        while not self._stop.is_set() or len(self._line):
            self._between_answers()
            waiting = self._line.take(self._settings.integer("ANSWERS_TOGETHER"), IDLE_SECONDS)
            if not waiting:
                self._drain_index()
                self._rehearse()
                self._tidy()
                continue
            self._answer(waiting)
            self._answered += len(waiting)
        self._table.close()
        self._database.close()

    def _answer(self, waiting: Sequence[Waiting[Job]]) -> None:
        """Do what was taken from the line, questions together."""
        questions = [(one.work, one.ticket) for one in waiting if isinstance(one.work, Asked)]
        if len(questions) < 2:
            for one in waiting:
                self._run(one)
            return
        several = [(asked, partial(getattr, ticket, "unwanted")) for asked, ticket in questions]

        def done(at: int, outcome: Answer | BaseException) -> None:
            settle(questions[at][1], outcome)

        try:
            asking.answer_together(self._database, self._ready(), self._table, several, self._contacts, done)
        except BaseException as error:
            for _, ticket in questions:
                settle(ticket, error)

    def _run(self, one: Waiting[Job]) -> None:
        """Do one thing."""
        work = one.work
        try:
            if isinstance(work, Asked):
                gone = partial(getattr, one.ticket, "unwanted")
                settle(one.ticket, answer_and_store(self._database, self._ready(), work, self._contacts, gone))
            else:
                settle(one.ticket, work())
        except BaseException as error:
            settle(one.ticket, error)

    def _rehearse(self) -> None:
        """Check a few memories, so that whoever asks for them need not wait for it; a server keeps none for us."""
        try:
            tools = self._ready()
            if isinstance(tools.model.engine, remote.ProvenEngine):
                return
            if self._unrehearsed is None:
                self._unrehearsed = memorised(self._database, tools)
            now, self._unrehearsed = self._unrehearsed[:REHEARSED], self._unrehearsed[REHEARSED:]
            if now and isinstance(tools.model.engine, ManyAtOnce):
                tools.model.engine.many(now)
        except Exception:  # whoever asks meets it again, and is told
            log.exception("memories of %s could not be checked beforehand", self.version)

    def _tidy(self) -> None:
        """Hand free pages back now and then; the blocks of many answers leave holes that would only grow."""
        if time.monotonic() - self._tidied >= TIDY_SECONDS:
            memory.give_back()
            self._tidied = time.monotonic()

    def _drain_index(self) -> None:
        try:
            if self._index is not None:
                self._index.drain()
        except Exception:
            log.exception("the index could not be updated; it is tried again")

    def _between_answers(self) -> None:
        try:
            self._judge_the_trial()
            self._follow_the_champion()
        except Exception:  # a full disk, say: whoever asks must still be answered
            log.exception("the registry could not be followed; %s goes on", self.version)

    def _follow_the_champion(self) -> None:
        """Swap to the registry's champion if it changed; a version that fails its checks never serves.

        The confidence of the one that serves may have been fitted anew.
        """
        revision = corrections.taught_revision(self._database)
        if revision == self._revision:
            return
        champion = registry.champion(self._database)
        if champion == self.version:
            self._recalibrate()
        elif champion != self._refused:
            self._swap(champion)
        self._revision = revision

    def _recalibrate(self) -> None:
        tools = self._ready()
        fitted = confidence.from_json(registry.get(self._database, self.version).confidence)
        self._tools = replace(tools, model=replace(tools.model, confidence=fitted))

    def _swap(self, champion: str) -> None:
        started = time.monotonic()
        try:
            model = load_on_trial(self._database, self._settings, champion)
        except NOT_LOADED as error:
            log.exception("model %s is not served; %s goes on", champion, self.version)
            self._refused = champion
            step_back(self._database, champion, error, serving=self.version)
            return
        if not self._proved:
            trust.end_trial(self._database, self.version, proved=False)
        log.info("serving %s after %.1f s, before that %s", champion, time.monotonic() - started, self.version)
        self._tools, self._refused, self._unrehearsed = replace(self._ready(), model=model), "", None
        self._trial_began, self._answered, self._proved = time.monotonic(), 0, False
        memory.give_back()  # without this two models stay in memory for a while

    def _judge_the_trial(self) -> None:
        served = time.monotonic() - self._trial_began
        if not self._proved and self._answered >= TRIAL_ANSWERS and served >= TRIAL_SECONDS:
            trust.end_trial(self._database, self.version, proved=True)
            self._proved = True


def settle(ticket: "Future[Any]", outcome: Any) -> None:
    """Give a ticket its answer, or the exception that there is instead, once."""
    if ticket.done():
        return
    if isinstance(outcome, BaseException):
        ticket.set_exception(outcome)
    else:
        ticket.set_result(outcome)


def memorised(database: Database, tools: Tools) -> list[Request]:
    """What the pipeline asks of the model for each answer that it has memorised."""
    learnt = {i for i, memory in tools.model.memories.items() if memory.memorised}
    rows = corrections.in_status(database, Status.APPROVED)
    return [Request(prompt.messages(r.question), tools.max_tokens, r.answer) for r in rows if r.id in learnt]


def open_tools(database: Database, settings: Settings, *, serving: bool) -> tuple[Tools, VectorIndex]:
    """Everything an answer stands on, with the champion's weights; registers the base model at the first start.

    With `serving` this is the bot: a new champion is on trial, and gives way when it cannot be loaded. A single
    command is not: its end must not count as a crash.
    """
    modelserver.serving(settings)  # an address that cannot be used ends the start, and not the champion
    ensure_base(database, settings)
    embedder = Embedder(settings.text("EMBEDDER"))
    index = VectorIndex(database.home, database)
    index.try_open(background=serving)
    if serving and index.died_searching:  # then it was not the model on trial that ended the bot
        trust.end_trial(database, registry.champion(database), proved=False)
    tools = Tools(
        embedder=embedder,
        taught=TaughtQuestions(database, embedder, Comparer(embedder)),
        searcher=Retriever(database, embedder, index),
        model=best_version(database, settings) if serving else load_champion(database, settings),
        max_tokens=settings.integer("MAX_ANSWER_TOKENS"),
        stale=Staleness(database),
    )
    return tools, index


def ensure_base(database: Database, settings: Settings) -> str:
    """Register the base model as the first version if there is none; returns the champion's name.

    Where it serves still, it is the one that the settings name; from a trained version the next night changes over.
    """
    found = registry.alias(database, "champion")
    if found not in (None, registry.BASE):
        return str(found)
    folder = base_model.folder(database.home, settings.text("BASE_MODEL"))
    champion = registry.ensure_base(database, **described(folder), confidence=confidence.shipped())
    follow_base(database, folder)
    return champion


def follow_base(database: Database, folder: Path) -> None:
    """Let the version `base` be the model in this folder, as when other settings name another one."""
    if registry.get(database, registry.BASE).path != str(folder):
        registry.rebase(database, **described(folder))


def described(folder: Path) -> dict[str, Any]:
    """What the registry keeps of a base model's folder."""
    sealed = folder / manifest.NAME
    digest = manifest.sha256(sealed) if sealed.is_file() else ""
    return {"path": str(folder), "size": manifest.size(folder), "manifest_sha256": digest}


def load_champion(database: Database, settings: Settings) -> Model:
    """The champion in memory, without any consequence if it does not load."""
    return load_version(database, settings, registry.champion(database))


def best_version(database: Database, settings: Settings) -> Model:
    """The champion in memory, or the nearest version before it that loads; the bot starts with it.

    Raises what loading raised when nothing else is left.
    """
    name = registry.champion(database)
    while True:
        try:
            return load_on_trial(database, settings, name)
        except NOT_LOADED as error:
            log.exception("model %s is not served", name)
            name = step_back(database, name, error)


def load_on_trial(database: Database, settings: Settings, name: str) -> Model:
    """A version in memory, with its trial begun. Raises IntegrityError when earlier trials ended in crashes."""
    crashes = trust.begin_trial(database, name)
    if crashes >= trust.CRASHES and name != registry.BASE:
        raise IntegrityError(f"The bot ended {crashes} times while it served {name}.")
    return load_version(database, settings, name, lambda text: nights.owe(database, "", "alert", {"text": text}))


def step_back(database: Database, name: str, error: Exception, serving: str = "") -> str:
    """Tell the reviewers that a version does not serve; returns the one to serve instead.

    A version that is not what was published is taken out for good. One that did not load for another reason, a full
    memory perhaps, stays the champion and gets another chance at the next start. Raises `error` when none is left.
    """
    for_good = isinstance(error, IntegrityError) and name != registry.BASE
    trust.end_trial(database, name, proved=False)
    with database.write():
        back = registry.retreat(database, name) if for_good else serving or earlier_than(database, name)
        if back is None:
            raise error
        hope = "" if for_good else " It is tried again at the next start."
        nights.owe(database, "", "alert", {"text": f"{name} is not served: {error} {back} serves.{hope}"})
    return back


def earlier_than(database: Database, name: str) -> str | None:
    """The version that may serve in place of one that does not load."""
    return registry.earlier(database, registry.get(database, name))


def load_version(
    database: Database, settings: Settings, name: str, tell: Callable[[str], None] = lambda _: None
) -> Model:
    """A version, verified and ready, here or on a model server; `tell` gets a sentence when that goes or comes.

    Raises IntegrityError when a hash or a canary answer does not hold.
    """
    version = registry.get(database, name)
    folder = Path(version.path)
    told = manifest.verify(folder, version.manifest_sha256) if version.manifest_sha256 else {}

    def prove(engine: Engine) -> None:
        check_canaries(engine, told.get("canaries", []), settings.integer("MAX_ANSWER_TOKENS"))

    server = modelserver.serving(settings)
    if server is not None:
        engine: Engine = remote.greeted(server, name, prove, tell)
    else:
        with memory.weights_apart():
            engine = load_engine(folder, settings.text("SERVING_FORM"))
        prove(engine)
    return Model(name, engine, confidence.from_json(version.confidence), registry.memories(database, name))


def load_engine(folder: Path, form: str) -> Engine:
    """The local engine of a merged folder."""
    from bot.generator import LocalGenerator

    return LocalGenerator(folder, form=form)


def check_canaries(engine: Engine, canaries: list[dict[str, str]], max_tokens: int) -> None:
    """Raise IntegrityError unless the model still gives its canary answers, noted at publication."""
    held = [
        engine.confirm(prompt.messages(c["question"]), c["answer"], max_tokens=max_tokens).confirmed == 1.0
        for c in canaries
    ]
    if held and sum(held) < CANARIES_THAT_MUST_HOLD * len(held):
        raise IntegrityError(f"Only {sum(held)} of {len(held)} canary answers came back from the loaded weights.")
