"""Corrections on their way in: the modal is sent, the author is told, a card goes to the reviewers.

What reviewers then decide is `decisions`. It knows nothing of questions and answers being found.
"""

import asyncio
import json
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from bot import delivery, forms
from bot.delivery import UNTAUGHT, Parts, Place, guarded
from bot.listeners import prefill
from bot.teaching import Proposal
from storage import conversations, corrections, evidence, nights, private
from storage.audit import ERASED
from storage.database import Database
from storage.domain import Answer, Notice, Status, Style
from storage.errors import NotFoundError, UserError
from storage.texts import plain

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp

Body = dict[str, Any]

PATIENCE = 2.0
"""Seconds that a modal waits for a verdict; Slack closes it with an error after three."""
SENT = "Thank you. Your correction {id} was sent for review; I tell you when it is decided."
MASKED = "I masked an e-mail address or a phone number in it, because what I learn is for everybody."
ANOTHER = "not_for_me"
"""The reason that says that a question is not the taught one."""
NOTED = "Thank you, noted. If you know the right answer, press the thumb again and write it down."


def register(app: "AsyncApp", parts: Parts) -> None:
    """Register the listener of the correction modal, and propose what a bot that was killed had only acknowledged."""

    async def on_correction(ack: "AsyncAck", body: Body) -> None:
        await submit(parts, ack, body)

    app.view("correction")(on_correction)
    parts.begin(take_up(parts))


# --- the correction modal ---


async def submit(parts: Parts, ack: "AsyncAck", body: Body) -> None:
    """Take a correction: refuse it at its field, or close the modal and send it for review."""
    place, form, told = submitted_place(body), form_of(body), metadata_of(body)
    try:
        await parts.keep_pace(parts.teaching, place.user)
        answer = await parts.stored(conversations.get_answer, int(told["answer"]))
        await note_reason(parts, place, form, answer)
        if form.get("reason") and only_a_reason(form, answer):
            await ack()
            parts.begin(delivery.tell(parts, place, NOTED))
            return
        check(form)
        row = await row_of(parts, form, told, body)
        pending = await begun(parts, row)
        kept = await kept_if_slow(parts, row, pending)
    except UserError as error:
        await ack(response_action="errors", errors={field_of(error, form): str(error)})
        return
    except Exception:
        log.exception("a defect while taking a correction")
        await ack(response_action="errors", errors={"answer": delivery.BROKEN})
        return
    await ack()
    parts.begin(guarded(parts, place, proposed(parts, place, pending, kept)))


async def note_reason(parts: Parts, place: Place, form: dict[str, str], answer: Answer) -> None:
    """Store what was wrong, if it was said; "another question" also teaches what the taught question is not."""
    if not form.get("reason"):
        return
    await parts.stored(conversations.vote, answer.id, place.user, -1, reason=form["reason"])
    if form["reason"] == ANOTHER and answer.correction_id is not None:
        question = await parts.stored(conversations.get_question, answer.question_id)
        if question.text != ERASED:
            await parts.stored(corrections.add_wordings, answer.correction_id, [question.text], "rejected")


def only_a_reason(form: dict[str, str], answer: Answer) -> bool:
    """Whether somebody said what was wrong without writing a better answer."""
    return form["answer"].strip() in ("", prefill(answer))


def check(form: dict[str, str]) -> None:
    """Raise UserError for what the desk would refuse too, while the modal is still open."""
    for name in ("question", "answer"):
        corrections.clean(form[name], name)
    secrets = private.find_secrets("\n".join(form[n] for n in ("question", "answer", "source")))
    if secrets:
        raise UserError(f"This holds a secret ({', '.join(secrets)}); remove it and send it again.")


def field_of(error: UserError, form: dict[str, str]) -> str:
    """The field under which a modal shows an error."""
    if "secret" in str(error):
        return next((n for n in ("question", "answer", "source") if private.find_secrets(form[n])), "answer")
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
        "supersedes": await replaced_by(parts, form, told),
    }


async def begun(parts: Parts, row: dict[str, Any]) -> "asyncio.Future[Proposal]":
    """A correction on its way through the desk."""
    return asyncio.wrap_future(await asyncio.to_thread(parts.desk.teach, **row))


async def kept_if_slow(parts: Parts, row: dict[str, Any], pending: "asyncio.Future[Proposal]") -> int:
    """Wait for the desk a little, then keep the correction for a bot that is killed; returns the notice's id or 0.

    Raises UserError when the desk refuses the correction.
    """
    await asyncio.wait({pending}, timeout=PATIENCE)
    if pending.done():
        pending.result()
        return 0
    return await parts.stored(keep, row, parts.settings.names("COMPANY_CONTACTS"))


def keep(database: Database, row: dict[str, Any], contacts: Collection[str]) -> int:
    """Store a correction as a notice to the bot itself, personal data masked; returns the notice's id."""
    texts = {name: evidence.masked(database, row[name], contacts) for name in ("question", "answer")}
    with database.write():
        nights.owe(database, row["author"], UNTAUGHT, row | texts)
        return nights.owed(database)[-1].id


async def replaced_by(parts: Parts, form: dict[str, str], told: Body) -> int | None:
    """The approved correction that a new one replaces: the one that answered, if the new one has its very question.

    In other words it may be another question that was answered wrongly; then the two are compared, like any others.
    What is taught for one channel never takes an answer away from everybody: both stand, and a reviewer decides.
    """
    answer = await parts.stored(conversations.get_answer, int(told["answer"]))
    if answer.correction_id is None or answer.style is not Style.DIRECT or form.get("reason") == ANOTHER:
        return None
    if plain(form["question"]) != plain(answer.taught_question):
        return None
    row = await parts.stored(corrections.get, answer.correction_id)
    return row.id if row.status is Status.APPROVED and row.scope == told["scope"] else None


async def proposed(parts: Parts, place: Place, pending: "asyncio.Future[Proposal]", kept: int = 0) -> None:
    """Tell the author, and put the correction before the reviewers; the notice `kept` for it has done its duty."""
    try:
        proposal = await asyncio.shield(pending)  # a bot that stops must not take the correction with it
    finally:
        if kept and pending.done():
            await parts.stored(nights.delivered, kept)
    told = SENT.format(id=proposal.correction.id)
    await delivery.tell(parts, place, f"{told} {MASKED}" if proposal.masked else told)
    await delivery.try_card(parts, proposal.correction.id)


async def take_up(parts: Parts) -> None:
    """Propose what was kept for the desk when the bot was killed; what was stored just before that comes twice."""
    for notice in await parts.stored(nights.owed):
        if notice.kind == UNTAUGHT:
            parts.begin(guarded(parts, Place(notice.user), proposed_again(parts, notice)))


async def proposed_again(parts: Parts, notice: Notice) -> None:
    """Bring a correction that was kept on its way."""
    await proposed(parts, Place(notice.user), await begun(parts, notice.payload), notice.id)


# --- reading submissions ---


def metadata_of(body: Body) -> Body:
    """What we wrote into a modal when we opened it."""
    told = json.loads(body["view"]["private_metadata"])
    if not isinstance(told, dict):
        raise NotFoundError("This form is too old; please open it again.")
    return told


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
    gaps = metadata_of(body).get("gaps")
    cut = gaps if isinstance(gaps, dict) else {}
    return fields | {name: forms.joined(fields, name, list(map(str, told))) for name, told in cut.items()}
