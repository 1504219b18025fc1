"""App Home: what waits for review, what became of one's corrections, which model serves, how the night went.

It reads storage and publishes one view; what its buttons do is in `reviews`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from slack_sdk.errors import SlackApiError

from bot import blocks, safety
from bot.blocks import Block
from bot.delivery import Parts
from storage import corrections, nights, registry
from storage.database import Database
from storage.domain import WORKSPACE, Correction, NightlyRun, Status

log = logging.getLogger(__name__)

PAGE = 5
MINE = 5
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
PROMPTS = (
    "How many days of leave do I have?",
    "Who is on call and how do I reach them?",
    "What do I do with a suspicious e-mail?",
    "How do I get a new laptop?",
)


@dataclass(frozen=True)
class Contents:
    """What one person's Home shows. `learnt` are the ids that the serving model holds in its weights."""

    version: str
    night: NightlyRun | None
    mine: tuple[Correction, ...]
    learnt: frozenset[int]
    pending: tuple[Correction, ...] = ()
    admin: bool = False


async def publish(parts: Parts, user: str, page: int = 0) -> None:
    """Show a person their Home."""
    contents = await parts.stored(gather, user, admin=parts.is_admin(user), version=parts.desk.version)
    await parts.client.views_publish(user_id=user, view=home_view(contents, page))


def gather(database: Database, user: str, *, admin: bool, version: str) -> Contents:
    """Read everything for one person's Home."""
    everything = corrections.in_status(database)
    memories = registry.memories(database, version)
    return Contents(
        version=version,
        night=nights.latest(database),
        mine=tuple(reversed([row for row in everything if row.author == user]))[:MINE],
        learnt=frozenset(i for i, memory in memories.items() if memory.memorised),
        pending=tuple(row for row in everything if row.status is Status.PENDING) if admin else (),
        admin=admin,
    )


def home_view(contents: Contents, page: int = 0) -> Block:
    """The view of App Home."""
    shown = [
        blocks.header("Nightshift"),
        blocks.section(
            "Write to me, mention me in a channel, or type `/ask`. Correct me, and I learn it overnight."
        ),
        blocks.context(state_line(contents)),
    ]
    if contents.admin:
        shown += [blocks.divider(), *queue(contents.pending, page)]
    shown += [blocks.divider(), *my_corrections(contents)]
    return {"type": "home", "blocks": shown}


def state_line(contents: Contents) -> str:
    """Which model serves, and how the last night ended."""
    night = contents.night
    if night is None:
        return f"Model {safety.inline(contents.version, 60)} · no night has run yet"
    outcome = OUTCOMES.get(night.outcome, safety.inline(night.outcome, 80))
    why = f" ({safety.inline(night.reason, 300)})" if night.reason else ""
    return (
        f"Model {safety.inline(contents.version, 60)} · last night, {night.finished_at[:10]}: {outcome}{why}"
    )


def queue(pending: Sequence[Correction], page: int) -> list[Block]:
    """One page of the corrections that wait for a decision."""
    if not pending:
        return [blocks.section("*To review*\nNothing waits for you.")]
    last = (len(pending) - 1) // PAGE
    page = max(0, min(page, last))
    shown = [blocks.section(f"*To review: {len(pending)}*")]
    for row in pending[page * PAGE : (page + 1) * PAGE]:
        shown += [
            blocks.section(f"{safety.bold(row.question, 600)}\n{safety.clip(row.answer, 1200)}"),
            blocks.context(blocks.card_line(row)),
            blocks.actions(*blocks.review_buttons(row)),
        ]
    turns = [blocks.button("Earlier", "home_page", str(page - 1))] if page > 0 else []
    if page < last:
        turns.append(blocks.button("Later", "home_page", str(page + 1)))
    return [*shown, *turning(turns, page, last)]


def turning(turns: list[Any], page: int, last: int) -> list[Block]:
    """The buttons that turn pages; each action id may stand once in a row."""
    if not turns:
        return []
    return [blocks.context(f"Page {page + 1} of {last + 1}"), *(blocks.actions(turn) for turn in turns)]


def my_corrections(contents: Contents) -> list[Block]:
    """The person's own corrections, newest first, and what became of them."""
    if not contents.mine:
        return [
            blocks.section(
                "*My corrections*\nNone yet. Press the thumb down under an answer to write the first."
            )
        ]
    lines = [blocks.section("*My corrections*")]
    for row in contents.mine:
        state = STATES[row.status] + (", learnt by heart" if row.id in contents.learnt else "")
        why = f": {safety.inline(row.reason)}" if row.reason else ""
        lines.append(blocks.section(f"{safety.bold(row.question)}\n{state}{why}"))
    return lines


async def suggest(parts: Parts, channel: str) -> None:
    """Suggest what to ask in a new conversation: what was taught last, else some first questions."""
    questions = await parts.stored(taught_lately)
    prompts = [{"title": safety.plain(q, 75), "message": safety.plain(q, 300)} for q in questions]
    try:
        await parts.client.assistant_threads_setSuggestedPrompts(
            channel_id=channel, title="Ask me, for example", prompts=prompts
        )
    except SlackApiError as error:
        log.info("no prompts were suggested: %s", error)


def taught_lately(database: Database) -> tuple[str, ...]:
    """Up to four questions that surely have an answer, filled up with some that a handbook answers."""
    approved = [
        row.question for row in corrections.in_status(database, Status.APPROVED) if row.scope == WORKSPACE
    ]
    return tuple(dict.fromkeys([*reversed(approved[-2:]), *PROMPTS]))[:4]
