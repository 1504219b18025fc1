"""How words reach people: posts, whispers, review cards, and the notices that a night leaves behind.

Every post goes through here: nothing is ever unfurled, and nothing is lost because a block was refused.
It knows nothing of events: who asked what, and why something is said, is the listeners' affair.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
)
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot import blocks, review_views, safety
from bot.admins import People
from bot.asking import Asked
from bot.blocks import Post
from bot.pace import Pace, note_refusal
from bot.streaming import Limiter
from bot.teaching import Conflict, Proposal
from storage import conversations, corrections, evidence, holds, nights, registry
from storage.database import Database
from storage.domain import Answer, Correction, Notice, Status
from storage.errors import BusyError, NotAllowedError, NotFoundError, UserError
from storage.settings import Settings

log = logging.getLogger(__name__)

BROKEN = "Something went wrong on my side. It is noted in the log; please try again in a moment."
CHART_IN_WORDS = "Questions a day, rates a day, and the gates of the night; the report above says the same in words."
NO_CHART = "The chart could not be uploaded; `nightshift report` draws it again, and the text above holds its figures."
COURIER_SECONDS = 2.0
LONGEST_PAUSE = 600.0
"""A notice or a card that Slack refuses is tried again after 2, 4, 8 ... and at most this many seconds."""
CARDS_AT_ONCE = 2
"""Review cards that one delivery posts; a channel takes a message a second:
https://docs.slack.dev/apis/web-api/rate-limits"""
UNTAUGHT = "correction"
"""The kind of a notice to the bot itself: a correction that the desk has not stored yet."""
REPORTS = ("nightly_report", "weekly_report")
"""Of these only the latest is news."""
NOT_THERE = ("user_not_found", "user_disabled", "cannot_dm_bot")
"""What Slack says of somebody who can never be reached."""
UNREACHABLE = (SlackApiError, aiohttp.ClientError, OSError, TimeoutError)
"""What a call to Slack raises when Slack refuses it or cannot be reached."""

P = ParamSpec("P")
T = TypeVar("T")


class Answering(Protocol):
    """The part of the desk that Slack needs."""

    @property
    def version(self) -> str:
        """The model version that serves."""
        ...

    def submit(self, asked: Asked) -> "Future[Answer]":
        """Queue a question; cancelling the future ends the work on it."""
        ...

    def place(self, ticket: "Future[Any]") -> int:
        """How many are answered before it, itself counted; 0 when it does not wait any more."""
        ...

    def teach(self, **proposal: Any) -> "Future[Proposal]":
        """Queue a correction."""
        ...


@dataclass
class Courier:
    """What is remembered between attempts.

    That is what Slack accepted, the `notices` and the `cards` by correction; which corrections are known to be
    `carded`, their card noted in the database; and when to try again what failed, and the next pause.
    """

    notices: set[int] = field(default_factory=set)
    cards: dict[int, tuple[str, str]] = field(default_factory=dict)
    carded: set[int] = field(default_factory=set)
    posting: asyncio.Lock = field(default_factory=asyncio.Lock)
    pauses: dict[str, tuple[float, float]] = field(default_factory=dict)

    def may(self, what: str) -> bool:
        """Whether something need not wait for another attempt."""
        return time.monotonic() >= self.pauses.get(what, (0.0, 0.0))[0]

    async def attempt(self, what: str, work: Awaitable[None]) -> None:
        """Do something that never fails: it is logged, and waits twice as long as the last time."""
        try:
            await work
        except Exception as error:
            log.warning("%s is not delivered yet: %s", what, error)
            _, pause = self.pauses.get(what, (0.0, COURIER_SECONDS))
            self.pauses[what] = (time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE))


@dataclass
class Parts:
    """What every listener works with."""

    database: Database
    settings: Settings
    desk: Answering
    client: AsyncWebClient
    team: str = ""
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    answering: dict[tuple[str, str], "asyncio.Task[None]"] = field(default_factory=dict)
    deleted: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=1000))
    talks: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    streams: Limiter = field(default_factory=Limiter)
    courier: Courier = field(default_factory=Courier)
    people: People = field(init=False)
    questions: Pace = field(init=False)
    teaching: Pace = field(init=False)

    def __post_init__(self) -> None:
        """Ask this very client who people are, and count by the limits of the settings."""
        self.people = People(self.client, self.settings)
        self.questions = Pace(self.settings.integer("QUESTIONS_PER_MINUTE"), "questions")
        self.teaching = Pace(self.settings.integer("TEACHING_PER_MINUTE"), "votes and corrections")

    async def keep_pace(self, pace: Pace, user: str) -> None:
        """Count what a person does; a refusal is logged. Raises BusyError when it is too much for a minute."""
        try:
            pace.take(user)
        except BusyError:
            await self.stored(note_refusal, user, pace.what)
            raise

    async def stored(self, function: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of `storage` off the event loop: a disk must not delay an acknowledgement."""
        return await asyncio.to_thread(function, self.database, *args, **kwargs)

    def begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Go on with something after the acknowledgement."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a defect before anybody could be told", exc_info=task.exception())


@dataclass(frozen=True)
class Place:
    """Where somebody is to be answered. `hook` is a response address; `trigger` opens a modal within 3 s."""

    user: str
    channel: str = ""
    thread: str = ""
    hook: str = ""
    trigger: str = ""
    public: bool = False


# --- sending ---


async def send(parts: Parts, channel: str, post: Post, thread: str = "") -> tuple[str, str]:
    """Post a message; returns Slack's (channel, ts). Blocks that Slack refuses are replaced by text."""
    where: dict[str, Any] = {"channel": channel, "unfurl_links": False, "unfurl_media": False}
    if thread:
        where["thread_ts"] = thread
    try:
        sent = await parts.client.chat_postMessage(**where, text=post.text, blocks=list(post.blocks))
    except SlackApiError as error:
        if error.response.get("error") not in (
            "invalid_blocks",
            "invalid_blocks_format",
            "msg_blocks_too_long",
        ):
            raise
        log.exception("Slack refused the blocks of a message; it goes out as plain text")
        for piece in safety.split(bare(post), 3500):
            sent = await parts.client.chat_postMessage(**where, text=piece)
    return str(sent["channel"]), str(sent["ts"])


def bare(post: Post) -> str:
    """The text of a post without its blocks' form."""
    shown = [b["text"]["text"] for b in post.blocks if b["type"] == "section" and "text" in b]
    return "\n".join(shown) or post.text


async def tell(parts: Parts, place: Place, text: str) -> None:
    """Say one of our sentences to one person where they are; never fails, at worst it is only logged."""
    await say(parts, place, (blocks.sentence(text),))


async def say(parts: Parts, place: Place, posts: Sequence[Post]) -> None:
    """Say something where a person is: in the thread, ephemerally, in a modal, or as a direct message."""
    for way in ways(place):
        try:
            for post in posts:
                await way(parts, place, post)
            return
        except (*UNREACHABLE, ValueError) as error:
            log.warning("could not reach %s by %s: %s", place.user, way.__name__, error)


def ways(place: Place) -> list[Callable[[Parts, Place, Post], Awaitable[None]]]:
    """How to reach somebody, best first."""
    if place.public:
        return [aloud]
    found: list[Callable[[Parts, Place, Post], Awaitable[None]]] = []
    if place.hook:
        found.append(by_hook)
    if place.channel:
        found.append(whisper)
    if place.trigger and not place.channel:
        found.append(by_modal)
    return [*found, directly] if place.user else found


async def aloud(parts: Parts, place: Place, post: Post) -> None:
    """In the thread, for everybody."""
    await send(parts, place.channel, post, place.thread)


async def whisper(parts: Parts, place: Place, post: Post) -> None:
    """In the channel, for one person."""
    await parts.client.chat_postEphemeral(
        channel=place.channel,
        user=place.user,
        thread_ts=place.thread or None,
        text=post.text,
        blocks=list(post.blocks),
    )


async def by_hook(parts: Parts, place: Place, post: Post) -> None:
    """Through the address that came with a command or a click. Raises ValueError when it is refused."""
    hook = AsyncWebhookClient(
        place.hook, session=parts.client.session, proxy=parts.client.proxy, retry_handlers=retries()
    )
    sent = await hook.send(
        text=post.text,
        blocks=list(post.blocks),
        response_type="ephemeral",
        replace_original=False,
        unfurl_links=False,
        unfurl_media=False,
    )
    if sent.status_code != 200:
        raise ValueError(f"the response address answered {sent.status_code}")


async def by_modal(parts: Parts, place: Place, post: Post) -> None:
    """In a small modal: for a click on App Home, where no message can be shown."""
    await parts.client.views_open(trigger_id=place.trigger, view=blocks.notice_modal(bare(post)))


async def directly(parts: Parts, place: Place, post: Post) -> None:
    """As a direct message."""
    await send(parts, await direct_channel(parts, place.user), post)


async def direct_channel(parts: Parts, user: str) -> str:
    """The channel of the direct messages with a person."""
    opened = await parts.client.conversations_open(users=[user])
    return str(opened["channel"]["id"])


def retries() -> list[Any]:
    """Retry when the connection breaks, and wait as long as Slack says when it is asked too often."""
    return [
        AsyncConnectionErrorRetryHandler(max_retry_count=2),
        AsyncRateLimitErrorRetryHandler(max_retry_count=3),
    ]


async def guarded(parts: Parts, place: Place, work: Awaitable[None]) -> None:
    """Do something for a person; whatever happens they hear of it, and a defect's traceback is logged."""
    try:
        await work
    except NotAllowedError as error:
        await tell(parts, place if place.channel.startswith("D") else replace(place, public=False), str(error))
    except UserError as error:
        await tell(parts, place, str(error))
    except Exception:
        log.exception("a defect while working for %s in %s", place.user, place.channel or "App Home")
        await tell(parts, place, BROKEN)


# --- review cards ---


async def try_card(parts: Parts, correction_id: int) -> None:
    """Put a correction with its conflicts before the reviewers; what fails is tried again by the courier."""

    async def post() -> None:
        dossier = await parts.stored(evidence.dossier, correction_id)
        await post_card(parts, dossier.row, review_views.conflicts_in(dossier))

    await parts.courier.attempt(card_name(correction_id), post())


def card_name(correction_id: int) -> str:
    """What the courier calls the card of a correction."""
    return f"the card of correction {correction_id}"


async def post_card(parts: Parts, row: Correction, conflicts: Sequence[Conflict] = ()) -> None:
    """Put a correction before the reviewers, once. Without a review channel it waits in App Home."""
    channel, cards = parts.settings.text("REVIEW_CHANNEL"), parts.courier.cards
    if not channel:
        return
    async with parts.courier.posting:  # the courier and whoever takes a correction may come at the same time
        if await parts.stored(conversations.posts_of, correction_id=row.id):
            return
        if row.id not in cards:
            cards[row.id] = await send(parts, channel, await card(parts, row, conflicts))
        where, ts = cards[row.id]
        await parts.stored(conversations.remember_post, where, ts, correction_id=row.id)
    now = await parts.stored(corrections.get, row.id)
    if now != row:  # decided meanwhile: that decision found no card to show itself on
        await update_cards(parts, now, conflicts)


async def update_cards(parts: Parts, row: Correction, conflicts: Sequence[Conflict] = ()) -> None:
    """Show the new state of a correction on every card of it."""
    post = await card(parts, row, conflicts)
    for where in await parts.stored(conversations.posts_of, correction_id=row.id):
        try:
            await parts.client.chat_update(
                channel=where["channel"],
                ts=where["ts"],
                text=post.text,
                blocks=list(post.blocks),
                parse="none",
                link_names=False,
            )
        except SlackApiError as error:
            log.warning("the card of correction %s could not be updated: %s", row.id, error)


async def card(parts: Parts, row: Correction, conflicts: Sequence[Conflict]) -> Post:
    """The review card of a correction as it stands now."""

    def gather(database: Database) -> tuple[str, dict[str, Any] | None, tuple[int, ...]]:
        given = conversations.get_answer(database, row.answer_id).text if row.answer_id else ""
        return given, registry.proof(database, row.id), holds.alike(database, row.id)

    given, proof, held_with = await parts.stored(gather)
    return blocks.review_card(row, conflicts, given=given, proof=proof, held_with=held_with)


# --- notices ---


async def deliver_forever(parts: Parts) -> None:
    """Every two seconds, deliver what the nights left and the cards that nobody posted, until Slack accepts them."""
    while True:
        try:
            await deliver_owed(parts)
            await deliver_cards(parts)
        except Exception:
            log.exception("the notices and the missing cards could not be read")
        await asyncio.sleep(COURIER_SECONDS)


async def deliver_owed(parts: Parts) -> None:
    """Deliver every notice to people that is due."""
    courier, owed = parts.courier, await parts.stored(nights.owed)
    if lapsed := overtaken(owed) - courier.notices:
        log.info("the reports of notices %s lapse: there are later ones", sorted(lapsed))
        courier.notices |= lapsed
    for notice in owed:
        what = f"notice {notice.id} for {notice.user!r}"
        if notice.kind != UNTAUGHT and courier.may(what):
            await courier.attempt(what, deliver_once(parts, notice))


def overtaken(owed: Sequence[Notice]) -> set[int]:
    """The reports that a later one of their kind overtook."""
    latest = {notice.kind: notice.id for notice in owed if notice.kind in REPORTS}
    return {notice.id for notice in owed if notice.id < latest.get(notice.kind, 0)}


async def deliver_once(parts: Parts, notice: Notice) -> None:
    """Send a notice that Slack has not accepted yet, and note that it is delivered: a full disk repeats only the note.

    Raises what sending and noting raise.
    """
    if notice.id not in parts.courier.notices:
        await deliver(parts, notice)
        parts.courier.notices.add(notice.id)
    await parts.stored(nights.delivered, notice.id)


async def deliver_cards(parts: Parts) -> None:
    """Post a few of the review cards that are missing: Slack refused them, or the command line proposed."""
    if parts.settings.text("REVIEW_CHANNEL"):
        for number in await parts.stored(without_card, parts.courier):
            await try_card(parts, number)


def without_card(database: Database, courier: Courier) -> list[int]:
    """The first few corrections that wait for a decision, have no card, and need not wait for another attempt."""
    found = list[int]()
    for row in corrections.in_status(database, Status.PENDING):
        if len(found) == CARDS_AT_ONCE:
            break
        if row.id in courier.carded or not courier.may(card_name(row.id)):
            continue
        if conversations.posts_of(database, correction_id=row.id):
            courier.carded.add(row.id)
        else:
            found.append(row.id)
    return found


async def deliver(parts: Parts, notice: Notice) -> None:
    """Send one notice, unless it is for nobody in Slack. Raises UserError without a review channel to send it to."""
    channel = await channel_of(parts, notice)
    if not channel:
        log.warning("notice %s lapses: %r cannot be reached in Slack", notice.id, notice.user)
        return
    for post in blocks.longer(await notice_text(parts, notice)):
        await send(parts, channel, post)
    if notice.payload.get("chart"):
        await show_chart(parts, channel, str(notice.payload["chart"]))


async def channel_of(parts: Parts, notice: Notice) -> str:
    """Where a notice goes; empty for somebody who is not in Slack. Raises UserError when there is no review channel."""
    if not notice.user:
        if channel := parts.settings.text("REVIEW_CHANNEL"):
            return channel
        raise UserError("there is no review channel; set NIGHTSHIFT_REVIEW_CHANNEL")
    if not safety.is_person(notice.user):
        return ""
    try:
        return await direct_channel(parts, notice.user)
    except SlackApiError as error:
        if error.response.get("error") in NOT_THERE:
            return ""
        raise


async def show_chart(parts: Parts, channel: str, name: str) -> None:
    """Upload the chart of a report; says in words where it is when that fails, and never fails itself."""
    chart = parts.database.home / "reports" / Path(name).name
    try:
        picture = await asyncio.to_thread(chart.read_bytes)
        await parts.client.files_upload_v2(
            channel=channel, content=picture, filename=chart.name, title="The week in figures", alt_txt=CHART_IN_WORDS
        )
    except Exception as error:
        log.warning("the chart %s could not be uploaded: %s", chart, error)
        await tell_channel(parts, channel, NO_CHART)


async def tell_channel(parts: Parts, channel: str, text: str) -> None:
    """Say one of our sentences in a channel; at worst it is only logged."""
    try:
        await send(parts, channel, blocks.sentence(text))
    except UNREACHABLE as error:
        log.warning("could not tell %s: %s", channel, error)


async def notice_text(parts: Parts, notice: Notice) -> str:
    """What a notice says."""
    payload = notice.payload
    if notice.kind != "fix_live":
        return str(payload.get("text", ""))
    version, question = payload.get("version", ""), payload.get("question", "")
    text = f"Your fix is live: I learned it in the night ({version}).\n\n**{question}**"
    try:
        row = await parts.stored(corrections.get, int(payload["correction_id"]))
    except (KeyError, ValueError, NotFoundError):
        return text
    return f"{text}\n{row.answer}"
