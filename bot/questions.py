"""Messages that become questions, and questions that become answers in their thread.

A message is for the bot when it mentions it, when it stands in a direct message, or when it goes on in a thread that
the bot takes part in. In a group message the bot also hears a question that names nobody, and speaks up only if it
knows. Otherwise it is silent: people talk among themselves. It knows nothing of how an answer is found.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from bot import answers, channels, delivery, safety, threads
from bot.answers import Target
from bot.asking import Asked
from bot.delivery import UNREACHABLE, Parts, Place, guarded
from bot.growing import Growing
from storage import asked as asked_log
from storage import channels as channel_log
from storage import corrections, handoffs, private
from storage.asked import InHand
from storage.database import Database
from storage.domain import WORKSPACE, Answer, Route, Status
from storage.errors import UserError

log = logging.getLogger(__name__)

Body = dict[str, Any]

SPOKEN = (None, "file_share", "thread_broadcast")
"""The subtypes of messages that a person wrote as such; all others are housekeeping."""
STAMP = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")
CALLS_MANY = re.compile(r"<!(?:here|channel|everyone|subteam)")
PRIVATE_KINDS = ("group", "mpim")
"""How Slack calls private channels and group messages in an event."""
NOTHING_ASKED = "Ask me something, for example: how many days of leave do I have?"
WELCOME = f"You are welcome. {NOTHING_ASKED}"
STATUS_SECONDS = 90.0
"""Slack drops a status after two minutes, so it is set again before."""
LOADING = ("Looking for what I was taught…", "Reading the pages…", "Making sure of the answer…")
THINKING = "is thinking..."
COUNT_SECONDS = 5.0
INTERRUPTED = "I was interrupted; please ask again."
LATEST = timedelta(hours=1)
"""How long after a question its asker is still told that the bot was interrupted."""
MOST_REMEMBERED = 1000


class Meant(Enum):
    """Whether a message is for the bot."""

    CALLED = "the bot was named, or nobody else can be meant"
    FOLLOW_UP = "a question in a thread that the bot takes part in"
    OVERHEARD = "a question to everybody in a group message"
    NOT_US = "people talk among themselves"


@dataclass(frozen=True)
class Said:
    """A message that a person wrote. `edited` is the time of its edit; `shared` with another organisation."""

    user: str
    channel: str
    kind: str
    ts: str
    thread: str
    text: str
    edited: str = ""
    mention: bool = False
    shared: bool = False

    @property
    def place(self) -> Place:
        """Where the answer belongs: in the thread, or in a new one under the message."""
        return Place(self.user, self.channel, self.thread or self.ts, public=True)

    @property
    def aside(self) -> Place:
        """Where only its author is told something: Slack shows nothing private in a thread that is yet to begin."""
        return Place(self.user, self.channel, self.thread)

    @property
    def in_hand(self) -> InHand:
        """The question as one that the bot takes on."""
        return InHand(self.channel, self.thread or self.ts, self.ts, self.user)

    @property
    def target(self) -> Target:
        """The same, for an answer."""
        return Target(self.channel, self.thread or self.ts, self.user)


@dataclass(frozen=True)
class Completed:
    """A question as it goes to the desk; `added` is what a follow-up said itself, None for a question of its own."""

    text: str
    added: frozenset[str] | None = None


async def hear(parts: Parts, body: Body, me: str) -> None:
    """Take up what a person said; who speaks to us hears of it whatever fails.

    A mention also arrives as a plain message. That one fails in silence, so that a failure is told once.
    """
    event = body.get("event") or {}
    if gone := deleted(event):
        parts.deleted.append(gone)
        forget(parts, *gone)
        return
    said = said_in(body, me)
    if said is None:
        return
    work = take_up(parts, body, said, me)
    await (guarded(parts, said.place, work) if said.mention or said.kind == "im" else work)


async def take_up(parts: Parts, body: Body, said: Said, me: str) -> None:
    """Decide whether a message is for us, once, and answer it."""
    if said.kind in PRIVATE_KINDS:
        await parts.stored(channel_log.note_private, said.channel)
    await parts.stored(channel_log.note_shared, said.channel, shared=said.shared)
    meant = await meaning(parts, said, me)
    if meant is Meant.NOT_US:
        return
    quiet = meant is Meant.OVERHEARD
    if await parts.stored(asked_log.take, None if quiet else said.in_hand, *keys_of(body, said)):
        forget(parts, said.channel, said.ts)
        if (said.channel, said.ts) in parts.deleted:
            await parts.stored(asked_log.strike, said.in_hand)
            return
        work = reply(parts, said, meant, safety.from_slack(said.text, me))
        heard = overheard(work) if quiet else struck_after(parts, said.in_hand, guarded(parts, said.place, work))
        task = parts.begin(heard)
        task.set_name(thread_name(said))
        parts.answering[said.channel, said.ts] = task
        task.add_done_callback(lambda done: answered(parts, said, done))


async def struck_after(parts: Parts, one: InHand, work: Awaitable[None]) -> None:
    """Do the work on a question and strike it; only a bot that is stopped over it leaves it in hand."""
    ended = False
    try:
        await work
        ended = True
    finally:
        if ended or (one.channel, one.ts) in parts.deleted:
            await parts.stored(asked_log.strike, one)


async def look_back(parts: Parts) -> None:
    """Begin to tell those whose questions an earlier bot had in hand when it was killed."""
    if left := await parts.stored(asked_log.left):
        parts.begin(tell_interrupted(parts, left))


async def tell_interrupted(parts: Parts, left: tuple[InHand, ...]) -> None:
    """Say once to each asker that they have to ask again, unless that is long ago."""
    since = (datetime.now(UTC) - LATEST).isoformat()
    for one in left:
        await parts.stored(asked_log.strike, one)
        if one.taken_at >= since:
            place = Place(one.user, one.channel, one.thread, public=not one.is_private)
            await delivery.tell(parts, place, INTERRUPTED)


def deleted(event: Body) -> tuple[str, str] | None:
    """The channel and time stamp of a message that is gone; one with replies leaves a tombstone."""
    told = event.get("message")
    if event.get("subtype") == "message_deleted":
        return str(event.get("channel")), str(event.get("deleted_ts"))
    if event.get("subtype") == "message_changed" and isinstance(told, dict) and told.get("subtype") == "tombstone":
        return str(event.get("channel")), str(told.get("ts"))
    return None


def said_in(body: Body, me: str) -> Said | None:
    """What a person said; None for bots, ourselves, housekeeping and edits that left the text alone."""
    event = body.get("event") or {}
    told, edited = event, ""
    if event.get("subtype") == "message_changed":
        told, before = event.get("message") or {}, event.get("previous_message") or {}
        if told.get("text") == before.get("text"):
            return None
        edited = str((told.get("edited") or {}).get("ts") or event.get("ts") or "")
    elif event.get("edited"):
        edited = str(event["edited"].get("ts") or "")
    user, ts, channel, text = told.get("user"), told.get("ts"), event.get("channel"), told.get("text") or ""
    complete = all(isinstance(part, str) for part in (user, ts, channel, text))
    if told.get("subtype") not in SPOKEN or told.get("bot_id") or not complete or user == me:
        return None
    if not safety.is_person(str(user)) or not STAMP.fullmatch(str(ts)):
        return None
    return Said(
        user=str(user),
        channel=str(channel),
        kind=str(event.get("channel_type") or ""),
        ts=str(ts),
        thread=str(told.get("thread_ts") or ""),
        text=text,
        edited=edited,
        mention=event.get("type") == "app_mention",
        shared=bool(body.get("is_ext_shared_channel")),
    )


# --- for whom a message is ---


async def meaning(parts: Parts, said: Said, me: str) -> Meant:
    """For whom a message is."""
    named = safety.mentions(said.text)
    if said.mention or me in named:
        parts.talks.pop((said.channel, said.thread), None)
        return Meant.CALLED
    if said.thread and (await parts.stored(handoffs.is_open, said.channel, said.thread)) is True:
        return Meant.NOT_US
    if said.kind == "im":
        return Meant.CALLED
    if said.edited and (await parts.stored(asked_log.message, said.channel, said.ts)) is not None:
        return Meant.CALLED
    meant = Meant.NOT_US if named else await unaddressed(parts, said)
    if meant is Meant.NOT_US and said.thread and not said.edited:
        overhear(parts, said)
    return meant


async def unaddressed(parts: Parts, said: Said) -> Meant:
    """For whom a message is that names nobody."""
    text = safety.from_slack(said.text)
    if CALLS_MANY.search(said.text) or not threads.is_question(text) or threads.speaks_to_people(text):
        return Meant.NOT_US
    if not said.thread:
        return Meant.OVERHEARD if said.kind == "mpim" else Meant.NOT_US
    if not await takes_part(parts, said):
        return Meant.NOT_US
    others_talk = parts.talks.get((said.channel, said.thread), set()) - {said.user}
    return Meant.NOT_US if others_talk and threads.remainder(text) is None else Meant.FOLLOW_UP


async def takes_part(parts: Parts, said: Said) -> bool:
    """Whether the bot takes part in a thread; an answer that is on its way there is awaited, for it decides that."""
    coming = {task for task in parts.tasks if task.get_name() == thread_name(said)}
    if coming:
        await asyncio.wait(coming)
    return await parts.stored(asked_log.takes_part, said.channel, said.thread)


def thread_name(said: Said) -> str:
    """The name of the tasks that answer in a message's thread."""
    return f"{said.channel} {said.place.thread}"


def overhear(parts: Parts, said: Said) -> None:
    """Note who talks in a thread without the bot, until it is mentioned there; thanks are no talk."""
    if threads.is_courtesy(safety.from_slack(said.text)):
        return
    while len(parts.talks) >= MOST_REMEMBERED:
        del parts.talks[next(iter(parts.talks))]
    parts.talks.setdefault((said.channel, said.thread), set()).add(said.user)


def keys_of(body: Body, said: Said) -> tuple[str, ...]:
    """The delivery's own id, and the message itself: one mention arrives as two events."""
    team = body.get("team_id") or ""
    keys = [f"message:{team}:{said.channel}:{said.ts}:{said.edited}"]
    return (*keys, f"event:{body['event_id']}") if body.get("event_id") else tuple(keys)


def forget(parts: Parts, channel: str, ts: str) -> None:
    """Stop working on a question that was deleted or reworded before it was answered."""
    task = parts.answering.pop((channel, ts), None)
    if task is not None:
        task.cancel()


def answered(parts: Parts, said: Said, task: "asyncio.Task[None]") -> None:
    """Drop a finished question from the list of those in hand."""
    if parts.answering.get((said.channel, said.ts)) is task:
        del parts.answering[said.channel, said.ts]


async def overheard(work: Any) -> None:
    """Do something that nobody asked for: what goes wrong is logged and not told."""
    try:
        await work
    except UserError as error:
        log.info("a question that was overheard is left alone: %s", error)


# --- the answer ---


async def reply(parts: Parts, said: Said, meant: Meant, question: str) -> None:
    """Answer a message in its thread."""
    if not await channels.allows(parts, said.aside, question, named=meant is Meant.CALLED):
        return
    if not question:
        raise UserError(NOTHING_ASKED)
    if threads.is_courtesy(question):
        await delivery.tell(parts, said.place, WELCOME)
        return
    kept = private.kept(question, parts.settings.names("COMPANY_CONTACTS"))
    earlier = await parts.stored(asked_log.message, said.channel, said.ts) if said.edited else None
    if earlier is not None and earlier.said == kept:
        return
    await parts.keep_pace(parts.questions, said.user)
    whole = await in_context(parts, said, question)
    growing = await watched(parts, said, meant, edited=earlier is not None)
    async with contextlib.nullcontext() if meant is Meant.OVERHEARD else thinking(parts, said, growing):
        answer = await look_up(parts, said, whole, growing)
    if meant is Meant.OVERHEARD and answer.route is Route.ABSTAINED:
        return
    parts.answering.pop((said.channel, said.ts), None)
    thread = said.place.thread
    await parts.stored(asked_log.note, said.channel, said.ts, thread=thread, said=kept, question_id=answer.question_id)
    understood = whole.text if whole.added is not None else ""
    await show(parts, said, answer, earlier.posts if earlier else (), understood, growing)


async def watched(parts: Parts, said: Said, meant: Meant, *, edited: bool) -> Growing | None:
    """What shows an answer while the model writes it, where a new one comes into the thread for everybody to see."""
    if edited or meant is Meant.OVERHEARD or await channels.discreet(parts, said.channel):
        return None
    return Growing(parts, said.channel, said.place.thread, said.user)


async def show(
    parts: Parts, said: Said, answer: Answer, old: tuple[str, ...], understood: str, growing: Growing | None = None
) -> None:
    """Bring an answer to where it belongs: in the thread, in the place of an older one, or only to the asker."""
    if await channels.discreet(parts, said.channel):
        share = await channels.shareable(parts, said.channel)
        await answers.whisper_answer(parts, answer, said.aside, share=share, understood=understood)
        await hush(parts, said)
    elif old:
        await answers.replace_answer(parts, answer, said.target, old, understood=understood)
        await hush(parts, said)
    else:
        await answers.send_answer(parts, answer, said.target, understood=understood, growing=growing)


async def in_context(parts: Parts, said: Said, question: str) -> Completed:
    """A follow-up completed from the last full question of its thread; anything else as it stands."""
    if said.thread in ("", said.ts):
        return Completed(question)
    before = parts.answering.get((said.channel, said.thread))
    if before is not None:
        await asyncio.wait({before})
    previous = await parts.stored(asked_log.context, said.channel, said.thread)
    found = threads.follow_up(question, previous)
    return Completed(question) if found is None else Completed(found.question, found.added)


async def look_up(parts: Parts, said: Said, whole: Completed, growing: Growing | None = None) -> Answer:
    """The answer to a question.

    A completed follow-up reads almost like the question before it, so "the same question?" would say yes to the wrong
    one. A taught answer is given for it only when the taught question speaks of what the follow-up added.
    """
    route = await channels.route_for(parts, said.channel)
    added = whole.added
    if added is not None and route == "auto" and not await parts.stored(taught_about, added):
        route = "documents"
    scopes = scopes_of(said.channel, said.kind)
    show_partly = None if growing is None else growing.take
    asked = Asked(whole.text, said.user, said.channel, said.place.thread, scopes, route, partial=show_partly)
    answer = await ask(parts, asked, said.place, said.aside)
    taught = answer.route in (Route.APPROVED, Route.MEMORISED)
    if taught and added is not None and not threads.covers(answer.taught_question, added):
        asked = replace(asked, route="documents", repeats=answer.question_id)
        answer = await ask(parts, asked, said.place, said.aside)
    return answer


def taught_about(database: Database, added: frozenset[str]) -> bool:
    """Whether some taught question speaks of what a follow-up added."""
    return any(threads.covers(row.question, added) for row in corrections.in_status(database, Status.APPROVED))


async def ask(parts: Parts, asked: Asked, place: Place, aside: Place | None = None) -> Answer:
    """Leave a question at the desk and wait for its answer; who has to wait long is told so. Raises UserError.

    They are told `aside` where `place` is for everybody. Whoever stops waiting ends the work on it too.
    """
    future = await asyncio.to_thread(parts.desk.submit, asked)
    number = parts.desk.place(future)
    if future.done() or number <= parts.settings.integer("QUEUE_NOTICE"):
        return await asyncio.wrap_future(future)
    parts.begin(delivery.tell(parts, aside or place, in_line(number)))
    counting = parts.begin(count_down(parts, future, place))
    try:
        return await asyncio.wrap_future(future)
    finally:
        counting.cancel()


async def count_down(parts: Parts, future: "Future[Answer]", place: Place) -> None:
    """Show somebody's place in the line in the status, as often as it changes and no more than Slack can take."""
    told = 0
    while place.thread and (number := parts.desk.place(future)) > 1:
        if number != told:
            await set_status(parts, place, f"is answering others first; you are number {number}")
        told = number
        await asyncio.sleep(COUNT_SECONDS)
    if told:
        await set_status(parts, place, THINKING, loading_messages=list(LOADING))


def in_line(number: int) -> str:
    """What somebody hears whose question has to wait."""
    return f"Many people are asking right now: you are number {number}. Your answer comes here by itself."


def scopes_of(channel: str, kind: str = "") -> tuple[str, ...]:
    """Whose documents may be used: everybody's, and in a channel the channel's own."""
    direct = kind in ("im", "directmessage") or channel.startswith("D") or not channel
    return (WORKSPACE,) if direct else (WORKSPACE, channel)


# --- the status ---


@contextlib.asynccontextmanager
async def thinking(parts: Parts, said: Said, growing: Growing | None = None) -> AsyncIterator[None]:
    """Show that an answer is coming, as long as it takes; taken back when none comes."""
    shown = asyncio.create_task(think(parts, said))
    try:
        yield
    except BaseException:
        shown.cancel()
        if growing is not None:
            await growing.withdrawn()
        await hush(parts, said)
        raise
    finally:
        shown.cancel()


async def think(parts: Parts, said: Said) -> None:
    """Keep the status up."""
    while await set_status(parts, said.place, THINKING, loading_messages=list(LOADING)):
        await asyncio.sleep(STATUS_SECONDS)


async def hush(parts: Parts, said: Said) -> None:
    """Take the status back where no message takes it away."""
    await set_status(parts, said.place, "")


async def set_status(parts: Parts, place: Place, status: str, **more: Any) -> bool:
    """Set the status of a thread; whether Slack took it."""
    try:
        await parts.client.assistant_threads_setStatus(
            channel_id=place.channel, thread_ts=place.thread, status=status, **more
        )
    except UNREACHABLE as error:
        log.debug("no status was shown: %s", error)
        return False
    return True
