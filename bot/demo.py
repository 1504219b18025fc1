"""What `nightshift demo` does: a workspace, a loaded company, and the bot that serves Slack, on one machine.

It is the only place where the product meets the local workspace; the bot is told nothing but an address.
"""

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from bot.app import SlackBot, let_go, told_to_end
from bot.desk import Desk
from bot.workspace.server import Workspace
from storage import audit, company, corrections
from storage import settings as settings_table
from storage.cli import GROUP
from storage.database import Database
from storage.settings import Settings

log = logging.getLogger(__name__)

HELP_CHANNEL = "C0HELP"
REVIEW_CHANNEL = "C0REVIEW"
ADMIN = "U0PRIYA"
WELCOME = (
    "Hello, I am Nightshift. Mention me here with a question about Lumen Pay, or write to me directly. "
    "If I am wrong, press the thumb down and write the better answer; Priya reviews it in "
    "#nightshift-review. "
    "Then run the night: from the next morning on I know it by heart."
)
LOG_HEAD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ [\w.]+: ")
LONGEST_LINE = 300
OUTCOMES = {
    "promoted": "Done: model {version} passed every gate and serves now.",
    "kept_champion": "Done: the new model was kept out and the old one goes on. {reason}",
    "nothing_to_learn": "Done: there was nothing to learn. {reason}",
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


async def demo(settings: Settings, port: int) -> None:
    """Run the bot in a workspace on this machine until Ctrl-C or SIGTERM; prints the address when ready."""
    without_proxies()
    end = told_to_end()
    home = home_of(settings)
    workspace = await opened(port, lambda: night(home))
    given = settings_for(settings, home, workspace)
    database = Database(home)
    audit.note_settings(database, given)
    corrections.four_eyes_on_text(database, given.text("FOUR_EYES") == "text")
    desk = Desk(database, given)
    bot = SlackBot(database, given, desk)
    try:
        await asyncio.to_thread(load_company, database, given)
        await asyncio.to_thread(desk.start)
        if not end.is_set():
            await bot.start()
            await bot.post(HELP_CHANNEL, WELCOME)
            click.echo(workspace.url)
        await end.wait()
    finally:
        await let_go(bot, desk)
        await workspace.stop()
        database.close()


def home_of(settings: Settings) -> Path:
    """Where the demo keeps its state: the folder that was named, else one of its own in the default one."""
    default = next(s.default for s in settings_table.TABLE if s.name == "HOME")
    return settings.home / "demo" if settings.text("HOME") == default else settings.home


def settings_for(settings: Settings, home: Path, workspace: Workspace) -> Settings:
    """The settings of a bot in the local workspace."""
    return Settings(
        {
            **settings.values,
            "HOME": str(home),
            "ADMINS": ADMIN,
            "ASK_A_PERSON": f"default={ADMIN}",
            "REVIEW_CHANNEL": REVIEW_CHANNEL,
            "SLACK_API_URL": workspace.api_url,
            "SLACK_BOT_TOKEN": workspace.bot_token,
            "SLACK_APP_TOKEN": workspace.app_token,
        }
    )


def without_proxies() -> None:
    """Forget the proxies of this process: Slack's client would ask them for this very machine."""
    for name in PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.lower(), None)


async def opened(port: int, run_night: Callable[[], AsyncIterator[str]]) -> Workspace:
    """A listening workspace, on another port when this one is taken."""
    workspace = Workspace(port=port, night=run_night)
    try:
        await workspace.start()
    except OSError as error:
        await workspace.stop()
        log.warning("port %s cannot be used (%s); taking a free one", port, error.strerror or error)
        workspace = Workspace(port=0, night=run_night)
        await workspace.start()
    return workspace


def load_company(database: Database, settings: Settings) -> None:
    """Index the handbook of the demo company; pages that are indexed already are skipped."""
    from retrieval.embedder import Embedder
    from retrieval.ingest import ingest

    report = ingest(database, Embedder(settings.text("EMBEDDER")), [company.pages()])
    log.info("the handbook is loaded: %s pages new, %s unchanged", report.documents, report.unchanged)


# --- the night ---


async def night(home: Path) -> AsyncIterator[str]:
    """Run a night in a process of its own; yields its progress line by line and its outcome as a sentence."""
    if not can_learn():
        yield "This installation cannot learn: the package `learning` is not there."
        return
    command = ("-c", "from storage.cli import main; main()", "--home", str(home), "nightly", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told = asyncio.create_task(process.stdout.read())
    try:
        async for line in lines_of(process.stderr):
            yield line
        yield outcome(await told, await process.wait())
    finally:
        told.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def can_learn() -> bool:
    """Whether the command `nightly` is installed and its package is there."""
    points = entry_points(group=GROUP, name="nightly")
    try:
        return any(importlib.util.find_spec(point.module) is not None for point in points)
    except ModuleNotFoundError:
        return False


async def lines_of(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a log without their heads; each redrawing of a progress bar counts as a line."""
    rest = ""
    while chunk := await stream.read(4096):
        *lines, rest = re.split(r"[\r\n]+", rest + chunk.decode("utf-8", "replace"))
        for line in [*lines, rest] if len(rest) > LONGEST_LINE else lines:
            if shown := LOG_HEAD.sub("", line).strip():
                yield shown[:LONGEST_LINE]
        rest = "" if len(rest) > LONGEST_LINE else rest
    if rest.strip():
        yield LOG_HEAD.sub("", rest).strip()[:LONGEST_LINE]


def outcome(told: bytes, code: int) -> str:
    """How a night ended, from the one JSON object that it printed."""
    result = parsed(told)
    if not result.get("ok"):
        message = str(
            result.get("error", {}).get("message") or f"it stopped with exit code {code}; see the lines above"
        )
        return f"The night did not finish: {message}"
    sentence = OUTCOMES.get(str(result.get("outcome")), "Done: {outcome}. {reason}")
    known = {name: str(result.get(name) or "") for name in ("outcome", "version", "reason")}
    return sentence.format(**known).strip()


def parsed(told: bytes) -> dict[str, Any]:
    """The last line of an output as a JSON object, or an empty one."""
    lines = told.decode("utf-8", "replace").strip().splitlines()
    try:
        result = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}
