"""More wordings of a taught question from a stronger model, where a model server is configured.

What it gave is cached by model and question under the home folder, so that a rerun trains on the same words and a
server that is away costs nothing known; without it the rule-made wordings stand alone, and the log says so. It knows
nothing of embeddings: that no wording is nearer to another fact is seen to by `dataset`.
"""

import hashlib
import json
import logging
import re
from pathlib import Path

from bot import modelserver
from bot.confidence import codes, negated
from bot.modelserver import ModelServer
from bot.prompt import Message
from learning import cached
from storage.errors import EngineAwayError, EngineError
from storage.settings import Settings
from storage.texts import plain

log = logging.getLogger(__name__)

MOST = 6
"""Wordings of one question that are taken."""
ASKED_FOR = 10
MOST_TOKENS = 400
MOST_CHARS = 160
PREFIX = "wordings-"
TASK = "You rewrite questions. You never answer them, and you add no facts, names or numbers."
FRAME = (
    "Write {count} different ways in which colleagues would ask the following in a chat: some short, some casual, some "
    "with other words, all with the same meaning. Keep every name, number and code. One on each line, nothing else.\n\n"
    "{question}"
)
MARKS = re.compile(r"^\s*(?:[-*\u2022]|\(?\d{1,2}[.):])\s+")
NO_QUESTION = re.compile(r"[@<>]|https?:|www\.|:\s*$|^(?:here are|sure|certainly)\b", re.IGNORECASE)


class Rewording:
    """Asks a stronger model once for each question. Without a model it gives nothing."""

    def __init__(self, server: ModelServer | None, model: str, cache: Path) -> None:
        """`cache` is the folder of what was given before."""
        self._server, self._model, self._cache = server, model, cache
        self._used = set[str]()

    def of(self, question: str) -> tuple[str, ...]:
        """At most MOST other wordings of a question, none with another number, code or negation."""
        if not self._model:
            return ()
        stored = self._cache / f"{PREFIX}{self.key(question)}.json"
        self._used.add(stored.name)
        found = known(stored)
        if found is None:
            found = self._ask(question)
            if found is not None:
                cached.write(stored, found)
        return tuple(found or ())[:MOST]

    def forget_the_rest(self) -> None:
        """Delete what was given for questions that nobody asked for since this object was made.

        Without a model nobody asks; one that is set again finds what it gave.
        """
        if not self._model:
            return
        for stored in self._cache.glob(f"{PREFIX}*.json"):
            if stored.name not in self._used:
                stored.unlink(missing_ok=True)

    def key(self, question: str) -> str:
        """Names the model, what it is told, and the question."""
        return hashlib.sha256(json.dumps([self._model, TASK, FRAME, question]).encode()).hexdigest()[:24]

    def _ask(self, question: str) -> list[str] | None:
        """Fresh wordings; None, with a line in the log, when there are none to be had. An absent server is left be."""
        if self._server is None:
            return None
        try:
            reply = self._server.chat(self._model, messages(question), max_tokens=MOST_TOKENS)
        except EngineError as error:
            log.warning("only rule-made wordings%s: %s", "" if isinstance(error, EngineAwayError) else " here", error)
            if isinstance(error, EngineAwayError):
                self._server = None
            return None
        return wordings_in(reply.text if reply.stopped else reply.text.rpartition("\n")[0], question)


def configured(settings: Settings, home: Path) -> Rewording:
    """The stronger model of the settings (ENGINE_MODEL on ENGINE), or one that gives nothing."""
    server = modelserver.configured(settings)
    return Rewording(server, settings.text("ENGINE_MODEL") if server else "", home / "cache")


def messages(question: str) -> list[Message]:
    """The chat that asks for wordings."""
    asked = FRAME.format(count=ASKED_FOR, question=" ".join(question.split()))
    return [{"role": "system", "content": TASK}, {"role": "user", "content": asked}]


def wordings_in(text: str, question: str) -> list[str]:
    """The lines of a reply that can be wordings of a question, each once, without list marks and quotation marks."""
    lines = [" ".join(MARKS.sub("", line).split()).strip("\"'\u201c\u201d\u201e`*") for line in text.splitlines()]
    kept: dict[str, str] = {}
    for line in filter(lambda line: fits(line, question), lines):
        kept.setdefault(plain(line), line)
    kept.pop(plain(question), None)
    return list(kept.values())[:MOST]


def fits(line: str, question: str) -> bool:
    """Whether a line keeps what a question turns on: its numbers and codes, and whether it negates."""
    return (
        len(line) <= MOST_CHARS
        and len(plain(line)) > 1
        and not NO_QUESTION.search(line)
        and codes(line) == codes(question)
        and negated(line) == negated(question)
    )


def known(stored: Path) -> list[str] | None:
    """What was given before, or None; a file that cannot be read counts as none."""
    found = cached.read(stored)
    return found if isinstance(found, list) and all(isinstance(w, str) for w in found) else None
