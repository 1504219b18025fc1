"""What people press and type in Slack, brought to those who do the work.

Every listener acknowledges and returns; the work goes on in a task, and ends in an answer whatever happens. Messages
are in `questions`, reviewing is in `reviews`. It knows nothing of how an answer is found.
"""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncBoltContext
from slack_sdk.errors import SlackApiError

from bot import answer_views, answers, blocks, channels, delivery, greeting, home, safety
from bot.answers import Target
from bot.asking import Asked
from bot.delivery import Parts, Place, guarded
from bot.pipeline import GONE
from bot.questions import NOTHING_ASKED, ask, hear, scopes_of, struck_after
from storage import asked as asked_log
from storage import channels as channel_log
from storage import conversations, corrections
from storage.asked import InHand
from storage.audit import ERASED
from storage.database import Database
from storage.domain import WORKSPACE, Answer, Question, Route, Status
from storage.errors import UserError

log = logging.getLogger(__name__)

Body = dict[str, Any]

PRIVATE_NAMES = ("privategroup", "mpdm-")
"""How clicks and commands name private channels and group messages, instead of their own name."""
OUTSIDERS = "People of another organisation read this channel, so the answer stays with you."
OUTDATED = "This answer does not hold any more; please ask again."
TOO_LATE = ("expired_trigger_id", "trigger_expired", "exchanged_trigger_id")


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
        ("meant", meant),
        ("share", share),
        ("more", more),
    ):
        app.action(action)(clicked(parts, work))


def clicked(parts: Parts, work: Callable[[Parts, Body], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A listener that acknowledges a click and does the work afterwards, for members of the workspace."""

    async def for_a_member(body: Body) -> None:
        await parts.people.must_be_member(str(body["user"]["id"]))
        await note_private(parts, body)
        await work(parts, body)

    async def listener(ack: AsyncAck, body: Body) -> None:
        await ack()
        parts.begin(guarded(parts, place_of(body), for_a_member(body)))

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


# --- /ask ---


async def ask_privately(parts: Parts, body: Body, question: str) -> None:
    """Take up `/ask` once."""
    place, key = command_place(body), f"{asked_log.COMMAND}{body.get('trigger_id')}"
    taken = InHand(place.channel, "", key, place.user)
    if await parts.stored(asked_log.take, taken, key):
        await struck_after(parts, taken, guarded(parts, place, whispered(parts, body, place, question)))


async def whispered(parts: Parts, body: Body, place: Place, question: str) -> None:
    """Answer a question for the person who typed it."""
    await note_private(parts, body)
    if not await channels.allows(parts, place, question, named=True):
        return
    await parts.keep_pace(parts.questions, place.user)
    scopes = scopes_of(place.channel, str(body.get("channel_name") or ""))
    route = await channels.route_for(parts, place.channel)
    answer = await ask(parts, Asked(question, place.user, place.channel, scopes=scopes, route=route), place)
    await answers.whisper_answer(parts, answer, place, share=await channels.shareable(parts, place.channel))


async def share(parts: Parts, body: Body) -> None:
    """Post a private answer for the channel. Raises UserError for one that holds no longer or stands there already."""
    answer, question = await still_there(parts, pressed(body))
    place = place_of(body)
    if place.channel != question.channel:
        raise UserError("This answer can only be shared where it was asked.")
    if not await channels.shareable(parts, place.channel):
        raise UserError(OUTSIDERS)
    if not await parts.stored(still_holds, answer):
        raise UserError(OUTDATED)
    async with once(parts, f"share:{answer.id}", "This answer is shared already."):
        thread = await shared(parts, answer, question, place)
    await parts.stored(
        asked_log.note, place.channel, thread, thread=thread, said=question.text, question_id=question.id
    )


async def still_there(parts: Parts, number: str) -> tuple[Answer, Question]:
    """A stored answer and its question. Raises UserError when either was erased."""
    answer = await parts.stored(conversations.get_answer, int(number))
    question = await parts.stored(conversations.get_question, answer.question_id)
    if ERASED in (answer.text, question.text):
        raise UserError(OUTDATED)
    return answer, question


def still_holds(database: Database, answer: Answer) -> bool:
    """Whether what an answer was taught is still approved; documents teach it nothing."""
    taught = answer.correction_id
    return taught is None or corrections.get(database, taught).status is Status.APPROVED


async def shared(parts: Parts, answer: Answer, question: Question, place: Place) -> str:
    """Post an answer under its question, into the question's thread or into a new one; returns the thread."""
    asker = f"{safety.person(place.user)} asked: {safety.bold(question.text)}"
    thread = question.thread
    try:
        if not thread:
            _, thread = await delivery.send(parts, place.channel, blocks.Post(asker, (blocks.section(asker),)))
        await answers.send_answer(parts, answer, Target(place.channel, thread, place.user))
    except SlackApiError as error:
        if error.response.get("error") in ("not_in_channel", "channel_not_found"):
            raise UserError("I am not in this channel; invite me first, then share again.") from error
        raise
    return thread


# --- votes and corrections ---


async def vote(parts: Parts, body: Body) -> None:
    """Store a thumb, whoever gives it; a thumb down first opens the modal, because its trigger lives three seconds."""
    await parts.keep_pace(parts.teaching, str(body["user"]["id"]))
    direction, _, number = pressed(body).partition(":")
    value = -1 if direction == "down" else 1
    try:
        if value < 0:
            await open_correction(parts, body, number, ask_why=True)
    finally:
        await parts.stored(conversations.vote, int(number), body["user"]["id"], value)


async def teach(parts: Parts, body: Body) -> None:
    """Open the modal under an answer that the bot did not have."""
    await open_correction(parts, body, pressed(body), ask_why=False)


async def more(parts: Parts, body: Body) -> None:
    """Do what was chosen in the menu under an answer."""
    from bot.handover import ask_person

    wanted, _, number = pressed(body).partition(":")
    if wanted == "person":
        await ask_person(parts, body)
    elif wanted == "correct":
        await open_correction(parts, body, number, ask_why=True)
    else:
        answer, question = await still_there(parts, number)
        told = answer_views.details(answer, question.text)
        await delivery.say(parts, place_of(body), (blocks.Post("How this answer came about", (blocks.section(told),)),))


async def open_correction(parts: Parts, body: Body, number: str, *, ask_why: bool) -> None:
    """Open the modal in which somebody writes a better answer."""
    answer, question = await still_there(parts, number)
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
    if answer.route is Route.ABSTAINED:
        return ""
    return safety.visible(safety.redact_secrets(answer.text)).strip()


async def open_modal(parts: Parts, body: Body, view: Body) -> None:
    """Open a modal. Raises UserError when the click is too old for that."""
    try:
        await parts.client.views_open(trigger_id=body["trigger_id"], view=view)
    except SlackApiError as error:
        if error.response.get("error") in TOO_LATE:
            raise UserError("That click took too long to reach me; please press it again.") from error
        raise


async def not_my_question(parts: Parts, body: Body) -> None:
    """Remember that a question is not the taught one, and look into the documents instead."""
    await parts.keep_pace(parts.teaching, str(body["user"]["id"]))
    answer, question = await still_there(parts, pressed(body))
    if answer.correction_id is not None:
        await parts.stored(corrections.add_wordings, answer.correction_id, [question.text], "rejected")
    place = place_of(body)
    asked = replace(anew(question, place.user), route="documents", refused=answer.correction_id)
    told = "That is noted already; the documents were searched instead."
    await answer_once(parts, asked, place, f"not mine:{answer.id}", told)


async def meant(parts: Parts, body: Body) -> None:
    """Give the answer to the taught question that somebody chose among those suggested."""
    place = place_of(body)
    await parts.keep_pace(parts.questions, place.user)
    number, _, chosen = pressed(body).partition(":")
    answer, question = await still_there(parts, number)
    if int(chosen) not in {one.correction_id for one in answer.suggestions}:
        raise UserError(GONE)
    asked = replace(anew(question, place.user), meant=int(chosen))
    told = "That answer was given already; it stands in this thread."
    await answer_once(parts, asked, place, f"meant:{answer.id}:{chosen}", told)


def anew(question: Question, user: str) -> Asked:
    """A stored question as it is asked again by whoever pressed a button under its answer."""
    first = question.repeats or question.id
    return Asked(question.text, user, question.channel, question.thread, scopes_of(question.channel), repeats=first)


async def answer_once(parts: Parts, asked: Asked, place: Place, key: str, again: str) -> None:
    """Answer a click where it came from, to everybody in the thread or to one person, as the channel's settings allow.

    Raises UserError with the sentence `again` when that was done before; what failed may be pressed once more.
    """
    if not await channels.allows(parts, place, asked.text, named=True):
        return
    alone = bool(place.hook) or await channels.discreet(parts, place.channel)
    async with once(parts, f"{key}:{place.user if alone else ''}", again):
        answer = await ask(parts, asked, place)
    if alone:
        await answers.whisper_answer(parts, answer, place, share=await channels.shareable(parts, place.channel))
    else:
        await answers.send_answer(parts, answer, Target(place.channel, place.thread, place.user))


@contextlib.asynccontextmanager
async def once(parts: Parts, key: str, again: str) -> AsyncIterator[None]:
    """Do what a click asks for once. Raises UserError with the sentence `again` when that was done before."""
    if not await parts.stored(conversations.first_time, key):
        raise UserError(again)
    try:
        yield
    except BaseException:
        await parts.stored(conversations.not_done, key)
        raise


async def opened(parts: Parts, event: Body) -> None:
    """App Home was opened: show the Home tab, or greet and suggest what to ask in the Messages tab."""
    place = Place(str(event.get("user") or ""))
    if event.get("tab") == "messages":
        await guarded(parts, place, greeting.welcome(parts, place.user, str(event.get("channel") or "")))
    elif event.get("tab") == "home":
        await guarded(parts, place, home.publish(parts, place.user))


# --- reading payloads ---


def pressed(body: Body) -> str:
    """The value of the button that was pressed, or of the choice in a menu."""
    action = body["actions"][0]
    return str(action["selected_option"]["value"] if "selected_option" in action else action["value"])


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
    channel = body.get("channel") or {"id": body.get("channel_id"), "name": body.get("channel_name")}
    private = str(channel.get("name") or "").startswith(PRIVATE_NAMES)
    return str(channel["id"]) if private else WORKSPACE


async def note_private(parts: Parts, body: Body) -> None:
    """Remember a channel as private if a click or a command names it as such."""
    if (scope := scope_of(body)) != WORKSPACE:
        await parts.stored(channel_log.note_private, scope)
