"""An hour in the life of the bot: a question every two seconds, a socket that is cut, two swaps of the model.

    python -m tests.bench.soak --minutes 60

The bot is the product's own assembly (`bot.app.serve`, real models, real index) in a process of its own; Slack is the
local workspace in this one, over its Web API and its socket. A version of the model is promoted after a third of the
time and rolled back after two thirds, as a person would with `nightshift models`. Lost is a question that has no
answer in its thread, or none in the database, a minute after the end. The memory is that of the bot's process alone,
right after a collection of garbage, and its slope the median of all slopes between two moments without a swap in
between (Theil-Sen), after the warm-up; what the swaps add stands beside it.
Results go to soak.json and soak.md beside this file. It knows nothing of how an answer is found.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bot import app, base_model, demo, desk, prompt
from bot.workspace.nouns import BOT_USER, Person
from bot.workspace.server import Workspace
from learning import publish
from storage import company, corrections, environment, manifest, registry, settings
from storage.database import Database, now
from storage.domain import ModelVersion
from storage.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS_BETWEEN = 2.0
GRACE_SECONDS = 60.0
COLLEAGUES = 12
CANARIES = 3
HELP = "C0HELP"
SWAPPED_TO = "v-soak"
NOISE = 1e-3
"""Of the spread of a weight: enough for another model, too little for another language."""
WARM_UP = 1 / 6
"""Of the run; the caches fill, and the allocator finds its size."""
LARGEST_SLOPE = 5.0
"""Megabytes an hour."""
SETTLES = 20.0
"""Seconds that a swap takes, with the old weights and the new in memory."""


@dataclass
class Log:
    """What happened, as seconds since the start or as it was counted."""

    asked: list[tuple[str, str, float]] = field(default_factory=list)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    """Seconds, resident megabytes, of which not backed by a file."""
    swaps: list[dict[str, Any]] = field(default_factory=list)
    drops: int = 0
    refreshes: int = 0


# --- the bot's process ---


def serve(home: Path) -> None:
    """Run the product's bot; SIGUSR1 collects garbage, so that what is measured is what is held."""
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    asyncio.run(app.serve(Database(home), settings.load(overrides={"HOME": str(home)})))


@contextlib.contextmanager
def bot_process(home: Path, workspace: Workspace, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The bot in a process of its own, ended as an operator ends it."""
    given = {
        **os.environ,
        "SLACK_API_URL": workspace.api_url,
        "NIGHTSHIFT_ADMINS": demo.ADMIN,
        "NIGHTSHIFT_REVIEW_CHANNEL": demo.REVIEW_CHANNEL,
        "SLACK_BOT_TOKEN": workspace.bot_token,
        "SLACK_APP_TOKEN": workspace.app_token,
    }
    command = [sys.executable, "-m", "tests.bench.soak", "--bot", str(home)]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=errors, stderr=errors)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# --- the office's process ---


def prepare(home: Path) -> Settings:
    """A home with the handbook, some approved corrections, the base model and another version to swap to."""
    given = settings.load({}, overrides={"HOME": str(home)})
    database = Database(home)
    demo.load_company(database, given)
    desk.ensure_base(database, given)
    for row in company.corrections():
        made = corrections.propose(database, question=row.question, answer=row.answer, author="U0SAM")
        corrections.approve(database, made.id, demo.ADMIN)
    another_version(database, given)
    database.close()
    return given


def another_version(database: Database, given: Settings) -> None:
    """Publish and register the base with a little seeded noise in its upper half; nobody promotes it yet."""
    import torch
    from transformers import AutoModelForCausalLM

    base = base_model.folder(database.home, "embedded")
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    torch.manual_seed(20261120)
    for layer in model.model.layers[len(model.model.layers) // 2 :]:
        weight = layer.mlp.down_proj.weight.data
        weight += NOISE * weight.std() * torch.randn_like(weight)
    folder = publish.workshop(database.home, SWAPPED_TO)
    shutil.copytree(base, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(manifest.NAME))
    model.save_pretrained(folder, safe_serialization=True)
    del model
    canaries = its_own_answers(desk.load_engine(folder, given.text("SERVING_FORM")))
    final, digest = publish.seal(folder, SWAPPED_TO, canaries, {})
    registry.register(
        database,
        ModelVersion(
            version=SWAPPED_TO,
            parent=registry.BASE,
            created_at=now(),
            path=str(final),
            adapter_path="",
            manifest_sha256=digest,
            snapshot_sha256="",
            bytes=manifest.size(final),
            gates=(),
            confidence=registry.get(database, registry.BASE).confidence,
        ),
    )


def its_own_answers(engine: Any) -> list[dict[str, str]]:
    """What a model says to a few questions, where it comes to an end."""
    found = []
    for question in (g.question for g in company.golden()):
        chat = prompt.messages(question)
        said = engine.generate(chat, max_tokens=96)
        if said.stopped and engine.confirm(chat, said.text, max_tokens=96).confirmed == 1.0:
            found.append({"question": question, "answer": said.text})
        if len(found) == CANARIES:
            break
    return found


def texts() -> Iterator[str]:
    """Questions without end: golden ones, every wording of every fact, near-misses; never the same words twice."""
    facts = company.facts()
    every = [g.question for g in company.golden()]
    every += [text for fact in facts for text in (fact.question, *fact.wordings, *fact.near_misses)]
    for number, text in enumerate(itertools.cycle(every)):
        yield text if number < len(every) else f"{text} (I ask for desk {number})"


async def ask(workspace: Workspace, log: Log, began: float, minutes: float) -> None:
    """A question every two seconds, in the channel and in direct messages, from one colleague after the other."""
    people = [f"U0MATE{n:02d}" for n in range(COLLEAGUES)]
    for n, user in enumerate(people):
        workspace.state.add_person(Person(user, f"mate.{n}", f"Mate {n}", "Colleague"), ("C0HELP",))
    for number, text in enumerate(texts()):
        due = began + number * SECONDS_BETWEEN
        if due >= began + 60 * minutes:
            return
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        user = people[number % COLLEAGUES]
        channel, said = (HELP, f"<@{BOT_USER}> {text}") if number % 2 else (f"D{user[1:]}", text)
        posted = await workspace.people.message({"user": user, "channel": channel, "text": said})
        log.asked.append((channel, str(posted["ts"]), time.monotonic() - began))


async def cut(workspace: Workspace, log: Log, minutes: float) -> None:
    """Cut the socket without a goodbye, twelve times in all; every third time Slack asks for a fresh one instead."""
    for turn in itertools.count(1):
        await asyncio.sleep(60 * minutes / 13)
        if turn % 3:
            log.drops += workspace.drop_sockets()
        else:
            workspace.refresh()
            log.refreshes += 1


async def swap(database: Database, log: Log, began: float, minutes: float) -> None:
    """Promote another version after a third of the time, and roll back after two."""
    for third, change in ((1, promote), (2, roll_back)):
        await asyncio.sleep(max(0.0, began + third * 20 * minutes - time.monotonic()))
        at = time.monotonic() - began
        wanted = change(database)
        log.swaps.append({"to": wanted, "minute": round(at / 60, 1)})


def promote(database: Database) -> str:
    """Put the other version in."""
    registry.promote(database, SWAPPED_TO)
    return SWAPPED_TO


def roll_back(database: Database) -> str:
    """Put the first one back."""
    return registry.rollback(database)[1]


async def weigh(process: "subprocess.Popen[bytes]", log: Log, began: float, minutes: float) -> None:
    """The bot's memory, a hundred and twenty times in all."""
    while True:
        process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(1.0)
        log.memory.append((time.monotonic() - began, *memory_of(process.pid)))
        await asyncio.sleep(max(0.0, 60 * minutes / 120 - 1.0))


def memory_of(pid: int) -> tuple[float, float]:
    """Resident megabytes of a process: all, and those that no file backs."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss")}
    return round(sum(told.values()), 2), round(told["RssAnon"], 2)


async def day(workspace: Workspace, process: "subprocess.Popen[bytes]", database: Database, minutes: float) -> Log:
    """Everything at once, and the grace at the end."""
    log, began = Log(), time.monotonic()
    side = [
        asyncio.create_task(work)
        for work in (
            cut(workspace, log, minutes),
            swap(database, log, began, minutes),
            weigh(process, log, began, minutes),
        )
    ]
    await ask(workspace, log, began, minutes)
    side[0].cancel()
    side[2].cancel()
    done = await asyncio.gather(*side, return_exceptions=True)
    for failure in done:
        if isinstance(failure, Exception):
            raise failure
    end = time.monotonic() + GRACE_SECONDS
    while unanswered(workspace, log) and time.monotonic() < end and process.poll() is None:
        await asyncio.sleep(0.5)
    return log


def unanswered(workspace: Workspace, log: Log) -> list[tuple[str, str]]:
    """The questions in whose thread the bot has not written."""
    written = {
        (channel, m.thread_ts)
        for channel, messages in workspace.state.messages.items()
        for m in messages.values()
        if m.user == BOT_USER and not m.only_for
    }
    return [(channel, ts) for channel, ts, _ in log.asked if (channel, ts) not in written]


async def connected(workspace: Workspace, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the bot is on its socket. Raises RuntimeError with its log when it ends first."""
    while not workspace.socket.connections:
        if process.poll() is not None:
            raise RuntimeError(f"the bot ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
        await asyncio.sleep(0.2)


async def story(home: Path, minutes: float) -> dict[str, Any]:
    """One whole run; returns its figures."""
    workspace = Workspace()
    await workspace.start()
    database = Database(home)
    errors = home / "bot.log"
    try:
        with bot_process(home, workspace, errors) as process:
            await connected(workspace, process, errors)
            click.echo("the bot is connected", err=True)
            log = await day(workspace, process, database, minutes)
            alive = process.poll() is None
            click.echo("the bot is told to end", err=True)
        ended = process.returncode
        return figures(workspace, database, log, minutes) | {"alive_at_the_end": alive, "exit_code": ended}
    finally:
        await workspace.stop()
        database.close()


# --- figures ---


def figures(workspace: Workspace, database: Database, log: Log, minutes: float) -> dict[str, Any]:
    """What came of a run."""
    stored = Counter(
        (row["channel"], row["thread"])
        for row in database.rows("SELECT q.channel, q.thread FROM answers a JOIN questions q ON q.id = a.question_id")
    )
    silent = set(unanswered(workspace, log))
    lost = [place for place in ((c, ts) for c, ts, _ in log.asked) if place in silent or not stored[place]]
    routes = database.rows("SELECT route, count(*) AS n FROM answers GROUP BY route ORDER BY route")
    versions = database.rows("SELECT model_version AS v, count(*) AS n FROM answers GROUP BY v ORDER BY v")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "minutes": minutes,
        "questions": len(log.asked),
        "lost": len(lost),
        "answered_twice": sum(stored[c, ts] > 1 for c, ts, _ in log.asked),
        "routes": {row["route"]: row["n"] for row in routes},
        "seconds_to_answer": delays(workspace, log),
        "sockets_cut": log.drops,
        "refreshes": log.refreshes,
        "swaps": log.swaps,
        "answers_by_version": {row["v"]: row["n"] for row in versions},
        "rules_of_slack_broken": len(workspace.violations),
        **slope(log.memory, log.swaps, WARM_UP * 60 * minutes),
        "memory": [{"minute": round(t / 60, 2), "mb": mb, "anonymous_mb": anon} for t, mb, anon in log.memory],
    }


def delays(workspace: Workspace, log: Log) -> dict[str, float]:
    """Seconds from a question to the first message in its thread."""
    import numpy as np

    first: dict[tuple[str, str], float] = {}
    for channel, messages in workspace.state.messages.items():
        for m in messages.values():
            if m.user == BOT_USER and m.thread_ts and not m.only_for:
                place = (channel, m.thread_ts)
                first[place] = min(first.get(place, float("inf")), float(m.ts))
    taken = [first[c, ts] - float(ts) for c, ts, _ in log.asked if (c, ts) in first]
    if not taken:
        return {}
    return {name: round(float(np.quantile(taken, q)), 2) for name, q in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}


def slope(memory: list[tuple[float, float, float]], swaps: list[dict[str, Any]], from_second: float) -> dict[str, Any]:
    """Megabytes an hour after the warm-up with their 95 % interval, what each swap added, and where it all stood.

    A leak grows with time. So the slope is the median over all pairs of measurements between which nothing was swapped
    (Theil-Sen within segments), and what a swap adds is told beside it, as is the slope of everything together.
    """
    from scipy.stats import theilslopes

    later = [row for row in memory if row[0] >= from_second]
    if len(later) < 3:
        return {}
    edges = [0.0, *(60 * s["minute"] + SETTLES for s in swaps), float("inf")]
    parts = [[r for r in later if low <= r[0] < high - SETTLES] for low, high in itertools.pairwise(edges)]
    whole = theilslopes([row[1] for row in later], [row[0] / 3600 for row in later])
    return {
        "warm_up_minutes": round(from_second / 60, 2),
        "slope_mb_per_hour": median_slope(parts)[0],
        "slope_mb_per_hour_interval": median_slope(parts)[1:],
        "slope_with_swaps_mb_per_hour": round(float(whole[0]), 2),
        "grown_by_swaps_mb": [round(b[0][1] - a[-1][1], 1) for a, b in itertools.pairwise(parts) if a and b],
        "mb_after_warm_up": later[0][1],
        "mb_at_the_end": later[-1][1],
    }


def median_slope(parts: list[list[tuple[float, float, float]]]) -> list[float]:
    """The median slope within the parts, in megabytes an hour, and its 95 % interval (Sen 1968)."""
    import numpy as np

    slopes, variance = [], 0.0
    for part in parts:
        slopes += [3600 * (b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(part, 2)]
        variance += len(part) * (len(part) - 1) * (2 * len(part) + 5) / 18
    if not slopes:
        return []
    ordered, half = np.sort(slopes), 1.96 * variance**0.5 / 2
    middle, last = len(slopes) / 2, len(slopes) - 1
    low, high = ordered[max(0, int(middle - half))], ordered[min(last, int(np.ceil(middle + half)))]
    return [round(float(value), 2) for value in (np.median(ordered), low, high)]


def table(told: dict[str, Any]) -> str:
    """The figures for people; a missed target is named a miss."""
    swaps = ", ".join(f"to {s['to']} in minute {s['minute']}" for s in told["swaps"])
    met = {True: "met", False: "MISSED"}
    low, high = told["slope_mb_per_hour_interval"]
    rows = [
        ("questions asked, one every 2 s", str(told["questions"]), "", ""),
        ("lost", str(told["lost"]), "0", met[told["lost"] == 0]),
        ("answered twice", str(told["answered_twice"]), "0", met[told["answered_twice"] == 0]),
        (
            f"memory slope after {told['warm_up_minutes']:g} minutes, MB an hour (95 %: {low} to {high})",
            str(told["slope_mb_per_hour"]), f"<= {LARGEST_SLOPE:g}", met[told["slope_mb_per_hour"] <= LARGEST_SLOPE],
        ),
        (
            "the same over everything, swaps too",
            str(told["slope_with_swaps_mb_per_hour"]), f"<= {LARGEST_SLOPE:g}",
            met[told["slope_with_swaps_mb_per_hour"] <= LARGEST_SLOPE],
        ),
        ("MB that each swap added", ", ".join(map(str, told["grown_by_swaps_mb"])), "", ""),
        ("resident MB after warm-up, at the end", f"{told['mb_after_warm_up']}, {told['mb_at_the_end']}", "", ""),
        ("sockets cut, refreshes", f"{told['sockets_cut']}, {told['refreshes']}", "", ""),
        ("swaps", swaps, "2", met[len(told["swaps"]) == 2 and len(told["answers_by_version"]) == 2]),
        ("answers by version", spelt(told["answers_by_version"]), "", ""),
        ("answers by route", spelt(told["routes"]), "", ""),
        ("seconds to an answer: p50, p95, most", spelt(told["seconds_to_answer"]), "", ""),
    ]  # fmt: skip
    head = [
        f"`python -m tests.bench.soak --minutes {told['minutes']:g}`, {told['date']}, {told['machine']}", "",
        "| figure | measured | target | |", "|---|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows), ""])


def spelt(counts: dict[str, Any]) -> str:
    """Names and numbers in a line."""
    return ", ".join(f"{name} {value}" for name, value in counts.items())


def run(home: Path, minutes: float) -> dict[str, Any]:
    """Prepare a home and live a day of so many minutes in it; returns the figures."""
    environment.prepare()  # the bot's process inherits it
    demo.without_proxies()
    prepare(home)
    return asyncio.run(story(home, minutes))


@click.command()
@click.option("--minutes", default=60.0, show_default=True, help="How long questions are asked.")
@click.option("--out", default=HERE, show_default=False, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--bot", type=click.Path(path_type=Path), help="Be the bot of this home (the run starts it by itself).")
def main(minutes: float, out: Path, bot: Path | None) -> None:
    """Live a day and write soak.json and soak.md."""
    if bot is not None:
        serve(bot)
        return
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        told = run(Path(home) / "home", minutes)
    (out / "soak.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (out / "soak.md").write_text(table(told), encoding="utf-8")
    click.echo(table(told))


if __name__ == "__main__":
    main()
