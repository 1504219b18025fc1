"""`nightshift doctor`: is everything that an answer needs in place? Each check is a name, a verdict and a detail."""

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bot import base_model
from storage import documents, manifest, registry
from storage.database import WAL_IS_SAFE_FROM, Database
from storage.errors import NightshiftError
from storage.settings import Settings

Check = dict[str, Any]
LEAST_FREE_GB = 4


def run(database: Database, settings: Settings) -> list[Check]:
    """All checks, none of which changes anything."""
    made: list[tuple[str, Callable[[], str]]] = [
        ("python", platform.python_version),
        ("sqlite", lambda: sqlite(database)),
        ("database", lambda: intact(database)),
        ("disk", lambda: disk(database.home)),
        ("base_model", lambda: base(settings)),
        ("champion", lambda: champion(database)),
        ("documents", lambda: passages(database)),
        ("slack_tokens", lambda: tokens(settings)),
    ]
    return [checked(name, work) for name, work in made]


def checked(name: str, work: Callable[[], str]) -> Check:
    """One check; an error that Nightshift names is its detail."""
    try:
        return {"name": name, "ok": True, "detail": work()}
    except (NightshiftError, OSError) as error:
        return {"name": name, "ok": False, "detail": str(error)}


def sqlite(database: Database) -> str:
    """The SQLite release, and whether its WAL mode is safe."""
    release = str(database.value("SELECT sqlite_version()"))
    safe = tuple(int(n) for n in release.split(".")) >= WAL_IS_SAFE_FROM
    return f"{release}, journal mode {database.value('PRAGMA journal_mode')}" + ("" if safe else ", old")


def intact(database: Database) -> str:
    """Whether every page of the database is readable. Raises NightshiftError."""
    verdict = str(database.value("PRAGMA quick_check"))
    if verdict != "ok":
        raise NightshiftError(f"the database is damaged: {verdict}")
    return "intact"


def disk(home: Path) -> str:
    """Free space; a night needs about two model folders."""
    free = shutil.disk_usage(home).free / 1e9
    if free < LEAST_FREE_GB:
        raise NightshiftError(f"{free:.1f} GB free; a night needs {LEAST_FREE_GB} GB")
    return f"{free:.0f} GB free"


def base(settings: Settings) -> str:
    """Whether the base model can be found."""
    name = settings.text("BASE_MODEL")
    if name == "embedded" and not base_model.gguf_file().is_file():
        raise NightshiftError("the embedded model is not installed; run 'make setup'")
    return name


def champion(database: Database) -> str:
    """Whether the serving version's folder still matches its manifest."""
    name = registry.alias(database, "champion")
    if name is None:
        return "none yet; the first question registers the base model"
    version = registry.get(database, name)
    if version.manifest_sha256:
        manifest.verify(Path(version.path), version.manifest_sha256)
    return f"{name}, {version.bytes / 1e6:.0f} MB, every hash matches"


def passages(database: Database) -> str:
    """How much can be looked up, and what waits for the index."""
    count = database.value("SELECT count(*) FROM passages")
    waiting = database.value("SELECT count(*) FROM index_outbox")
    return f"{count} passages, {waiting} waiting for the index, embedded by {documents.embedder(database)[0] or 'none'}"


def tokens(settings: Settings) -> str:
    """Whether the Slack tokens have the right shape; none at all is fine for the demo."""
    shapes = {"SLACK_BOT_TOKEN": "xoxb-", "SLACK_APP_TOKEN": "xapp-"}
    wrong = [n for n, start in shapes.items() if settings.text(n) and not settings.text(n).startswith(start)]
    if wrong:
        raise NightshiftError(f"{' and '.join(wrong)} do not look like Slack tokens")
    return "set" if all(settings.text(n) for n in shapes) else "not set (only 'serve' needs them)"
