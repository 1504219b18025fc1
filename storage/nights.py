"""The history of nightly runs, the calibration rows they leave, and the notices that the bot owes to people.

The night writes here; the bot delivers. Neither needs to know the other is running.
"""

import json
from collections.abc import Iterable
from typing import Any

from storage import audit
from storage.database import Database, Row, now
from storage.domain import NightlyRun, Notice

REFUSED_PLAN = "refused_plan:"


def begin(database: Database) -> int:
    """Note that a night started; returns its id."""
    with database.write():
        run_id = database.insert("nightly_runs", {"started_at": now(), "outcome": "running"})
        audit.append(database, "night.began", id=run_id)
    return run_id


def finish(
    database: Database,
    run_id: int,
    *,
    outcome: str,
    version: str,
    parent: str,
    reason: str,
    report: dict[str, Any],
) -> None:
    """Note how a night ended; of one that failed the reviewers are told."""
    row = {"finished_at": now(), "outcome": outcome, "version": version, "parent": parent, "reason": reason}
    told = json.dumps(report)
    with database.write() as db:
        db.table("nightly_runs").update(run_id, row | {"report": told})
        hashes = {"reason": audit.digest(reason), "report": audit.digest(told)}
        audit.append(database, "night.ended", id=run_id, outcome=outcome, version=version, parent=parent, **hashes)
        if outcome == "failed":
            owe(database, "", "alert", {"text": f"**The night failed; the old model goes on.**\n{reason}"})


def unfinished(database: Database) -> tuple[tuple[int, str], ...]:
    """The nights that began and never told how they ended: ids, and when they began."""
    rows = database.rows("SELECT id, started_at FROM nightly_runs WHERE finished_at = '' ORDER BY id")
    return tuple((r["id"], r["started_at"]) for r in rows)


def note_refused(database: Database, plan: str) -> None:
    """Note that a gate refused what came of a plan (its hash): trained again it would come out the same."""
    with database.write() as db:
        db.table("state").insert({"name": REFUSED_PLAN + plan, "value": 1}, pk="name", replace=True)


def was_refused(database: Database, plan: str) -> bool:
    """Whether what came of a plan was refused."""
    return database.value("SELECT value FROM state WHERE name = ?", [REFUSED_PLAN + plan]) is not None


def latest(database: Database) -> NightlyRun | None:
    """The last night that ended, or None."""
    row = database.row("SELECT * FROM nightly_runs WHERE finished_at <> '' ORDER BY id DESC LIMIT 1")
    return None if row is None else NightlyRun(**row | {"report": json.loads(row["report"])})


def owe(database: Database, user: str, kind: str, payload: dict[str, Any]) -> None:
    """Leave a notice for the bot to deliver."""
    row = {"user": user, "kind": kind, "payload": json.dumps(payload), "created_at": now()}
    with database.write() as db:
        db.table("notices").insert(row)


def owed(database: Database) -> tuple[Notice, ...]:
    """Notices not delivered yet, oldest first."""
    rows = database.rows("SELECT id, user, kind, payload FROM notices WHERE delivered_at = '' ORDER BY id")
    return tuple(Notice(**r | {"payload": json.loads(r["payload"])}) for r in rows)


def delivered(database: Database, notice_id: int) -> None:
    """Note that a notice reached its person."""
    with database.write() as db:
        db.table("notices").update(notice_id, {"delivered_at": now()})


def add_calibration(database: Database, rows: Iterable[Row]) -> None:
    """Keep labelled confidence rows: head, kind, fact, asked, correct, features (a dict), version."""
    with database.write() as db:
        db.table("calibration_rows").insert_all({**r, "features": json.dumps(r["features"])} for r in rows)


def calibration(database: Database) -> list[Row]:
    """All labelled rows, with features as a dict."""
    rows = database.rows("SELECT * FROM calibration_rows ORDER BY id")
    return [r | {"features": json.loads(r["features"])} for r in rows]


def newest_calibration(database: Database) -> int:
    """The highest id of a labelled row, 0 where there is none; a row that comes later always has a higher one."""
    return int(database.value("SELECT coalesce(max(id), 0) FROM calibration_rows"))
