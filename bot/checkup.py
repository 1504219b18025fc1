"""`nightshift doctor`: is everything that an answer and a night need in place?

Each check is a name, a verdict and a detail, which says what to do where something is wrong. No check changes
anything, and none can end the process: the vector index is looked at from a process of its own.
"""

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from bot import modelserver, prompt, remote
from storage import audit, backup, documents, manifest, nights, registry, shipped
from storage.database import BACKUPS, Database, file_lock, journal_mode, known_steps
from storage.domain import Status
from storage.errors import NightshiftError
from storage.settings import Settings

Check = dict[str, Any]
LEAST_FREE_GB = 4
LEAST_MEMORY_GB = 1.5
"""Available memory that the serving model and a swap to its successor need."""
ENGINE_SECONDS = 10.0
"""Longest time that one question to a model server may take here."""
NIGHT_AGE = timedelta(hours=48)
BACKUP_AGE = timedelta(days=7)
TOLERANCE = timedelta(minutes=10)
"""Clocks that are corrected by so much are no fault."""
NAME_OF_REQUIREMENT = re.compile(r"[\w.-]+")
TOKENS = {"SLACK_BOT_TOKEN": "xoxb-", "SLACK_APP_TOKEN": "xapp-"}
"""How each begins; of the rest Slack promises nothing, so it need only be long and printable."""


def run(database: Database, settings: Settings) -> list[Check]:
    """All checks, none of which changes anything."""
    made: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        ("packages", packages),
        ("sqlite", lambda: sqlite(database)),
        ("database", lambda: intact(database)),
        ("migrations", lambda: steps(database)),
        ("audit", lambda: chain(database)),
        ("backups", lambda: backups(database.home)),
        ("disk", lambda: disk(database.home)),
        ("memory", memory),
        ("base_model", lambda: base(settings)),
        ("embedder", lambda: embedder(settings)),
        ("engine", lambda: engine(database, settings)),
        ("champion", lambda: champion(database)),
        ("models", lambda: models(database)),
        ("documents", lambda: passages(database)),
        ("index", lambda: index(database)),
        ("nightly", lambda: nightly(database)),
        ("slack_tokens", lambda: tokens(settings)),
    ]
    return [checked(name, work) for name, work in made]


def checked(name: str, work: Callable[[], str]) -> Check:
    """One check; an error that Nightshift names is its detail."""
    try:
        return {"name": name, "ok": True, "detail": work()}
    except (NightshiftError, OSError) as error:
        return {"name": name, "ok": False, "detail": str(error)}


# --- the machine ---


def packages() -> str:
    """Whether every required package is installed. Raises NightshiftError that names those that are not."""
    needed = [r for r in metadata.requires("nightshift") or [] if "extra ==" not in r]
    here = [r for r in needed if "sys_platform" not in r or f'"{sys.platform}"' in r]
    names = [found[0] for r in here if (found := NAME_OF_REQUIREMENT.match(r))]
    versions = {name: version_of(name) for name in names}
    missing = [name for name, version in versions.items() if not version]
    if missing:
        raise NightshiftError(f"{', '.join(missing)} not installed; run 'make setup'")
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def version_of(name: str) -> str:
    """The installed version of a package, empty when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def disk(home: Path) -> str:
    """Free space; a night needs about two model folders."""
    free = shutil.disk_usage(home).free / 1e9
    if free < LEAST_FREE_GB:
        raise NightshiftError(f"{free:.1f} GB free; a night needs {LEAST_FREE_GB} GB")
    return f"{free:.0f} GB free"


def memory() -> str:
    """Memory that processes can still get. Raises NightshiftError when a model swap would not fit."""
    available = available_memory() / 1e9
    if available < LEAST_MEMORY_GB:
        raise NightshiftError(f"{available:.1f} GB available; loading a model needs {LEAST_MEMORY_GB} GB")
    return f"{available:.1f} GB available"


def available_memory() -> int:
    """Bytes that can be had without swapping; where the system does not say, all there are."""
    facts = Path("/proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", facts.read_text(), re.MULTILINE) if facts.is_file() else None
    return int(found[1]) * 1024 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- what is stored ---


def sqlite(database: Database) -> str:
    """The SQLite release, and whether its WAL mode is safe."""
    release = str(database.value("SELECT sqlite_version()"))
    old = "" if journal_mode(release) == "WAL" else ", too old for WAL"
    return f"{release}, journal mode {database.value('PRAGMA journal_mode')}{old}"


def intact(database: Database) -> str:
    """Whether every page and every reference of the database holds. Raises NightshiftError."""
    verdict = str(database.value("PRAGMA quick_check(1)"))
    if verdict != "ok":
        raise NightshiftError(f"the database is damaged: {verdict}; 'nightshift restore' brings back a backup")
    loose = database.row("PRAGMA foreign_key_check")
    if loose:
        raise NightshiftError(f"a row of {loose['table']} refers to what is not there")
    return "intact"


def steps(database: Database) -> str:
    """The schema's steps; opening the database has applied them all."""
    newest = database.row("SELECT name, applied_at FROM _sqlite_migrations ORDER BY id DESC LIMIT 1")
    since = f", the last one ({newest['name']}) on {newest['applied_at'][:10]}" if newest else ""
    return f"all {len(known_steps())} steps applied{since}"


def chain(database: Database) -> str:
    """Whether the audit log is as it was written. Raises NightshiftError with the first fault."""
    verdict = audit.verify(database, audit.anchors(database.home))
    if not verdict.ok:
        first = verdict.faults[0].detail
        raise NightshiftError(f"{len(verdict.faults)} faults, first: {first}; see 'nightshift audit verify'")
    return f"{verdict.head.seq} entries, {verdict.anchors} anchors agree"


def backups(home: Path) -> str:
    """The newest backup. Raises NightshiftError when it is old: then whatever used to make them has stopped."""
    found = backup.listed(home / BACKUPS)
    if not found:
        return "none in the home folder; run 'nightshift backup' every day"
    age = age_of(backup.told(found[-1])["created_at"])
    if age > BACKUP_AGE:
        raise NightshiftError(f"the newest of {len(found)} is {age.days} days old; run 'nightshift backup' every day")
    return f"{len(found)}, the newest {hours(age)} old"


def passages(database: Database) -> str:
    """How much can be looked up, and what waits for the index."""
    count, waiting = documents.counts(database)[1], documents.backlog(database)
    return f"{count} passages, {waiting} waiting for the index, embedded by {documents.embedder(database)[0] or 'none'}"


def index(database: Database) -> str:
    """Whether the vector index is what SQLite says it must be. Raises NightshiftError with what is wrong."""
    from retrieval import crashes, probe

    pointer = database.home / "index" / "current"
    if (deaths := crashes.count_of(pointer.with_name(crashes.COUNT))) >= crashes.MOST:
        raise NightshiftError(
            f"it ended the bot {deaths} times in a row, so every search is exact; "
            f"stop the bot and delete {pointer.parent} to try it again"
        )
    if not pointer.is_file():
        return "not built; the bot builds it when it starts, and searches exactly until then"
    try:
        with file_lock(database.home / "index.lock", wait=False):
            health = probe.run(database.home, pointer.parent / pointer.read_text(encoding="ascii").strip())
    except BlockingIOError:
        return "in use by a running bot, which checks it itself"
    if not health.ok:
        raise NightshiftError(f"{health.detail}; the bot rebuilds it when it starts, and searches exactly until then")
    return health.detail


# --- models and nights ---


def base(settings: Settings) -> str:
    """Whether the base model is there, and is to the last bit what shipped. Raises NightshiftError when not."""
    return whole(settings.text("BASE_MODEL"), shipped.MODEL)


def embedder(settings: Settings) -> str:
    """The same of the sentence model."""
    return whole(settings.text("EMBEDDER"), shipped.EMBEDDER)


def whole(name: str, weights: shipped.Weights) -> str:
    """What a setting names; the embedded weights are compared with their SHA-256. Raises NightshiftError without."""
    if name != "embedded":
        folder = Path(name).expanduser()
        if name.startswith((".", "/", "~")) and not folder.is_dir():
            raise NightshiftError(f"there is no folder {folder}")
        return name
    return f"{name}: {shipped.verified(weights).name}, whose hash matches"


def engine(database: Database, settings: Settings) -> str:
    """Whether the model server offers what it is for, with log-probabilities. Raises NightshiftError when not."""
    server = modelserver.configured(settings)
    if server is None:
        return "none; the model answers from this machine"
    serves = settings.text("ENGINE_ROLE") == "serve"
    version = registry.alias(database, "champion") or registry.BASE
    wanted = [name for name in (version if serves else "", settings.text("ENGINE_MODEL")) if name]
    if not wanted:
        raise NightshiftError("it is there to help but NIGHTSHIFT_ENGINE_MODEL names no model")
    quick = replace(server, seconds=min(server.seconds, ENGINE_SECONDS))
    offered = quick.models()
    for name in wanted:
        if name not in offered:
            raise NightshiftError(f"{server.address} offers {remote.named(offered)} and not {name}")
        quick.chat(name, prompt.messages("Are you there?"), max_tokens=1)
    return f"{server.address} offers {' and '.join(wanted)} with log-probabilities"


def champion(database: Database) -> str:
    """Whether the serving version's folder still matches its manifest."""
    name = registry.alias(database, "champion")
    if name is None:
        return "none yet; the first question registers the base model"
    version = registry.get(database, name)
    if version.manifest_sha256:
        manifest.verify(Path(version.path), version.manifest_sha256)
    return f"{name}, {version.bytes / 1e6:.0f} MB, every hash matches"


def models(database: Database) -> str:
    """Whether a rollback would find its model. Raises NightshiftError when it would not."""
    count = len(registry.versions(database))
    name = registry.alias(database, "previous")
    if name is None:
        return f"{count} registered; there is no previous one to roll back to"
    version = registry.get(database, name)
    if version.manifest_sha256:
        manifest.verify(Path(version.path), version.manifest_sha256)
    return f"{count} registered; a rollback leads to {name}, whose every hash matches"


def nightly(database: Database) -> str:
    """When the last night ended. Raises NightshiftError when cron seems to have stopped, or the night failed."""
    last = nights.latest(database)
    if last is None:
        waiting = approved_since(database, "")
        return f"none yet, {waiting} approved corrections wait; let cron run 'nightshift nightly'"
    age = age_of(last.finished_at)
    if age > NIGHT_AGE:
        raise NightshiftError(f"the last night ended {hours(age)} ago ({last.outcome}); does cron still run it?")
    if last.outcome == "failed":
        raise NightshiftError(f"the last night, {hours(age)} ago, failed: {last.reason}")
    return f"the last one ended {hours(age)} ago: {last.outcome}"


def approved_since(database: Database, moment: str) -> int:
    """How many corrections in force were approved after a moment (ISO 8601)."""
    sql = "SELECT count(*) FROM corrections WHERE status = ? AND reviewed_at > ?"
    return int(database.value(sql, [Status.APPROVED.value, moment]))


def age_of(moment: str) -> timedelta:
    """How long ago a moment was. Raises NightshiftError for one to come: nothing would ever be old enough then."""
    age = datetime.now(UTC) - datetime.fromisoformat(moment)
    if age < -TOLERANCE:
        raise NightshiftError(f"the last one is dated {moment[:16]}, which is to come; was the clock set back?")
    return age


def hours(age: timedelta) -> str:
    """An age in whole hours."""
    count = int(age.total_seconds() // 3600)
    return f"{count} hour{'' if count == 1 else 's'}"


def tokens(settings: Settings) -> str:
    """Whether the Slack tokens have the right shape; none at all is fine for the demo."""
    given = {name: settings.text(name) for name in TOKENS}
    wrong = [problem for name, value in given.items() if value and (problem := token_problem(name, value))]
    if wrong:
        raise NightshiftError(" and ".join(wrong))
    return "set" if all(given.values()) else "not set (only 'serve' needs them)"


def token_problem(name: str, value: str) -> str:
    """What is wrong with a token, or an empty text."""
    if not value:
        return f"{name} is missing"
    if not re.fullmatch(rf"{TOKENS[name]}[!-~]{{8,}}", value):
        return f"{name} is malformed (it starts with {TOKENS[name]})"
    return ""
