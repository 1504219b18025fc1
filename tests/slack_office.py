"""An office to test in: the local workspace, the bot on its real socket, and a scripted desk for the models."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from bot import home
from bot.app import SlackBot
from bot.desk import Asked
from bot.teaching import Conflict, Proposal
from bot.workspace import rules
from bot.workspace.server import Workspace
from storage import conversations, corrections, evidence, settings
from storage.database import Database
from storage.domain import Answer, Route, Source, Style
from storage.errors import UserError
from storage.settings import Settings

SAM, PRIYA, HELP, REVIEW = "U0SAM", "U0PRIYA", "C0HELP", "C0REVIEW"
LEAVE = Source("Leave", "Annual leave", "https://handbook.example/leave", 0.9)
Change = dict[str, Any]
PATIENCE = 30
"""Seconds until what has to appear counts as missing; on a busy machine much of it is waiting for a processor."""
NO_PACE = {"QUESTIONS_PER_MINUTE": 0, "TEACHING_PER_MINUTE": 0}
"""Settings under which one person may do as much as they like."""


class ScriptedDesk:
    """Answers from a queue; a UserError in it is raised at once, another exception fails the future."""

    version = "v-test"

    def __init__(self, database: Database) -> None:
        self.database = database
        self.script: list[Change | Exception] = []
        self.asked: list[Asked] = []
        self.conflicts: tuple[Conflict, ...] = ()
        self.rivals: tuple[Conflict, ...] | None = None
        """The conflicts of a correction in new words; None: the same as in the old ones."""
        self.hold: Future[Answer] | None = None
        self.given: list[Future[Answer]] = []

    def submit(self, asked: Asked) -> "Future[Answer]":
        step = self.script.pop(0) if self.script else {}
        if isinstance(step, UserError):
            raise step
        self.asked.append(asked)
        future: Future[Answer] = Future()
        self.given.append(future)
        if self.hold is not None:
            self.hold.add_done_callback(lambda _: future.cancel())
            return future
        if isinstance(step, Exception):
            future.set_exception(step)
        else:
            future.set_result(self.reply(asked, step))
        return future

    def place(self, ticket: "Future[Any]") -> int:
        waiting = [one for one in self.given if not one.done()]
        return waiting.index(ticket) + 1 if ticket in waiting else 0

    def reply(self, asked: Asked, change: Change) -> Answer:
        place = {"user": asked.user, "channel": asked.channel, "thread": asked.thread}
        question = conversations.ask(self.database, asked.text, **place)
        given = {
            "text": "Twenty-eight days.",
            "route": Route.RETRIEVED,
            "style": Style.GENERATED,
            "sources": (LEAVE,),
        }
        answer = Answer(question.id, confidence=0.9, model_version="v-test", **given | change)
        return replace(answer, id=conversations.answer(self.database, answer))

    def teach(self, **proposal: Any) -> "Future[Proposal]":
        future: Future[Proposal] = Future()
        future.set_result(self.reworded(proposal["rewords"]) if "rewords" in proposal else self.proposed(**proposal))
        return future

    def proposed(self, **proposal: Any) -> Proposal:
        made = Proposal(corrections.propose(self.database, **proposal), self.conflicts)
        evidence.note_conflicts(self.database, made.correction.id, made.pairs)
        return made

    def reworded(self, number: int) -> Proposal:
        row = corrections.get(self.database, number)
        return Proposal(row, home.conflicts(self.database, row) if self.rivals is None else self.rivals)


@dataclass
class Office:
    """A workspace with the bot in it, and hands to press things with."""

    ws: Workspace
    http: aiohttp.ClientSession
    database: Database
    desk: ScriptedDesk
    bot: SlackBot
    settings: Settings
    seen: list[str] = field(default_factory=list)

    async def do(self, deed: str, user: str, **body: Any) -> Any:
        async with self.http.post(f"{self.ws.url}workspace/{deed}", json={"user": user, **body}) as answer:
            return await answer.json()

    async def write(self, user: str, channel: str, text: str, **body: Any) -> str:
        return str((await self.do("message", user, channel=channel, text=text, **body))["ts"])

    async def click(self, user: str, channel: str, ts: str, action: str, value: str | None = None) -> Any:
        return await self.do("click", user, channel=channel, ts=ts, action_id=action, value=value)

    async def state(self, user: str) -> Any:
        async with self.http.get(f"{self.ws.url}workspace/state", params={"user": user}) as answer:
            return await answer.json()

    async def messages(self, user: str, channel: str) -> list[Any]:
        return list((await self.state(user))["messages"][channel])

    async def wait(self, user: str, channel: str, words: str) -> Any:
        """The newest message in a channel with these words, as soon as it is there."""

        async def found() -> Any:
            shown = await self.messages(user, channel)
            return next((m for m in reversed(shown) if m["user"] == "U0BOT" and words in words_of(m)), None)

        return await until(found, words)

    async def modal(self, user: str) -> Any:
        async def found() -> Any:
            return (await self.state(user))["modal"]

        return await until(found, "a modal")

    async def submit(self, user: str, **values: str) -> Any:
        view = await self.modal(user)
        kept = {b["block_id"]: b["element"].get("initial_value") for b in view["blocks"] if b["type"] == "input"}
        filled = {k: {"value": v} for k, v in (kept | values).items() if v is not None}
        return await self.do("submit", user, view_id=view["id"], values=filled)

    async def settle(self) -> None:
        """Wait until every event has arrived and nothing is being worked on."""
        await asyncio.sleep(0.05)
        parts = self.bot._parts
        assert parts is not None
        while self.ws.delivering or parts.tasks:
            await asyncio.sleep(0.003)

    def calls(self, method: str) -> list[Any]:
        return [c["args"] for c in self.ws.calls if c["method"] == method]


def words_of(message: Any) -> str:
    """All text of a message."""
    return f"{message['text']} {message['blocks']}"


async def until(found: Callable[[], Awaitable[Any]], what: str) -> Any:
    """The result of a probe as soon as it has one."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if result := await found():
            return result
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not appear within {PATIENCE} s")


def settings_for(ws: Workspace, **more: str) -> Settings:
    given = {
        "SLACK_BOT_TOKEN": ws.bot_token,
        "SLACK_APP_TOKEN": ws.app_token,
        "SLACK_API_URL": ws.api_url,
        "ADMINS": PRIYA,
        "REVIEW_CHANNEL": REVIEW,
    }
    return settings.load({}, overrides=given | more)


async def forgotten(bot: SlackBot) -> bool:
    """Whether finished questions leave the list of those in hand: one turn of the loop after they end."""
    assert bot._parts is not None
    for _ in range(100):
        if not any(task.done() for task in bot._parts.answering.values()):
            return True
        await asyncio.sleep(0.02)
    return False


@asynccontextmanager
async def office(
    home: Path, *, workspace: Workspace | None = None, desk: type[ScriptedDesk] = ScriptedDesk, **more: str
) -> AsyncIterator[Office]:
    """An office that keeps Slack's rules to its end; `more` are settings."""
    ws = workspace or Workspace()
    await ws.start()
    database = Database(home)
    at_desk = desk(database)
    given = settings_for(ws, **more)
    bot = SlackBot(database, given, at_desk)
    async with aiohttp.ClientSession() as http:
        try:
            await bot.start()
            yield Office(ws, http, database, at_desk, bot, given)
            await asyncio.sleep(0.02)
            assert ws.violations == []
            assert bot._parts is not None
            assert await forgotten(bot), "a finished question is still listed as in hand"
            assert [call for call in ws.calls if unfurls(call)] == []
        finally:
            await bot.stop()
            await ws.stop()
            database.close()


def unfurls(call: Change) -> bool:
    """Whether a call posts a message for which Slack's servers would fetch every address in it."""
    may = call["method"] == "response_url" or "unfurl_links" in rules.arguments(call["method"])
    if not may or not isinstance(call["args"], dict):
        return False
    return any(call["args"].get(flag) is not False for flag in ("unfurl_links", "unfurl_media"))


FORMATTED = ("text", "markdown_text", "initial_comment")
OURS = re.compile(
    r"<@[UW][A-Z0-9]{2,20}>|<#C[A-Z0-9]{2,20}>"
    r"|<https?://(?:handbook\.example|docs\.example|127\.0\.0\.1:\d+)/[^<>|\s]*(?:\|[^<>|]*)?>"
)
"""The markup that code may build: mentions of ids, dates, and links to stored pages."""
VICTIM = "U0VICTIM"
"""Somebody whom only hostile text mentions."""


def raw_markup(call: Change) -> list[str]:
    """What of a call Slack would read as markup although no code built it: every `<` that is not ours."""
    return [text for text in formatted(call["args"]) if "<" in OURS.sub("", text) or f"<@{VICTIM}>" in text]


LINK = re.compile(r"\b[a-z][a-z0-9+.-]*://|\bwww\.", re.IGNORECASE)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def foreign_links(call: Change) -> list[str]:
    """Addresses in a call that Slack would turn into links although no code built them."""
    args = call["args"] if isinstance(call["args"], dict) else {}
    told = [text for text in unguarded(args.get("blocks")) + unguarded(args.get("view")) if linked(text)]
    bare = args.get("text") if not args.get("blocks") and args.get("parse") != "none" else ""
    grown = CODE.sub("", str(args.get("markdown_text") or ""))
    return told + [text for text in (str(bare or ""), grown) if linked(text)]


def linked(text: str) -> bool:
    """Whether a text holds an address outside the links that code built."""
    return LINK.search(OURS.sub("", text)) is not None


def unguarded(node: Any) -> list[str]:
    """The mrkdwn texts in which Slack looks for addresses by itself."""
    if isinstance(node, list):
        return [text for item in node for text in unguarded(item)]
    if not isinstance(node, dict):
        return []
    mine = [str(node.get("text"))] if node.get("type") == "mrkdwn" and node.get("verbatim") is not True else []
    return mine + [text for value in node.values() if isinstance(value, dict | list) for text in unguarded(value)]


def formatted(node: Any) -> Iterator[str]:
    """Every text in a call that Slack formats; plain_text is shown as it stands."""
    if isinstance(node, list):
        for item in node:
            yield from formatted(item)
    elif isinstance(node, dict) and node.get("type") != "plain_text":
        for key, value in node.items():
            if key in FORMATTED and isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                yield from formatted(value)


def play(home: Path, story: Callable[[Office], Awaitable[None]], *, patience: float = 30.0, **more: Any) -> None:
    """Play a story in a fresh office, for at most `patience` seconds."""

    async def run() -> None:
        async with office(home, **more) as here:
            await asyncio.wait_for(story(here), patience)

    asyncio.run(run())


def report(name: str, figure: str) -> None:
    """Show a measured figure with `pytest -rP`."""

    sys.stdout.write(f"{name}: {figure}\n")
