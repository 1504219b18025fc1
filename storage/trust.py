"""Which model versions may serve: none with withdrawn or erased text, none that crashed the bot or failed its checks.

A version that is new to the bot is on trial until it has served for a while. The count of starts without an end is
kept in the database, so that a bot that dies with its new model knows of it when it comes back.
It knows nothing of aliases; `registry` asks it before it switches.
"""

import json
from collections.abc import Collection
from pathlib import Path

from storage import manifest
from storage.audit import ERASED
from storage.database import Database
from storage.domain import ModelVersion
from storage.errors import ConflictError

CRASHES = 2
"""Ends of the bot during a version's trial after which the version before it serves."""
TRIAL, PROVED = "trial:", -1
REFUSED = "refused:"
HOLDS_ERASED = "holds_erased:"


def check(database: Database, version: ModelVersion) -> None:
    """Raise ConflictError with the reason when a version may not become the champion."""
    reason = barred(database, version)
    if reason:
        raise ConflictError(reason)


def barred(database: Database, version: ModelVersion) -> str:
    """Why a version may not become the champion; empty when it may."""
    name = version.version
    if holds := withdrawn_in(database, name):
        ids = ", ".join(map(str, holds))
        return f"{name} was trained on withdrawn corrections ({ids}) and may not serve; the next night rebuilds."
    if database.value("SELECT value FROM state WHERE name = ?", [HOLDS_ERASED + name]):
        return f"{name} was trained on a question that was erased and may not serve; the next night rebuilds."
    if database.value("SELECT value FROM state WHERE name = ?", [REFUSED + name]):
        return f"{name} crashed the bot or failed its checks and may not serve."
    if version.manifest_sha256 and not (Path(version.path) / manifest.NAME).is_file():
        return f"The weights of {name} are no longer kept; see 'nightshift models list' for those that are."
    return ""


def withdrawn_in(database: Database, version: str) -> tuple[int, ...]:
    """The corrections that a version was trained on and that were withdrawn, or erased when they were superseded."""
    rows = database.rows(
        "SELECT c.id FROM memories m JOIN corrections c ON c.id = m.correction_id "
        "WHERE m.version = ? AND (c.status = 'withdrawn' OR c.question = ?) ORDER BY c.id",
        [version, ERASED],
    )
    return tuple(row["id"] for row in rows)


def bar_those_with(database: Database, corrections: Collection[int]) -> None:
    """Note that a trained wording of some corrections was erased: no version that holds them may serve."""
    wanted = json.dumps(list(corrections))
    sql = "SELECT DISTINCT version FROM memories WHERE correction_id IN (SELECT value FROM json_each(?))"
    for row in database.rows(sql, [wanted]):
        keep(database, HOLDS_ERASED + row["version"], 1)


def refuse(database: Database, version: str) -> None:
    """Note that a version may never serve again."""
    keep(database, REFUSED + version, 1)


def begin_trial(database: Database, version: str) -> int:
    """Note that the bot begins to serve a version; returns how many earlier trials of it ended in a crash."""
    with database.write():
        before = trials(database, version)
        if before == PROVED:
            return 0
        keep(database, TRIAL + version, before + 1)
    return before


def end_trial(database: Database, version: str, *, proved: bool) -> None:
    """Note that the bot did not crash: it served long enough, or it was stopped in good order."""
    if trials(database, version) != PROVED:
        keep(database, TRIAL + version, PROVED if proved else 0)


def trials(database: Database, version: str) -> int:
    """How many starts with a version did not end well yet; PROVED for one that needs no trial."""
    return int(database.value("SELECT value FROM state WHERE name = ?", [TRIAL + version]) or 0)


def keep(database: Database, name: str, value: int) -> None:
    """Set one row of `state`."""
    with database.write() as db:
        db.table("state").insert({"name": name, "value": value}, pk="name", replace=True)
