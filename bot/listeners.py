"""What people do in Slack, turned into questions, votes and corrections.

Every listener acknowledges and returns; the work goes on in a task, and ends in an answer whatever happens.
Reviewing is in `reviews`. It knows nothing of how an answer is found.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext
from slack_sdk.errors import SlackApiError

from bot import blocks, delivery, home, safety
from bot.delivery import Parts, Place, guarded
from bot.desk import Asked
from storage import conversations, corrections
from storage.domain import WORKSPACE, Answer, Route
from storage.errors import UserError

log = logging.getLogger(__name__)

Body = dict[str, Any]

SPOKEN = (None, "file_share", "thread_broadcast")
"""The subtypes of messages that a person wrote as such; all others are housekeeping."""
PRIVATE_NAMES = ("privategroup", "mpdm-")
"""How clicks and commands name private channels and group messages, instead of their own name."""
NOTHING_ASKED = "Ask me something, for example: how many days of leave do I have?"


@dataclass(frozen=True)
class Said:
    """A message that a person wrote. `edited` is the time of its edit, empty when it is new."""

    user: str
    channel: str
    kind: str
    ts: str
    thread: str
    text: str
    edited: str = ""
    mention: bool = False

    @property
    def place(self) -> Place:
        """Where the answer belongs: in the thread, or in a new one under the message."""
        return Place(self.user, self.channel, self.thread or self.ts, public=True)


def register(app: AsyncApp, parts: Parts) -> None:
    """Register the listeners of questions, votes and the agent view."""

    async def on_message(body: Body, context: AsyncBoltContext) -> None:
        parts.begin(hear(parts, body, context.bot_user_id or ""))

    async def on_home(event: Body) -> None:
        parts.begin(opened(parts, event))

    async def on_ask(ack: AsyncAck, body: Body) -> None:
        question = safety.from_slack(str(body.get("text") or ""))
        await ack(text=f"Looking up: {safety.inline(question)}" if question else NOTHING_ASKED)
        if question:
            parts.begin(guarded(parts, command_place(body), ask_privately(parts, body, question)))

    for event in ("app_mention", "message"):
        app.event(event)(on_message)
    app.event("app_home_opened")(on_home)
    app.command("/ask")(on_ask)
    for action, work in (
        ("feedback", vote),
        ("teach", teach),
        ("not_mine", not_my_question),
        ("share", share),
    ):
        app.action(action)(clicked(parts, work))


def clicked(parts: Parts, work: Callable[[Parts, Body], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A listener that acknowledges a click and does the work afterwards."""

    async def listener(ack: AsyncAck, body: Body) -> None:
        await ack()
        parts.begin(guarded(parts, place_of(body), work(parts, body)))

    return listener


def register_rest(app: AsyncApp) -> None:
    """Acknowledge whatever nobody listens to: in Socket Mode it would come back otherwise."""

    async def ignore_event(body: Body) -> None:
        log.debug("no listener for event %s", body.get("event", {}).get("type"))

    async def ignore(ack: AsyncAck) -> None:
        await ack()

    anything = re.compile(".*", re.DOTALL)
    app.event(anything)(ignore_event)
    for kind in (app.action, app.view, app.command, app.shortcut, app.options):
        kind(anything)(ignore)


# --- questions ---


async def hear(parts: Parts, body: Body, me: str) -> None:
    """Decide whether a message is for us, once, and answer it."""
    event = body.get("event") or {}
    if event.get("subtype") == "message_deleted":
        forget(parts, str(event.get("channel")), str(event.get("deleted_ts")))
        return
    said = said_in(event, me)
    if said is None or not await addressed(parts, said, me):
        return
    if await parts.stored(conversations.first_time, *keys_of(body, said)):
        forget(parts, said.channel, said.ts)
        task = parts.begin(guarded(parts, said.place, reply(parts, said, me)))
        parts.answering[said.channel, said.ts] = task
        task.add_done_callback(lambda done: answered(parts, said, done))


def said_in(event: Body, me: str) -> Said | None:
    """What a person said; None for bots, ourselves, housekeeping and edits that left the text alone."""
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
    if told.get("subtype") not in SPOKEN or told.get("bot_id") or not complete or user in ("", me):
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
    )


async def addressed(parts: Parts, said: Said, me: str) -> bool:
    """Whether a message is for us: a mention, a direct message, or a follow-up in a thread where we answered.

    A follow-up that names somebody else is people talking among themselves.
    """
    named = safety.mentions(said.text)
    if said.mention or said.kind == "im" or me in named:
        return True
    return (
        bool(said.thread)
        and not named
        and await parts.stored(conversations.takes_part, said.channel, said.thread)
    )


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


async def reply(parts: Parts, said: Said, me: str) -> None:
    """Answer a message in its thread."""
    question = safety.from_slack(said.text, me)
    if not question:
        raise UserError(NOTHING_ASKED)
    if said.kind == "im":
        await think(parts, said)
    asked = Asked(question, said.user, said.channel, said.place.thread, scopes_of(said.channel, said.kind))
    await delivery.send_answer(parts, await ask(parts, asked), said.channel, said.place.thread)


async def ask(parts: Parts, asked: Asked) -> Answer:
    """Leave a question at the desk and wait for its answer. Raises UserError."""
    return await asyncio.wrap_future(await asyncio.to_thread(parts.desk.submit, asked))


async def think(parts: Parts, said: Said) -> None:
    """Show that an answer is coming, where Slack has a place for it."""
    try:
        await parts.client.assistant_threads_setStatus(
            channel_id=said.channel, thread_ts=said.place.thread, status="is thinking..."
        )
    except (SlackApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
        log.debug("no status was shown: %s", error)


def scopes_of(channel: str, kind: str = "") -> tuple[str, ...]:
    """Whose documents may be used: everybody's, and in a channel the channel's own."""
    direct = kind in ("im", "directmessage") or channel.startswith("D") or not channel
    return (WORKSPACE,) if direct else (WORKSPACE, channel)


async def ask_privately(parts: Parts, body: Body, question: str) -> None:
    """Answer `/ask` for the person who typed it."""
    if not await parts.stored(conversations.first_time, f"command:{body.get('trigger_id')}"):
        return
    place = command_place(body)
    scopes = scopes_of(place.channel, str(body.get("channel_name") or ""))
    answer = await ask(parts, Asked(question, place.user, place.channel, scopes=scopes))
    person = parts.settings.text("ASK_A_PERSON")
    await delivery.say(
        parts, place, blocks.answer_posts(answer, ask_a_person=person, private=len(scopes) > 1)
    )


# --- votes and corrections ---


async def vote(parts: Parts, body: Body) -> None:
    """Store a thumb; a thumb down first opens the modal, because its trigger lives three seconds."""
    direction, _, number = pressed(body).partition(":")
    if direction == "down":
        await open_correction(parts, body, number, ask_why=True)
    value = -1 if direction == "down" else 1
    await parts.stored(conversations.vote, int(number), body["user"]["id"], value)


async def teach(parts: Parts, body: Body) -> None:
    """Open the modal under an answer that the bot did not have."""
    await open_correction(parts, body, pressed(body), ask_why=False)


async def open_correction(parts: Parts, body: Body, number: str, *, ask_why: bool) -> None:
    """Open the modal in which somebody writes a better answer."""
    answer = await parts.stored(conversations.get_answer, int(number))
    question = await parts.stored(conversations.get_question, answer.question_id)
    place = place_of(body)
    metadata = {
        "answer": answer.id,
        "channel": place.channel,
        "thread": place.thread,
        "scope": scope_of(body),
    }
    view = blocks.correction_modal(
        question=question.text, answer=prefill(answer), metadata=metadata, ask_why=ask_why
    )
    await open_modal(parts, body, view)


def prefill(answer: Answer) -> str:
    """The answer that somebody starts from when they write a better one; none where the bot had none."""
    return (
        "" if answer.route is Route.ABSTAINED else safety.visible(answer.text)[: blocks.INPUT_CHARS].strip()
    )


async def open_modal(parts: Parts, body: Body, view: Body) -> None:
    """Open a modal. Raises UserError when the click is too old for that."""
    try:
        await parts.client.views_open(trigger_id=body["trigger_id"], view=view)
    except SlackApiError as error:
        if error.response.get("error") in ("expired_trigger_id", "trigger_expired", "exchanged_trigger_id"):
            raise UserError("That click took too long to reach me; please press it again.") from error
        raise


async def not_my_question(parts: Parts, body: Body) -> None:
    """Remember that a question is not the taught one, and look into the documents instead."""
    answer = await parts.stored(conversations.get_answer, int(pressed(body)))
    question = await parts.stored(conversations.get_question, answer.question_id)
    if answer.correction_id is not None:
        await parts.stored(corrections.add_wordings, answer.correction_id, [question.text], "rejected")
    place = place_of(body)
    if not await parts.stored(conversations.first_time, f"not mine:{answer.id}"):
        raise UserError("That is noted already; the documents were searched instead.")
    scopes = scopes_of(question.channel)
    asked = Asked(question.text, place.user, question.channel, question.thread, scopes, "documents")
    second = await ask(parts, asked)
    if place.hook and not question.thread:
        await delivery.say(parts, place, blocks.answer_posts(second))
    else:
        await delivery.send_answer(parts, second, place.channel, place.thread)


async def share(parts: Parts, body: Body) -> None:
    """Post a private answer for the channel."""
    answer = await parts.stored(conversations.get_answer, int(pressed(body)))
    question = await parts.stored(conversations.get_question, answer.question_id)
    place = place_of(body)
    if place.channel != question.channel:
        raise UserError("This answer can only be shared where it was asked.")
    asker = f"{safety.person(place.user)} asked: {safety.bold(question.text)}"
    try:
        _, ts = await delivery.send(parts, place.channel, blocks.Post(asker, (blocks.section(asker),)))
        await delivery.send_answer(parts, answer, place.channel, ts)
    except SlackApiError as error:
        if error.response.get("error") in ("not_in_channel", "channel_not_found"):
            raise UserError("I am not in this channel; invite me first, then share again.") from error
        raise


async def opened(parts: Parts, event: Body) -> None:
    """App Home was opened: show the Home tab, or suggest what to ask in the Messages tab."""
    place = Place(str(event.get("user") or ""))
    if event.get("tab") == "messages":
        await guarded(parts, place, home.suggest(parts, str(event.get("channel") or "")))
    elif event.get("tab") == "home":
        await guarded(parts, place, home.publish(parts, place.user))


# --- reading payloads ---


def pressed(body: Body) -> str:
    """The value of the button that was pressed."""
    return str(body["actions"][0]["value"])


def place_of(body: Body) -> Place:
    """Where a click came from. Its response address is kept only where the message was ephemeral."""
    container, message = body.get("container") or {}, body.get("message") or {}
    thread = message.get("thread_ts") or container.get("thread_ts") or ""
    hook = body.get("response_url") if container.get("is_ephemeral") else ""
    return Place(
        user=str(body["user"]["id"]),
        channel=str((body.get("channel") or {}).get("id") or ""),
        thread=str(thread),
        hook=str(hook or ""),
        trigger=str(body.get("trigger_id") or ""),
    )


def command_place(body: Body) -> Place:
    """Where a slash command came from."""
    place = Place(str(body.get("user_id") or ""), str(body.get("channel_id") or ""))
    return replace(place, hook=str(body.get("response_url") or ""))


def scope_of(body: Body) -> str:
    """Who may see what is taught here: everybody, unless it is a private channel or a group message."""
    channel = body.get("channel") or {}
    private = str(channel.get("name") or "").startswith(PRIVATE_NAMES)
    return str(channel["id"]) if private else WORKSPACE
