"""Asking a person: the bot names somebody for a question it could not answer, until it is resolved.

What that person wrote is then offered as a correction, so that the next asker gets it from the bot. While a question
is with a person, the bot is silent in that thread unless it is mentioned.
"""

import json
import logging
from typing import TYPE_CHECKING, Any

from bot import blocks, delivery, experts, safety
from bot.blocks import Post
from bot.delivery import UNREACHABLE, Parts, Place
from bot.listeners import clicked, open_modal, place_of, pressed, scope_of, still_there
from storage import conversations, handoffs
from storage.domain import WORKSPACE, Answer, Question
from storage.errors import UserError
from storage.handoffs import Handoff

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncApp

log = logging.getLogger(__name__)

Body = dict[str, Any]
NOBODY = "Nobody is named for this question yet; an admin can name somebody in the settings of this channel."


def register(app: "AsyncApp", parts: Parts) -> None:
    """Register the buttons that ask a person and close the question."""
    app.action("ask_person")(clicked(parts, ask_person))
    app.action("resolved")(clicked(parts, resolve))


async def ask_person(parts: Parts, body: Body) -> None:
    """Name the person for a question, but a channel for none that is private.

    Raises UserError when there is none, or one was asked already.
    """
    answer, question = await still_there(parts, pressed(body).rpartition(":")[2])
    place, scope = place_of(body), scope_of(body)
    person = await experts.expert_for(parts, question)
    if not person:
        raise UserError(NOBODY)
    if person.startswith("C") and (kept_apart(place) or scope != WORKSPACE):
        told = f"This is private, so I do not post it in {safety.person(person)}; ask there if everybody may read it."
        await delivery.say(parts, place, (Post(told, (blocks.section(told),)),))
        return
    handoff = await parts.stored(handoffs.begin, answer.id, asker=place.user, person=person)
    try:
        await post(parts, handoff, question, place, scope)
    except BaseException:
        await parts.stored(handoffs.withdraw, handoff.id)
        raise


async def post(parts: Parts, handoff: Handoff, question: Question, place: Place, scope: str) -> None:
    """Ask the person where everybody saw the answer; what was private goes to the person alone."""
    channel, thread = place.channel, place.thread
    elsewhere = handoff.person.startswith("C") or kept_apart(place)
    if elsewhere:
        channel, thread = await reached(parts, handoff.person), ""
    where, ts = await delivery.send(parts, channel, request(handoff, question, scope, private=elsewhere), thread)
    await parts.stored(handoffs.posted, handoff.id, channel=where, thread=thread or ts, ts=ts)
    if elsewhere:
        told = f"I asked {safety.person(handoff.person)} for you."
        await delivery.say(parts, place, (Post(told, (blocks.section(told),)),))


def kept_apart(place: Place) -> bool:
    """Whether only the asker saw the answer."""
    return bool(place.hook) or place.channel.startswith("D")


async def reached(parts: Parts, person: str) -> str:
    """The channel in which a person, or the people of a channel, are asked."""
    return person if person.startswith("C") else await delivery.direct_channel(parts, person)


def request(handoff: Handoff, question: Question, scope: str, *, private: bool) -> Post:
    """The message that names a person, with the button that closes the question."""
    asker = safety.person(handoff.asker)
    whom = f"{safety.person(handoff.person)}, " if safety.is_person(handoff.person) else ""
    text = f"{whom}{asker} needs a person for this: {safety.bold(question.text, 2000)}"
    how = (
        f"Answer {asker} directly or here in the thread, then press Resolved."
        if private
        else "Answer here in the thread, then press Resolved. I keep quiet here until then."
    )
    button = blocks.button("Resolved", "resolved", json.dumps([handoff.id, scope]), "primary")
    return Post(f"{whom}a question for you", (blocks.section(text), blocks.context(how), blocks.actions(button)))


async def resolve(parts: Parts, body: Body) -> None:
    """Close a question, and offer what a person answered as a correction.

    Raises UserError when it is closed, or when the click took too long: then it stays open and can be closed again.
    """
    number, scope = json.loads(pressed(body))
    handoff = await parts.stored(handoffs.get, int(number))
    if handoff.resolved_at:
        raise UserError("That was resolved already.")
    answer = await parts.stored(conversations.get_answer, handoff.answer_id)
    question = await parts.stored(conversations.get_question, answer.question_id)
    human = await humans_answer(parts, handoff, question)
    late = False
    try:
        await open_modal(parts, body, offer(handoff, answer, question, human, scope))
    except UserError:
        late = True
        raise
    finally:
        if not late:
            closed = await parts.stored(handoffs.resolve, handoff.id, str(body["user"]["id"]))
            await show_closed(parts, closed, question)
            await forward(parts, closed, question, human)


def offer(handoff: Handoff, answer: Answer, question: Question, human: str, scope: str) -> Body:
    """The correction modal with the person's answer in it."""
    metadata = {"answer": answer.id, "channel": handoff.channel, "thread": handoff.thread, "scope": scope}
    return blocks.correction_modal(question=question.text, answer=human, metadata=metadata, ask_why=False)


async def humans_answer(parts: Parts, handoff: Handoff, question: Question) -> str:
    """What people wrote in the thread since; the named person's words where there are any, never the asker's."""
    try:
        told = await parts.client.conversations_replies(
            channel=handoff.channel, ts=handoff.thread, oldest=handoff.ts, limit=100
        )
    except UNREACHABLE as error:
        log.warning("the thread of hand-off %s could not be read: %s", handoff.id, error)
        return ""
    askers = {handoff.asker, question.user} - {handoff.person}
    said = [
        (str(m.get("user")), safety.from_slack(str(m.get("text") or "")))
        for m in told["messages"]
        if not m.get("bot_id") and m.get("user") not in askers and float(m["ts"]) > float(handoff.ts)
    ]
    named = [text for user, text in said if user == handoff.person]
    return "\n".join(text for text in named or [text for _, text in said] if text)


async def show_closed(parts: Parts, handoff: Handoff, question: Question) -> None:
    """Show on the message that names the person that it is resolved."""
    text = f"Resolved by {safety.person(handoff.resolved_by)}: {safety.bold(question.text, 2000)}"
    try:
        await parts.client.chat_update(
            channel=handoff.channel,
            ts=handoff.ts,
            text="Resolved",
            blocks=[blocks.section(text)],
            parse="none",
            link_names=False,
        )
    except UNREACHABLE as error:
        log.warning("hand-off %s could not be shown as closed: %s", handoff.id, error)


async def forward(parts: Parts, handoff: Handoff, question: Question, human: str) -> None:
    """Bring the answer to an asker who cannot see the thread in which it was given."""
    if handoff.channel == question.channel or not human:
        return
    text = f"{safety.person(handoff.resolved_by)} answered {safety.bold(question.text)}"
    shown = (blocks.section(text), *(blocks.section(piece) for piece in safety.split(safety.to_mrkdwn(human))[:3]))
    await delivery.say(parts, Place(handoff.asker), (Post("Your question was answered.", shown),))
