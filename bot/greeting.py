"""The agent view: a greeting for whoever opens it the first time, and what others ask often as suggestions.

Suggestions come from our own log, but never in words that only one person used. It knows nothing of answers.
"""

import logging
from datetime import UTC, datetime, timedelta

from bot import blocks, safety
from bot.blocks import Post
from bot.delivery import UNREACHABLE, Parts, send
from storage import asked, conversations, corrections
from storage.database import Database
from storage.domain import WORKSPACE, Status

log = logging.getLogger(__name__)

LOOK_BACK = timedelta(days=60)
MOST = 4
TITLE = "Others ask me"
FIRST_QUESTIONS = (
    "How many days of leave do I have?",
    "Who is on call and how do I reach them?",
    "What do I do with a suspicious e-mail?",
    "How do I get a new laptop?",
)
GREETING = (
    "*Hello, I am Nightshift.* Ask me how things work in this company. Every answer says where it comes from and how "
    "sure I am; when I do not know, I say so.\n"
    "If I am wrong, press the thumb down and write the better answer. Once a reviewer has approved it I use it at "
    "once, and overnight I learn it by heart."
)


async def welcome(parts: Parts, user: str, channel: str) -> None:
    """Greet a person once, and suggest what to ask. Raises NotAllowedError for guests."""
    await parts.people.must_be_member(user)
    if await parts.stored(conversations.first_time, f"greeting:{user}"):
        await send(parts, channel, Post("Hello, I am Nightshift.", (blocks.section(GREETING),)))
    await suggest(parts, channel)


async def suggest(parts: Parts, channel: str) -> None:
    """Suggest four questions in a new conversation."""
    questions = await parts.stored(suggestions)
    prompts = [{"title": safety.plain(q, 75), "message": safety.plain(q, 300)} for q in questions]
    try:
        await parts.client.assistant_threads_setSuggestedPrompts(channel_id=channel, title=TITLE, prompts=prompts)
    except UNREACHABLE as error:
        log.info("no prompts were suggested: %s", error)


def suggestions(database: Database) -> tuple[str, ...]:
    """What is asked often, then what was taught last, then what a handbook answers."""
    since = (datetime.now(UTC) - LOOK_BACK).isoformat(timespec="seconds")
    often = [q for q in asked.often(database, since, MOST) if not safety.find_secrets(q)]
    taught = [r.question for r in corrections.in_status(database, Status.APPROVED) if r.scope == WORKSPACE]
    return tuple(dict.fromkeys([*often, *reversed(taught[-2:]), *FIRST_QUESTIONS]))[:MOST]
