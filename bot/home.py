"""App Home: what waits for review, what the last night changed, how well the bot does, which model serves.

It reads storage and publishes one view; what its buttons do is in `decisions` and `channels`.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from slack_sdk.errors import SlackApiError

from bot import blocks, safety
from bot.blocks import Block
from bot.delivery import Parts
from bot.teaching import Conflict
from storage import corrections, evidence, grounds, health, nights, registry
from storage.database import Database
from storage.domain import Correction, Memory, NightlyRun, Status
from storage.errors import ConflictError, UserError
from storage.grounds import Stale
from storage.health import Change, Day, Fate

PAGE = 5
MINE = 5
CHANGES = 12
STATES = {
    Status.PENDING: ":hourglass_flowing_sand: waiting for review",
    Status.APPROVED: ":white_check_mark: approved",
    Status.REJECTED: ":no_entry_sign: rejected",
    Status.WITHDRAWN: ":leftwards_arrow_with_hook: withdrawn",
    Status.SUPERSEDED: ":arrows_counterclockwise: replaced by a newer one",
}
OUTCOMES = {
    "promoted": "a new model was promoted",
    "kept_champion": "the candidate was kept out and the old model goes on",
    "nothing_to_learn": "there was nothing to learn",
    "failed": "the night failed and the old model goes on",
}
FATES = {
    Fate.LEARNT: "*learnt by heart*",
    Fate.KEPT: "still known by heart",
    Fate.NOT_LEARNT: "not learnt yet; it goes on as an approved answer",
    Fate.LOST: "no longer known by heart; it goes on as an approved answer",
    Fate.FORGOTTEN: "forgotten, because it was withdrawn or replaced",
    Fate.HELD_BACK: "trained, but the candidate was kept out; it goes on as an approved answer",
}
_publishing: "WeakValueDictionary[str, asyncio.Lock]" = WeakValueDictionary()


@dataclass(frozen=True)
class Pages:
    """Which pages of the two lists a person is looking at."""

    queue: int = 0
    approved: int = 0


@dataclass(frozen=True)
class Contents:
    """What one person's Home shows. `learnt` are the ids that the serving model holds in its weights."""

    version: str
    night: NightlyRun | None
    mine: tuple[Correction, ...]
    learnt: frozenset[int]
    proofs: Mapping[int, str] = field(default_factory=dict)
    pending: tuple[Correction, ...] = ()
    admin: bool = False
    approved: tuple[Correction, ...] = ()
    conflicts: Mapping[int, tuple[Conflict, ...]] = field(default_factory=dict)
    stale: Mapping[int, Stale] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    days: tuple[Day, ...] = ()
    champion: str = ""
    previous: str = ""


# --- showing it ---


async def publish(
    parts: Parts, user: str, *, seen: Mapping[str, Any] | None = None, pages: Pages | None = None
) -> None:
    """Show a person their Home; `seen` is the view they look at, whose pages stay turned.

    One at a time for each person, so that an older reading never replaces a newer one.
    """
    lock = _publishing.setdefault(user, asyncio.Lock())
    async with lock:
        view = await view_for(parts, user, pages or pages_of(seen))
        try:
            await parts.client.views_publish(user_id=user, view=view, hash=(seen or {}).get("hash"))
        except SlackApiError as error:
            if error.response.get("error") != "hash_conflict":
                raise
            await parts.client.views_publish(user_id=user, view=view)


async def view_for(parts: Parts, user: str, pages: Pages) -> Block:
    """What a person may see: members their Home, others the sentence that says why not."""
    try:
        await parts.people.must_be_member(user)
    except UserError as error:
        return {"type": "home", "blocks": [blocks.section(safety.clip(str(error), 2900))]}
    admin = await parts.people.is_admin(user)
    contents = await parts.stored(gather, user, admin=admin, version=parts.desk.version)
    return home_view(contents, pages)


def pages_of(seen: Mapping[str, Any] | None) -> Pages:
    """The pages that a Home view shows."""
    try:
        told = json.loads((seen or {}).get("private_metadata") or "{}")
        return Pages(int(told.get("queue", 0)), int(told.get("approved", 0)))
    except (ValueError, AttributeError, TypeError):
        return Pages()


async def replace_modal(parts: Parts, body: Mapping[str, Any], view: Block) -> None:
    """Replace the open modal of a click. Raises ConflictError when it changed since."""
    seen = body["view"]
    try:
        await parts.client.views_update(view_id=seen["id"], hash=seen["hash"], view=view)
    except SlackApiError as error:
        if error.response.get("error") in ("hash_conflict", "not_found"):
            raise ConflictError("This form changed meanwhile; please choose again.") from error
        raise


# --- reading it ---


def gather(database: Database, user: str, *, admin: bool, version: str) -> Contents:
    """Read everything for one person's Home."""
    everything = corrections.in_status(database)
    memories = registry.memories(database, version)
    night = nights.latest(database)
    pending = tuple(row for row in everything if row.status is Status.PENDING) if admin else ()
    return Contents(
        version=version,
        night=night,
        mine=tuple(reversed([row for row in everything if row.author == user]))[:MINE],
        learnt=frozenset(i for i, memory in memories.items() if memory.memorised),
        proofs=proofs(database, version, memories),
        pending=pending,
        admin=admin,
        approved=tuple(row for row in everything if row.status is Status.APPROVED) if admin else (),
        conflicts={row.id: conflicts(database, row) for row in pending},
        stale=grounds.stale(database) if admin else {},
        changes=health.fates(database, night) if night else (),
        days=health.week(database) if admin else (),
        champion=registry.alias(database, "champion") or "",
        previous=registry.alias(database, "previous") or "",
    )


def proofs(database: Database, version: str, memories: Mapping[int, Memory]) -> dict[int, str]:
    """What the exam of the serving model measured of each correction, in words."""
    since = registry.since(database, version)
    return {
        i: evidence.proof_in_words(
            {"version": version, "memorised": memory.memorised, "since": since.get(i), **memory.proof}
        )
        for i, memory in memories.items()
    }


def conflicts(database: Database, row: Correction) -> tuple[Conflict, ...]:
    """What a correction was found to contradict or repeat, as those rows stand now."""
    found = evidence.conflicts_of(database, row.id)
    rows = [(corrections.get(database, other), kind) for other, kind in found]
    return tuple(
        Conflict(other.id, other.question, other.answer, kind, other.scope)
        for other, kind in rows
        if other.status in (Status.PENDING, Status.APPROVED)
    )


# --- the view ---


def home_view(contents: Contents, pages: Pages | int = 0) -> Block:
    """The view of App Home; a number turns the queue to that page."""
    pages = Pages(pages) if isinstance(pages, int) else pages
    shown = [
        blocks.header("Nightshift"),
        blocks.section("Write to me, mention me in a channel, or type `/ask`. Correct me, and I learn it overnight."),
        blocks.context(state_line(contents)),
    ]
    if contents.admin:
        shown += [tools(contents), blocks.divider(), *queue(contents, pages.queue)]
    shown += [blocks.divider(), *my_corrections(contents), *last_night(contents)]
    if contents.admin:
        shown += [blocks.divider(), *figures(contents.days)]
        shown += [blocks.divider(), *approved_answers(contents, pages.approved)]
    metadata = json.dumps({"queue": pages.queue, "approved": pages.approved})
    return {"type": "home", "private_metadata": metadata, "blocks": shown}


def state_line(contents: Contents) -> str:
    """Which model serves, and how the last night ended."""
    night, serving = contents.night, f"Model {safety.inline(contents.version, 60)}"
    if contents.champion not in ("", contents.version):
        serving += f" (changing to {safety.inline(contents.champion, 60)})"
    if night is None:
        return f"{serving} · no night has run yet"
    outcome = OUTCOMES.get(night.outcome, safety.inline(night.outcome, 80))
    why = f" ({safety.inline(night.reason, 300)})" if night.reason else ""
    return f"{serving} · last night, {night.finished_at[:10]}: {outcome}{why}"


def tools(contents: Contents) -> Block:
    """What admins can do: change a channel's settings, put the previous model back."""
    buttons = [blocks.button("Channel settings", "channel_settings", "open")]
    if contents.champion and contents.previous:
        new, old = safety.plain(contents.champion, 60), safety.plain(contents.previous, 60)
        sure = f"{old} will serve again and {new} no longer. What was learnt since then goes on as approved answers."
        buttons.append(blocks.button("Roll back", "rollback", contents.champion, "danger", confirm=sure))
    return blocks.actions(*buttons)


# --- lists ---


def queue(contents: Contents, page: int) -> list[Block]:
    """One page of the corrections that wait for a decision."""
    pending = contents.pending
    if not pending:
        return [blocks.section("*To review*\nNothing waits for you.")]
    page, last = turned(len(pending), page)
    shown = [blocks.section(f"*To review: {len(pending)}*")]
    for row in pending[page * PAGE : (page + 1) * PAGE]:
        against = contents.conflicts.get(row.id, ())
        text = f"{safety.bold(row.question, 600)}\n{safety.clip(row.answer, 1200)}"
        shown += [
            blocks.section(text, blocks.closer_look(row)),
            *(blocks.versus(row, conflict) for conflict in against[:1]),
            blocks.context(blocks.card_line(row)),
            blocks.actions(*blocks.review_buttons(row, against)),
        ]
    return [*shown, *turning("home_page", page, last)]


def approved_answers(contents: Contents, page: int) -> list[Block]:
    """One page of the approved answers, stale ones first, then newest first, each with the way to withdraw it."""
    rows = tuple(sorted(contents.approved, key=lambda row: (row.id not in contents.stale, -row.id)))
    if not rows:
        return [blocks.section("*Approved answers*\nNone yet.")]
    page, last = turned(len(rows), page)
    shown = [blocks.section(f"*Approved answers: {len(rows)}*")]
    for row in rows[page * PAGE : (page + 1) * PAGE]:
        state = "learnt by heart" if row.id in contents.learnt else "answered word for word"
        if row.id in contents.proofs:
            state += f": {safety.inline(contents.proofs[row.id], 300)}"
        if row.id in contents.stale:
            state = f"out of date: {safety.inline(contents.stale[row.id].in_words, 200)}; documents answer for now"
        text = f"{safety.bold(row.question)}\n{safety.inline(row.answer, 300)}\n_{state}_"
        shown.append(blocks.section(text, blocks.closer_look(row)))
    return [*shown, *turning("home_approved", page, last)]


def turned(length: int, page: int) -> tuple[int, int]:
    """The page that can be shown, and the last one."""
    last = (length - 1) // PAGE
    return max(0, min(page, last)), last


def turning(action: str, page: int, last: int) -> list[Block]:
    """The buttons that turn pages; each action id may stand once in a row."""
    turns = [blocks.button("Earlier", action, str(page - 1))] if page > 0 else []
    if page < last:
        turns.append(blocks.button("Later", action, str(page + 1)))
    if not turns:
        return []
    return [blocks.context(f"Page {page + 1} of {last + 1}"), *(blocks.actions(turn) for turn in turns)]


def my_corrections(contents: Contents) -> list[Block]:
    """The person's own corrections, newest first, and what became of them."""
    if not contents.mine:
        return [blocks.section("*My corrections*\nNone yet. Press the thumb down under an answer to write the first.")]
    lines = [blocks.section("*My corrections*")]
    for row in contents.mine:
        state = STATES[row.status] + (", learnt by heart" if row.id in contents.learnt else "")
        why = f": {safety.inline(row.reason)}" if row.reason else ""
        waits = row.status is Status.PENDING
        back = blocks.button("Take back", "take_back", str(row.id), confirm="Nobody will review it then.")
        lines.append(blocks.section(f"{safety.bold(row.question)}\n{state}{why}", back if waits else None))
    return lines


def last_night(contents: Contents) -> list[Block]:
    """What the last night made of each correction."""
    if not contents.changes:
        return []
    order = list(FATES)
    changes = sorted(contents.changes, key=lambda c: (c.fate is Fate.KEPT, order.index(c.fate), c.correction.id))
    lines = [f"{safety.bold(c.correction.question, 150)}: {FATES[c.fate]}" for c in changes[:CHANGES]]
    if len(changes) > CHANGES:
        lines.append(f"and {len(changes) - CHANGES} more")
    pieces = ["\n".join(lines[i : i + 6]) for i in range(0, len(lines), 6)]
    return [blocks.divider(), blocks.section("*What changed last night*"), *(blocks.section(p) for p in pieces)]


# --- figures ---


def figures(days: Sequence[Day]) -> list[Block]:
    """How well the bot does: the week in one line of words, and a table by day."""
    if not days:
        return []
    week = health.together(days)
    told = [
        f"*Recall* {per_cent(week.recall)}",
        f"*Wrong* {per_cent(week.wrong_rate)}",
        f"*Coverage* {per_cent(week.coverage)}",
        f"*Satisfaction* {out_of_five(week.satisfaction)}",
        f"*p95* {seconds(week.p95_ms)}",
        f"*Votes* {week.up + week.down}",
    ]
    return [blocks.section(f"*Health, {len(days)} days*", fields=told), blocks.section(table(days))]


def table(days: Sequence[Day]) -> str:
    """The figures by day, in columns."""
    lines = ["day    asked  known  wrong   1-5     p95 recall"]
    lines += [
        f"{d.date[5:]:<6} {d.asked:>5} {per_cent(d.coverage):>6} {per_cent(d.wrong_rate):>6} "
        f"{out_of_five(d.satisfaction):>5} {seconds(d.p95_ms):>7} {per_cent(d.recall):>6}"
        for d in days
    ]
    return "```\n" + "\n".join(lines) + "\n```"


def per_cent(share: float | None) -> str:
    """A share in words; a dash where nothing was measured."""
    return "-" if share is None else f"{share:.0%}"


def out_of_five(value: float | None) -> str:
    """A satisfaction in words."""
    return "-" if value is None else f"{value:.1f}"


def seconds(milliseconds: float | None) -> str:
    """A duration in words."""
    return "-" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
