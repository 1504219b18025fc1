"""Corrections on their way: the modal is sent, a card goes to the reviewers, they decide, people are told.

Who may decide is asked again at every click; that nobody approves their own is held by the database.
It knows nothing of questions and answers being found.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from bot import blocks, delivery, home, safety
from bot.delivery import Parts, Place, guarded
from bot.listeners import clicked, open_modal, place_of, prefill, pressed
from bot.teaching import Conflict, Proposal
from storage import conversations, corrections
from storage.domain import Answer, Correction, Status, Style
from storage.errors import NotAllowedError, NotFoundError, UserError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp

Body = dict[str, Any]
Conflicts = tuple[Conflict, ...]
Decide = Callable[[Parts, Correction, str, Conflicts], Awaitable[Correction]]

PATIENCE = 2.0
"""Seconds that a modal waits for a verdict; Slack closes it with an error after three."""
SENT = "Thank you. Your correction {id} was sent for review; I tell you when it is decided."
NOTED = "Thank you, noted. If you know the right answer, press the thumb again and write it down."


def register(app: "AsyncApp", parts: Parts) -> None:
    """Register the listeners of the correction modal, the review cards and App Home's buttons."""

    async def on_correction(ack: "AsyncAck", body: Body) -> None:
        await submit(parts, ack, body)

    app.view("correction")(on_correction)
    for action, decide in (("approve", approve), ("approve_replacing", approve_replacing)):
        app.action(action)(clicked(parts, decided_by(decide)))
    app.action("edit")(clicked(parts, open_edit))
    app.action("reject")(clicked(parts, open_reject))
    app.action("home_page")(clicked(parts, turn_page))

    async def on_edit(ack: "AsyncAck", body: Body) -> None:
        await submit_edit(parts, ack, body)

    async def on_reject(ack: "AsyncAck", body: Body) -> None:
        await ack()
        parts.begin(guarded(parts, submitted_place(body), submit_reject(parts, body)))

    app.view("review_edit")(on_edit)
    app.view("review_reject")(on_reject)


# --- the correction modal ---


async def submit(parts: Parts, ack: "AsyncAck", body: Body) -> None:
    """Take a correction: refuse it at its field, or close the modal and send it for review."""
    place, form, told = submitted_place(body), form_of(body), metadata_of(body)
    try:
        answer = await parts.stored(conversations.get_answer, int(told["answer"]))
        if form.get("reason"):
            await parts.stored(conversations.vote, answer.id, place.user, -1, reason=form["reason"])
        if form.get("reason") and only_a_reason(form, answer):
            await ack()
            parts.begin(guarded(parts, place, noted(parts, place, form, answer)))
            return
        check(form)
        pending = asyncio.wrap_future(
            await asyncio.to_thread(parts.desk.teach, **await row_of(parts, form, told, body))
        )
        await asyncio.wait({pending}, timeout=PATIENCE)
        if pending.done():
            pending.result()
    except UserError as error:
        await ack(response_action="errors", errors={field_of(error, form): str(error)})
        return
    except Exception:
        log.exception("a defect while taking a correction")
        await ack(response_action="errors", errors={"answer": delivery.BROKEN})
        return
    await ack()
    parts.begin(guarded(parts, place, proposed(parts, place, pending)))


def only_a_reason(form: dict[str, str], answer: Answer) -> bool:
    """Whether somebody said what was wrong without writing a better answer."""
    return form["reason"] == "not_for_me" or form["answer"].strip() in ("", prefill(answer))


async def noted(parts: Parts, place: Place, form: dict[str, str], answer: Answer) -> None:
    """Thank for a reason; "another question" also teaches what the taught question is not."""
    if form["reason"] == "not_for_me" and answer.correction_id is not None:
        question = await parts.stored(conversations.get_question, answer.question_id)
        await parts.stored(corrections.add_wordings, answer.correction_id, [question.text], "rejected")
    await delivery.tell(parts, place, NOTED)


def check(form: dict[str, str]) -> None:
    """Raise UserError for what the desk would refuse too, while the modal is still open."""
    for name in ("question", "answer"):
        corrections.clean(form[name], name)
    secrets = safety.find_secrets("\n".join(form[n] for n in ("question", "answer", "source")))
    if secrets:
        raise UserError(f"This holds a secret ({', '.join(secrets)}); remove it and send it again.")


def field_of(error: UserError, form: dict[str, str]) -> str:
    """The field under which a modal shows an error."""
    if "secret" in str(error):
        return next((n for n in ("question", "answer", "source") if safety.find_secrets(form[n])), "answer")
    return "question" if "question" in str(error) else "answer"


async def row_of(parts: Parts, form: dict[str, str], told: Body, body: Body) -> dict[str, Any]:
    """The correction as the desk takes it."""
    return {
        "question": form["question"],
        "answer": form["answer"],
        "author": str(body["user"]["id"]),
        "source": form["source"],
        "scope": str(told["scope"]),
        "answer_id": int(told["answer"]),
        "supersedes": await replaced_by(parts, form, int(told["answer"])),
    }


async def replaced_by(parts: Parts, form: dict[str, str], answer_id: int) -> int | None:
    """The approved correction that a new one replaces: the one that answered, if its question was kept."""
    answer = await parts.stored(conversations.get_answer, answer_id)
    if answer.correction_id is None or answer.style is not Style.DIRECT:
        return None
    asked = await parts.stored(conversations.get_question, answer.question_id)
    if form["question"].strip() not in (asked.text.strip(), answer.taught_question.strip()):
        return None
    row = await parts.stored(corrections.get, answer.correction_id)
    return row.id if row.status is Status.APPROVED else None


async def proposed(parts: Parts, place: Place, pending: "asyncio.Future[Proposal]") -> None:
    """Tell the author, and put the correction before the reviewers."""
    proposal = await pending
    await delivery.tell(parts, place, SENT.format(id=proposal.correction.id))
    await delivery.post_card(parts, proposal.correction, proposal.conflicts)


# --- decisions ---


def decided_by(decide: Decide) -> Callable[[Parts, Body], Awaitable[None]]:
    """What a click on a deciding button does."""

    async def work(parts: Parts, body: Body) -> None:
        row, conflicts = await reviewed(parts, body["user"]["id"], pressed(body))
        await announce(
            parts, await decide(parts, row, body["user"]["id"], conflicts), conflicts, place_of(body)
        )

    return work


async def approve(parts: Parts, row: Correction, reviewer: str, conflicts: Conflicts) -> Correction:
    """Approve a correction. Raises NotAllowedError for its author."""
    try:
        return await parts.stored(corrections.approve, row.id, reviewer)
    except NotAllowedError as error:
        raise NotAllowedError(str(error).replace(reviewer, "You", 1)) from error


async def approve_replacing(parts: Parts, row: Correction, reviewer: str, conflicts: Conflicts) -> Correction:
    """Approve a correction and withdraw the one it contradicts."""
    approved = await approve(parts, row, reviewer, conflicts)
    rival = next(c for c in conflicts if c.kind == "contradiction" and c.correction_id != row.supersedes)
    reason = f"contradicted by correction {row.id}"
    withdrawn = await parts.stored(corrections.withdraw, rival.correction_id, reviewer, reason=reason)
    await delivery.update_cards(parts, withdrawn)
    return approved


async def reviewed(parts: Parts, reviewer: str, value: str) -> tuple[Correction, Conflicts]:
    """The correction and the conflicts behind a review button. Raises NotAllowedError for non-reviewers."""
    if not parts.is_admin(reviewer):
        raise NotAllowedError("Only reviewers can decide about corrections; ask an admin of this bot.")
    number, known = json.loads(value)
    row = await parts.stored(corrections.get, int(number))
    return row, tuple([await conflict_of(parts, int(other), str(kind)) for other, kind in known])


async def conflict_of(parts: Parts, correction_id: int, kind: str) -> Conflict:
    """A conflict as its row stands now."""
    row = await parts.stored(corrections.get, correction_id)
    return Conflict(row.id, row.question, row.answer, kind)


async def announce(parts: Parts, row: Correction, conflicts: Conflicts, place: Place) -> None:
    """Show a decision on the cards, on the reviewer's Home if they came from there, and tell the author."""
    await delivery.update_cards(parts, row, conflicts)
    if not place.channel:
        await home.publish(parts, place.user)
    if not safety.is_person(row.author):
        return
    await delivery.tell(parts, Place(row.author), verdict(row))


def verdict(row: Correction) -> str:
    """What the author hears."""
    question = safety.plain(row.question, 200)
    if row.status is Status.APPROVED:
        return f"Your correction {row.id} was approved. From now on I answer \u201c{question}\u201d with it."
    why = f" Reason: {safety.plain(row.reason, 1000)}" if row.reason else ""
    return f"Your correction {row.id} (\u201c{question}\u201d) was {row.status.value}.{why}"


async def open_edit(parts: Parts, body: Body) -> None:
    """Open the modal in which a reviewer rewords a correction."""
    row, _ = await reviewed(parts, body["user"]["id"], pressed(body))
    corrections.must_be(row, Status.PENDING)
    await open_modal(parts, body, blocks.edit_modal(row, review_metadata(body)))


async def open_reject(parts: Parts, body: Body) -> None:
    """Open the modal in which a reviewer says why."""
    row, _ = await reviewed(parts, body["user"]["id"], pressed(body))
    corrections.must_be(row, Status.PENDING)
    await open_modal(parts, body, blocks.reject_modal(row, review_metadata(body)))


async def submit_edit(parts: Parts, ack: "AsyncAck", body: Body) -> None:
    """Store new wording, or show at its field why not."""
    place, form, user = submitted_place(body), form_of(body), body["user"]["id"]
    try:
        row, conflicts = await reviewed(parts, user, str(metadata_of(body)["value"]))
        check(form | {"source": ""})
        row = await parts.stored(
            corrections.edit, row.id, user, question=form["question"], answer=form["answer"]
        )
    except UserError as error:
        await ack(response_action="errors", errors={field_of(error, form | {"source": ""}): str(error)})
        return
    except Exception:
        log.exception("a defect while editing a correction")
        await ack(response_action="errors", errors={"answer": delivery.BROKEN})
        return
    await ack()
    parts.begin(guarded(parts, place, edited(parts, row, conflicts, place)))


async def edited(parts: Parts, row: Correction, conflicts: Conflicts, place: Place) -> None:
    """Show a reworded correction everywhere."""
    await delivery.update_cards(parts, row, conflicts)
    if not place.channel:
        await home.publish(parts, place.user)


async def submit_reject(parts: Parts, body: Body) -> None:
    """Refuse a correction with its reason."""
    user = body["user"]["id"]
    row, conflicts = await reviewed(parts, user, str(metadata_of(body)["value"]))
    row = await parts.stored(corrections.reject, row.id, user, reason=form_of(body)["reason"])
    await announce(parts, row, conflicts, submitted_place(body))


async def turn_page(parts: Parts, body: Body) -> None:
    """Show another page of the queue on App Home."""
    await home.publish(parts, body["user"]["id"], int(pressed(body)))


# --- reading submissions ---


def metadata_of(body: Body) -> Body:
    """What we wrote into a modal when we opened it."""
    told = json.loads(body["view"]["private_metadata"])
    if not isinstance(told, dict):
        raise NotFoundError("This form is too old; please open it again.")
    return told


def review_metadata(body: Body) -> Body:
    """What a review modal must remember: the button's value and where it was pressed."""
    place = place_of(body)
    return {"value": pressed(body), "channel": place.channel, "thread": place.thread}


def submitted_place(body: Body) -> Place:
    """Where the modal was opened."""
    told = metadata_of(body)
    return Place(str(body["user"]["id"]), str(told.get("channel") or ""), str(told.get("thread") or ""))


def form_of(body: Body) -> dict[str, str]:
    """The fields of a submitted modal as text; an empty one is an empty text."""
    fields = {}
    for block_id, elements in body["view"]["state"]["values"].items():
        element = elements.get("value") or {}
        chosen = (element.get("selected_option") or {}).get("value")
        fields[block_id] = str(element.get("value") or chosen or "")
    return fields
