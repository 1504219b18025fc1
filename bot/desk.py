"""The desk: one thread that answers questions in order and swaps the model between two answers.

Whoever wants an answer leaves the question here and gets a future; the queue is bounded, and a full one is said so.
The thread watches the registry: when the champion changes, it verifies and loads the new weights and drops the old
ones, without a restart. A version that fails its checks, or ends the process twice while it is new, gives way to the
version before it, and the reviewers are told. It knows nothing of Slack.
"""

import gc
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bot import base_model, confidence, pipeline, prompt, teaching
from bot.generation import Engine
from bot.pipeline import Model, Tools
from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import conversations, corrections, manifest, nights, registry, trust
from storage.database import Database
from storage.domain import WORKSPACE, Answer
from storage.errors import BusyError, IntegrityError, NightshiftError, UserError
from storage.settings import Settings

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
CANARIES_THAT_MUST_HOLD = 0.75
TRIAL_SECONDS, TRIAL_ANSWERS = 60.0, 3
"""A version has proved itself when it has served so long and answered so often."""
NOT_LOADED = (NightshiftError, OSError, ValueError, RuntimeError, MemoryError)
Job = tuple[Callable[[], Any], "Future[Any]"]


@dataclass(frozen=True)
class Asked:
    """A question as it arrives. `scopes` are the scopes whose documents and answers the asker may see."""

    text: str
    user: str
    channel: str
    thread: str = ""
    scopes: tuple[str, ...] = (WORKSPACE,)
    route: str = "auto"


class Desk:
    """Answers one question at a time. `start` before use, `close` after."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Keep the settings; nothing is loaded before `start`."""
        self._database = database
        self._settings = settings
        self._jobs: queue.Queue[Job] = queue.Queue(maxsize=settings.integer("QUEUE_LIMIT"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._tools: Tools | None = None
        self._index: VectorIndex | None = None
        self._revision = -1
        self._refused = ""
        self._trial_began, self._answered, self._proved = time.monotonic(), 0, False

    def start(self) -> str:
        """Load the models and begin to answer; returns the version that serves."""
        self._tools, self._index = open_tools(self._database, self._settings, serving=True)
        champion = registry.champion(self._database)
        self._refused = "" if self.version == champion else champion
        self._trial_began = time.monotonic()
        self._tools.embedder.encode(["The first call loads the embedder, so that the first asker need not wait."])
        self._thread.start()
        return self.version

    @property
    def version(self) -> str:
        """The version that serves now."""
        return self._tools.model.version if self._tools else ""

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return self._jobs.qsize()

    def submit(self, asked: Asked) -> "Future[Answer]":
        """Queue a question. Raises UserError for an empty or oversized one, BusyError when the queue is full."""
        check(asked.text, self._settings.integer("MAX_QUESTION_CHARS"))
        return self._enqueue(lambda: answer_and_store(self._database, self._ready(), asked))

    def teach(self, **proposal: Any) -> "Future[teaching.Proposal]":
        """Queue a correction (arguments of `teaching.propose`); the future raises UserError when it is refused."""
        return self._enqueue(lambda: teaching.propose(self._database, self._ready().embedder, **proposal))

    def close(self) -> None:
        """Finish the answer in hand and stop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=60)
        self._refuse_the_rest()
        if self._tools is not None and not self._proved:
            trust.end_trial(self._database, self.version, proved=False)
        if self._index is not None:
            self._index.close()

    def _ready(self) -> Tools:
        if self._tools is None:
            raise UserError("The bot is still starting; ask again in a moment.")
        return self._tools

    def _enqueue(self, work: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            self._jobs.put_nowait((work, future))
        except queue.Full:
            raise BusyError(f"{self.waiting} questions are waiting already; please ask again in a minute.") from None
        return future

    def _work(self) -> None:
        while not self._stop.is_set():
            self._between_answers()
            try:
                work, future = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._drain_index()
                continue
            self._run(work, future)
            self._answered += 1
        self._database.close()

    def _run(self, work: Callable[[], Any], future: "Future[Any]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                _, future = self._jobs.get_nowait()
            except queue.Empty:
                return
            if future.set_running_or_notify_cancel():
                future.set_exception(BusyError("The bot is stopping; please ask again in a minute."))

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
        """Swap to the registry's champion if it changed; a version that fails its checks never serves."""
        revision = corrections.taught_revision(self._database)
        if revision == self._revision:
            return
        champion = registry.champion(self._database)
        if champion not in (self.version, self._refused):
            self._swap(champion)
        self._revision = revision

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
        self._tools, self._refused = replace(self._ready(), model=model), ""
        self._trial_began, self._answered, self._proved = time.monotonic(), 0, False
        gc.collect()  # reference cycles hold the old weights; without this two models stay in memory for a while

    def _judge_the_trial(self) -> None:
        served = time.monotonic() - self._trial_began
        if not self._proved and self._answered >= TRIAL_ANSWERS and served >= TRIAL_SECONDS:
            trust.end_trial(self._database, self.version, proved=True)
            self._proved = True


def check(text: str, limit: int) -> None:
    """Raise UserError for a question that is empty or longer than `limit` characters."""
    if not text.strip():
        raise UserError("The question is empty; please write one.")
    if len(text) > limit:
        raise UserError(f"The question has {len(text):,} characters; please ask in at most {limit:,}.")


def answer_and_store(database: Database, tools: Tools, asked: Asked) -> Answer:
    """Store the question, answer it, store the answer; returns it with its id."""
    place = {"user": asked.user, "channel": asked.channel, "thread": asked.thread}
    question = conversations.ask(database, asked.text.strip(), **place)
    reply = pipeline.answer(tools, question, scopes=asked.scopes, route=asked.route)
    return replace(reply, id=conversations.answer(database, reply))


def open_tools(database: Database, settings: Settings, *, serving: bool) -> tuple[Tools, VectorIndex]:
    """Everything an answer stands on, with the champion's weights; registers the base model at the first start.

    With `serving` this is the bot: a new champion is on trial, and gives way when it cannot be loaded. A single
    command is not: its end must not count as a crash.
    """
    ensure_base(database, settings)
    embedder = Embedder(settings.text("EMBEDDER"))
    index = VectorIndex(database.home, database)
    index.try_open(background=serving)
    tools = Tools(
        embedder=embedder,
        taught=TaughtQuestions(database, embedder),
        searcher=Retriever(database, embedder, index),
        model=best_version(database, settings) if serving else load_champion(database, settings),
        max_tokens=settings.integer("MAX_ANSWER_TOKENS"),
    )
    return tools, index


def ensure_base(database: Database, settings: Settings) -> str:
    """Register the base model as the first version if there is none; returns the champion's name."""
    found = registry.alias(database, "champion")
    if found is not None:
        return found
    folder = base_model.folder(database.home, settings.text("BASE_MODEL"))
    sealed = folder / manifest.NAME
    return registry.ensure_base(
        database,
        path=str(folder),
        size=manifest.size(folder),
        manifest_sha256=manifest.sha256(sealed) if sealed.is_file() else "",
        confidence=confidence.shipped(),
    )


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
    return load_version(database, settings, name)


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


def load_version(database: Database, settings: Settings, name: str) -> Model:
    """A version, verified and in memory. Raises IntegrityError when a hash or a canary answer does not hold."""
    version = registry.get(database, name)
    folder = Path(version.path)
    told = manifest.verify(folder, version.manifest_sha256) if version.manifest_sha256 else {}
    engine = load_engine(folder, settings.text("SERVING_FORM"))
    check_canaries(engine, told.get("canaries", []), settings.integer("MAX_ANSWER_TOKENS"))
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
