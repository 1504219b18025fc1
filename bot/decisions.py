"""What admins decide: approve, edit, reject or withdraw a correction, and put the previous model back.

Who may decide is asked again at every click; that nobody approves their own is held by the database. A decision
about something that changed meanwhile is refused in one sentence, and what was typed is kept.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bot import blocks, delivery, home, review_views, safety
from bot.delivery import Parts, Place, guarded
from bot.home import Pages
from bot.listeners import clicked, open_modal, place_of, pressed
from bot.review_views import APPROVE, BOTH, REJECT, RELEASE, REPLACE, SAVE
from bot.reviews import PATIENCE, check, field_of, form_of, metadata_of, submitted_place
from bot.teaching import Pairs
from storage import corrections, evidence, holds, registry
from storage.database import Database
from storage.domain import Correction, Status
from storage.errors import ConflictError, ContradictionError, HeldError, NotAllowedError, UserError
from storage.evidence import Dossier, must_stand

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from slack_bolt.async_app import AsyncAck, AsyncApp

Body = dict[str, Any]
Form = dict[str, str]
Rows = tuple[Correction, ...]
"""The corrections that a decision changed; the one that was decided about first."""


@dataclass(frozen=True)
class Named:
    """The correction that a button or a modal names, how it stood there, and its conflicts in new words, if any."""

    id: int
    seen: str
    reworded: Pairs | None = None

    @classmethod
    def read(cls, value: str) -> "Named":
        """What a review button carries; those on old cards do not say how the correction stood."""
        number, _, *seen = json.loads(value)
        return cls(int(number), str(seen[0]) if seen else "")


Act = Callable[[Database, Named, str, Form], Rows]
View = Callable[..., blocks.Block]


def register(app: "AsyncApp", parts: Parts) -> None:
    """Register the listeners of the review buttons, the review modals and App Home's buttons."""
    app.action("approve")(clicked(parts, quick(approve_row)))
    app.action("approve_replacing")(clicked(parts, quick(approve_replacing_row)))
    for action, view in (
        ("look", review_views.look_view),
        ("edit", review_views.edit_view),
        ("reject", review_views.reject_view),
    ):
        app.action(action)(clicked(parts, opening(view, only_pending=action != "look")))
    for callback, act, view in (
        ("review_edit", edit_row, review_views.edit_view),
        ("review_reject", reject_row, review_views.reject_view),
        ("review_decide", decide_row, review_views.look_view),
    ):
        app.view(callback)(submitted(parts, act, view))
    for action, work in (
        ("take_back", take_back),
        ("home_page", turn_page),
        ("home_approved", turn_page),
        ("rollback", roll_back),
    ):
        app.action(action)(clicked(parts, work))


# --- buttons ---


def quick(act: Act) -> Callable[[Parts, Body], Awaitable[None]]:
    """What a click on a button does that decides at once."""

    async def work(parts: Parts, body: Body) -> None:
        user, named = str(body["user"]["id"]), Named.read(pressed(body))
        await parts.people.must_be_admin(user)
        try:
            changed = await parts.stored(act, named, user, {})
        except UserError:
            await show_how_it_stands(parts, body, named)
            raise
        await announce(parts, changed, place_of(body), body.get("view"))

    return work


async def show_how_it_stands(parts: Parts, body: Body, named: Named) -> None:
    """After a decision that came too late: bring what the reviewer looks at up to date."""
    if body.get("view"):
        await home.publish(parts, str(body["user"]["id"]), seen=body["view"])
        return
    dossier = await parts.stored(evidence.dossier, named.id)
    await delivery.update_cards(parts, dossier.row, review_views.conflicts_in(dossier))


def opening(view: View, *, only_pending: bool) -> Callable[[Parts, Body], Awaitable[None]]:
    """What a click on a button does that opens a review modal."""

    async def work(parts: Parts, body: Body) -> None:
        await parts.people.must_be_admin(str(body["user"]["id"]))
        named = Named.read(pressed(body))
        dossier = await parts.stored(evidence.dossier, named.id)
        if only_pending:
            corrections.must_be(dossier.row, Status.PENDING)
        await open_modal(parts, body, view(dossier, review_metadata(body)))

    return work


def review_metadata(body: Body) -> Body:
    """What a review modal must remember: the button's value, where it was pressed, which pages were turned."""
    place = place_of(body)
    pages = asdict(home.pages_of(body.get("view")))
    return {"value": pressed(body), "channel": place.channel, "thread": place.thread, "pages": pages}


async def take_back(parts: Parts, body: Body) -> None:
    """Withdraw one's own correction while it waits."""
    user = str(body["user"]["id"])
    row = await parts.stored(take_back_row, int(pressed(body)), user)
    await delivery.update_cards(parts, row)
    await home.publish(parts, user, seen=body.get("view"))


def take_back_row(database: Database, number: int, user: str) -> Correction:
    """Withdraw a waiting correction. Raises NotAllowedError for everybody but its author."""
    with database.write():
        row = corrections.get(database, number)
        if row.author != user:
            raise NotAllowedError("Only who wrote a correction can take it back.")
        corrections.must_be(row, Status.PENDING)
        return corrections.withdraw(database, number, user, reason="taken back by its author")


async def turn_page(parts: Parts, body: Body) -> None:
    """Show another page of one of the lists on App Home."""
    pages = asdict(home.pages_of(body.get("view")))
    name = "queue" if body["actions"][0]["action_id"] == "home_page" else "approved"
    turned = Pages(**pages | {name: int(pressed(body))})
    await home.publish(parts, str(body["user"]["id"]), seen=body.get("view"), pages=turned)


async def roll_back(parts: Parts, body: Body) -> None:
    """Put the previous model back, and tell the other admins. Raises ConflictError when another serves by now."""
    user = str(body["user"]["id"])
    await parts.people.must_be_admin(user)
    try:
        left, back = await parts.stored(roll_back_from, pressed(body))
    finally:
        await home.publish(parts, user, seen=body.get("view"))
    text = f"Model {back} serves again; {left} was taken out."
    if channel := parts.settings.text("REVIEW_CHANNEL"):
        told = f"{safety.person(user)} rolled back. {safety.inline(text)}"
        await delivery.send(parts, channel, blocks.Post(told, (blocks.section(told),)))
    else:
        await delivery.tell(parts, Place(user), text)


def roll_back_from(database: Database, seen: str) -> tuple[str, str]:
    """Roll back; returns (version left, version now serving). Raises ConflictError unless `seen` is the champion."""
    with database.write():
        champion = registry.champion(database)
        if champion != seen:
            raise ConflictError(f"Model {champion} was put in place meanwhile; look again before you roll it back.")
        return registry.rollback(database)


# --- modals ---


def submitted(parts: Parts, act: Act, view: View) -> Callable[..., Awaitable[None]]:
    """A listener that decides while the modal is still open, so that a refusal loses nothing that was typed."""

    async def listener(ack: "AsyncAck", body: Body) -> None:
        form, told = form_of(body), metadata_of(body)
        user, named = str(body["user"]["id"]), Named.read(str(told["value"]))
        named = Named(named.id, str(told.get("seen") or named.seen))
        try:
            await parts.people.must_be_admin(user)
            form = await parts.stored(masked, form, parts.settings.names("COMPANY_CONTACTS"))
            named = replace(named, reworded=await compared(parts, user, named, form))
            changed = await parts.stored(act, named, user, form)
        except ConflictError as error:
            dossier = await parts.stored(evidence.dossier, named.id)
            await ack(response_action="update", view=again(view, dossier, told, str(error), form))
            return
        except UserError as error:
            await ack(response_action="errors", errors={field_for(error, form, body): str(error)})
            return
        except Exception:
            log.exception("a defect while deciding about correction %s", named.id)
            await ack(response_action="errors", errors={inputs_of(body)[0]: delivery.BROKEN})
            return
        await ack()
        place = submitted_place(body)
        seen = {"private_metadata": json.dumps(told.get("pages") or {})}
        parts.begin(guarded(parts, place, announce(parts, changed, place, seen)))

    return listener


async def compared(parts: Parts, user: str, named: Named, form: Form) -> Pairs | None:
    """What a correction contradicts or repeats in the words of a form; None when no other words are to be kept.

    Raises ConflictError when the desk is too busy to tell in time, UserError for words that may not be kept.
    """
    row = await parts.stored(corrections.get, named.id)
    if not rewords(form, row):
        return None
    check({"source": "", **texts_of(form)})
    asked = {**texts_of(form), "author": user, "rewords": row.id}
    pending = asyncio.wrap_future(await asyncio.to_thread(parts.desk.teach, **asked))
    try:
        return (await asyncio.wait_for(pending, PATIENCE)).pairs
    except TimeoutError as error:
        raise ConflictError("I am too busy to compare your words with the other corrections just now.") from error


def again(view: View, dossier: Dossier, told: Body, why: str, form: Form) -> blocks.Block:
    """The modal as things stand now, with what was typed; without inputs when nothing is left to decide."""
    if dossier.row.status is Status.PENDING:
        kept = {key: told[key] for key in ("value", "channel", "thread", "pages") if key in told}
        warning = f"{why} Your text is kept below; send it again if you still want it."
        return view(dossier, kept, warning=warning, form=form)
    shown = review_views.comparison(dossier, why)
    return review_views.closed(dossier, [*shown, *blocks.decision(dossier.row, ())], form)


def inputs_of(body: Body) -> list[str]:
    """The inputs of a submitted modal."""
    return [str(b["block_id"]) for b in body["view"]["blocks"] if b["type"] == "input"]


def field_for(error: UserError, form: Form, body: Body) -> str:
    """The input under which a modal shows an error."""
    there = inputs_of(body)
    wanted = "decision" if isinstance(error, NotAllowedError) else field_of(error, {"source": "", **texts_of(form)})
    if "reason" in str(error):
        wanted = "reason"
    return wanted if wanted in there else there[-1]


def texts_of(form: Form) -> Form:
    """The texts of a form; a modal without them has empty ones."""
    return {name: form.get(name, "") for name in ("question", "answer")}


# --- decisions, each in one transaction ---


def approve_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Approve a correction. Raises NotAllowedError for its author, ConflictError when it changed meanwhile."""
    with database.write():
        must_stand(database, named.id, named.seen)
        return (approved(database, named.id, reviewer, form.get("reason", "")),)


def approve_replacing_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Approve a correction and withdraw those it contradicts."""
    with database.write():
        gone = withdraw_rivals(database, named, reviewer)
        return *approve_row(database, named, reviewer, form), *gone


def withdraw_rivals(database: Database, named: Named, reviewer: str) -> Rows:
    """Withdraw what a correction contradicts: all approved ones, or the first that waits.

    Raises UserError when one of them is for other people.
    """
    with database.write():
        must_stand(database, named.id, named.seen)
        dossier = evidence.dossier(database, named.id)
        rivals, reason = review_views.contradicted(dossier), f"contradicted by correction {named.id}"
        for rival in rivals:
            corrections.must_be_for(rival, dossier.row.scope)
        return tuple(corrections.withdraw(database, rival.id, reviewer, reason=reason) for rival in rivals)


def approve_both_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Approve a correction and leave those it contradicts in force."""
    with database.write():
        must_stand(database, named.id, named.seen)
        return (approved(database, named.id, reviewer, form.get("reason", ""), anyway=True),)


def release_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Let a held correction be decided like any other; it goes on waiting."""
    with database.write():
        must_stand(database, named.id, named.seen)
        try:
            holds.release(database, named.id, reviewer)
        except NotAllowedError as error:
            raise NotAllowedError(str(error).replace(reviewer, "You", 1)) from error
        return (corrections.get(database, named.id),)


def approved(database: Database, number: int, reviewer: str, reason: str, *, anyway: bool = False) -> Correction:
    """An approved correction, its refusal put to the reviewer."""
    try:
        return corrections.approve(database, number, reviewer, reason=reason, anyway=anyway)
    except NotAllowedError as error:
        raise NotAllowedError(str(error).replace(reviewer, "You", 1)) from error
    except (ContradictionError, HeldError) as error:
        raise ConflictError(f"{error} Press \u201cLook closer\u201d to choose.") from error


def edit_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Reword a correction; it goes on waiting, with the conflicts of its new words."""
    with database.write():
        must_stand(database, named.id, named.seen)
        row = corrections.edit(database, named.id, reviewer, **texts_of(form))
        if named.reworded is not None:
            evidence.note_conflicts(database, named.id, named.reworded)
        return (row,)


def reject_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Refuse a correction with a reason."""
    with database.write():
        must_stand(database, named.id, named.seen)
        return (corrections.reject(database, named.id, reviewer, reason=reason_in(form)),)


def withdraw_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """Take an approved correction back with a reason; the next night forgets it."""
    with database.write():
        must_stand(database, named.id, named.seen)
        return (corrections.withdraw(database, named.id, reviewer, reason=reason_in(form)),)


def decide_row(database: Database, named: Named, reviewer: str, form: Form) -> Rows:
    """What was chosen in the modal with everything; new wording is stored with the decision or not at all."""
    acts: dict[str, Act] = {
        APPROVE: approve_row,
        REPLACE: approve_row,
        BOTH: approve_both_row,
        RELEASE: release_row,
        REJECT: reject_row,
    }
    chosen = form.get("decision", "")
    with database.write():
        must_stand(database, named.id, named.seen)
        row = corrections.get(database, named.id)
        if row.status is not Status.PENDING:
            return withdraw_row(database, named, reviewer, form)
        if chosen in (APPROVE, REPLACE, BOTH):
            must_be_known(database, named)
        gone = withdraw_rivals(database, named, reviewer) if chosen == REPLACE else ()
        if named.reworded is not None:
            row = edit_row(database, named, reviewer, form)[0]
        if chosen == SAVE:
            return (row,)
        return *acts[chosen](database, Named(named.id, evidence.stamp(row)), reviewer, form), *gone


def must_be_known(database: Database, named: Named) -> None:
    """Raise ConflictError when a correction contradicts in its new words what it did not contradict before."""
    known = [other for other, kind in evidence.conflicts_of(database, named.id) if kind == "contradiction"]
    new = [other for other, kind in named.reworded or () if kind == "contradiction" and other not in known]
    if new:
        raise ConflictError(
            f"In these words it contradicts {corrections.in_words(new)}. "
            f"Choose \u201c{review_views.SAVE_WORDS}\u201d first, then look closer and decide."
        )


def masked(database: Database, form: Form, contacts: Collection[str]) -> Form:
    """A form whose texts hold no personal data."""
    return form | {name: evidence.masked(database, form[name], contacts) for name in texts_of(form) if name in form}


def rewords(form: Form, row: Correction) -> bool:
    """Whether a form holds another wording than a correction, to be kept."""
    texts = texts_of(form)
    if "answer" not in form or form.get("decision") == REJECT:
        return False
    return (texts["question"].strip(), texts["answer"].strip()) != (row.question, row.answer)


def reason_in(form: Form) -> str:
    """The reason in a form. Raises UserError when there is none: the author is told it."""
    if not form.get("reason", "").strip():
        raise UserError("Please give a reason; the author reads it.")
    return form["reason"]


# --- telling everybody ---


async def announce(parts: Parts, changed: Rows, place: Place, seen: Body | None) -> None:
    """Show a decision on the cards and on the reviewer's Home if they came from there, and tell the authors."""
    for row in changed:
        dossier = await parts.stored(evidence.dossier, row.id)
        await delivery.update_cards(parts, row, review_views.conflicts_in(dossier))
    if not place.channel:
        await home.publish(parts, place.user, seen=seen)
    for row in changed:
        if safety.is_person(row.author) and row.status is not Status.PENDING and row.author != place.user:
            await delivery.tell(parts, Place(row.author), verdict(row))


def verdict(row: Correction) -> str:
    """What the author hears."""
    question = safety.plain(row.question, 200)
    if row.status is Status.APPROVED:
        return f"Your correction {row.id} was approved. From now on I answer \u201c{question}\u201d with it."
    why = f" Reason: {safety.plain(row.reason, 1000)}" if row.reason else ""
    return f"Your correction {row.id} (\u201c{question}\u201d) was {row.status.value}.{why}"
