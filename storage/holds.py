"""Corrections that are held: one of a flood of near-identical ones, until a reviewer releases it, one by one.

That a held row is not approved, that its author does not release it and that a hold is never deleted is held by the
database. Which corrections are near-identical is decided elsewhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from storage import audit
from storage.database import Database, now
from storage.errors import ConflictError, NotAllowedError


@dataclass(frozen=True)
class Hold:
    """Why a correction is held: the earlier ones that are `alike`. `released_by` is empty while it is held."""

    correction_id: int
    alike: tuple[int, ...]
    held_at: str
    released_by: str
    released_at: str


def begin(database: Database, correction_id: int, alike: Sequence[int]) -> None:
    """Hold a correction back because of those that it is like."""
    row = {"correction_id": correction_id, "alike": json.dumps(list(alike)), "held_at": now()}
    with database.write() as db:
        db.table("holds").insert(row)
        audit.append(database, "hold.begun", id=correction_id, alike=list(alike))


def of(database: Database, correction_id: int) -> Hold | None:
    """The hold of a correction, released or not; None when it was never held."""
    row = database.row("SELECT * FROM holds WHERE correction_id = ?", [correction_id])
    return None if row is None else Hold(**row | {"alike": tuple(json.loads(row["alike"]))})


def alike(database: Database, correction_id: int) -> tuple[int, ...]:
    """The corrections because of which one is held now; empty when it is not held."""
    hold = of(database, correction_id)
    return () if hold is None or hold.released_by else hold.alike


def release(database: Database, correction_id: int, reviewer: str) -> None:
    """Let a held correction be decided like any other.

    Raises ConflictError when it is not held, NotAllowedError for its author.
    """
    with database.write() as db:
        if not alike(database, correction_id):
            raise ConflictError(f"Correction {correction_id} is not held.")
        author = database.value("SELECT author FROM corrections WHERE id = ?", [correction_id])
        if author == reviewer:
            raise NotAllowedError(f"{reviewer} wrote correction {correction_id} and may not release it.")
        db.table("holds").update(correction_id, {"released_by": reviewer, "released_at": now()})
        audit.append(database, "hold.released", id=correction_id, reviewer=reviewer)
