"""A question on its way in and its answer on the way out: checked, stored, answered, redacted, stored.

One at a time, or several whose model calls share passes. It knows nothing of lines, threads of Slack, or weights.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bot import pipeline, together
from bot.generation import Watch
from bot.pipeline import Tools
from bot.together import Table
from storage import conversations, evidence, private
from storage.database import Database
from storage.domain import WORKSPACE, Answer, Question, Style
from storage.errors import UserError

TELL_SECONDS = 0.25
"""Least time between two looks at a text that is being written: each is redacted as a whole."""


@dataclass(frozen=True)
class Asked:
    """A question as it arrives. `scopes` are the scopes whose documents and answers the asker may see.

    `partial` gets the text of an answer while the model writes it, redacted, from another thread. What is written may
    still be held back: only the answer itself counts. Answers that are not written word by word come whole.
    """

    text: str
    user: str
    channel: str
    thread: str = ""
    scopes: tuple[str, ...] = (WORKSPACE,)
    route: str = "auto"
    meant: int | None = None
    """The correction whose question the asker said was meant."""
    refused: int | None = None
    """The correction whose question the asker said was not meant."""
    repeats: int | None = None
    """The stored question that is asked anew, with a choice or by another route."""
    partial: Callable[[str], None] | None = field(default=None, compare=False, repr=False)


def check(text: str, limit: int) -> None:
    """Raise UserError for a question that is empty or longer than `limit` characters."""
    if not text.strip():
        raise UserError("The question is empty; please write one.")
    if len(text) > limit:
        raise UserError(f"The question has {len(text):,} characters; please ask in at most {limit:,}.")


def answer_and_store(
    database: Database,
    tools: Tools,
    asked: Asked,
    contacts: Collection[str] = (),
    unwanted: Callable[[], bool] = lambda: False,
) -> Answer:
    """Store the question, answer it, store the answer; returns it with its id.

    What is stored of the question has no secrets and no personal data; `contacts` are the company's own. What goes
    out has no secrets, and of personal data in the model's own words only what a page shows to everybody.
    Raises Unwanted when `unwanted` says so while the model writes.
    """
    question = noted(database, asked, contacts)
    watched = together.alone(tools, watch(database, asked, contacts, unwanted))
    return stored(database, answered(database, watched, question=question, asked=asked, contacts=contacts))


def answer_together(
    database: Database,
    tools: Tools,
    table: Table,
    several: Sequence[tuple[Asked, Callable[[], bool]]],
    contacts: Collection[str],
    done: Callable[[int, "Answer | BaseException"], None],
) -> None:
    """Like `answer_and_store` for several questions, each with its `unwanted`; `done` gets each outcome."""
    with database.write():
        questions = [noted(database, asked, contacts) for asked, _ in several]
    works = [
        partial(answered, database, question=question, asked=asked, contacts=contacts)
        for question, (asked, _) in zip(questions, several, strict=True)
    ]
    watches = [watch(database, asked, contacts, unwanted) for asked, unwanted in several]
    table.run(tools, works, watches, partial(store_all, database, done=done))


def store_all(
    database: Database, ended: Sequence[tuple[int, Any]], done: Callable[[int, "Answer | BaseException"], None]
) -> None:
    """Store the answers that ended together in one transaction; a failure to store is each one's failure."""
    try:
        with database.write():
            outcomes = [(at, stored(database, one) if isinstance(one, Answer) else one) for at, one in ended]
    except Exception as error:
        outcomes = [(at, error if isinstance(one, Answer) else one) for at, one in ended]
    for at, outcome in outcomes:
        done(at, outcome)


def noted(database: Database, asked: Asked, contacts: Collection[str]) -> Question:
    """Store a question; returns it in the asker's own words."""
    text = asked.text.strip()
    place = {"user": asked.user, "channel": asked.channel, "thread": asked.thread}
    kept = conversations.ask(database, private.kept(text, contacts), **place, repeats=asked.repeats)
    return replace(kept, text=text)


def answered(
    database: Database, tools: Tools, *, question: Question, asked: Asked, contacts: Collection[str]
) -> Answer:
    """The answer as it may go out, not stored yet."""
    choice = {"meant": asked.meant, "refused": asked.refused}
    reply = pipeline.answer(tools, question, scopes=asked.scopes, route=asked.route, **choice)
    said = private.redact_secrets(reply.text)
    return replace(reply, text=evidence.masked(database, said, contacts) if reply.style is Style.GENERATED else said)


def stored(database: Database, reply: Answer) -> Answer:
    """The answer with its id."""
    return replace(reply, id=conversations.answer(database, reply))


def watch(database: Database, asked: Asked, contacts: Collection[str], unwanted: Callable[[], bool]) -> Watch:
    """What looks at a text while it is written: it ends it when nobody waits, and shows it redacted to who asked."""
    last = [time.monotonic()]

    def look(text: str) -> bool:
        if asked.partial is not None and text and time.monotonic() - last[0] >= TELL_SECONDS:
            asked.partial(evidence.masked(database, private.redact_secrets(text), contacts))
            last[0] = time.monotonic()
        return not unwanted()

    return look
