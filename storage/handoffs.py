"""Questions that the bot passed on to a person: who was asked, where, and who closed it.

An answer has at most one open hand-off; the database holds that. It knows nothing of how people are reached.
"""

from dataclasses import dataclass
from typing import Any

from storage.database import Database, now
from storage.errors import ConflictError, NotFoundError


@dataclass(frozen=True)
class Handoff:
    """One question passed on; `asker` pressed the button, `ts` is the post that names the person."""

    id: int
    answer_id: int
    asker: str
    person: str
    channel: str
    thread: str
    ts: str
    opened_at: str
    resolved_by: str = ""
    resolved_at: str = ""


def begin(database: Database, answer_id: int, *, asker: str, person: str) -> Handoff:
    """Open a hand-off. Raises ConflictError when somebody was asked already and it is still open."""
    with database.write():
        held = database.row("SELECT person FROM handoffs WHERE answer_id = ? AND resolved_at = ''", [answer_id])
        if held is not None:
            raise ConflictError("A person was asked already; the question is still open.")
        row = {"answer_id": answer_id, "asker": asker, "person": person, "opened_at": now()}
        key = database.insert("handoffs", row)
    return get(database, key)


def posted(database: Database, handoff_id: int, *, channel: str, thread: str, ts: str) -> Handoff:
    """Note where the person was asked."""
    return changed(database, handoff_id, {"channel": channel, "thread": thread, "ts": ts})


def withdraw(database: Database, handoff_id: int) -> None:
    """Forget a hand-off that could not be posted."""
    with database.write() as db:
        db.table("handoffs").delete(handoff_id)


def resolve(database: Database, handoff_id: int, user: str) -> Handoff:
    """Close a hand-off. Raises ConflictError when it is closed already."""
    with database.write():
        if get(database, handoff_id).resolved_at:
            raise ConflictError("That was resolved already.")
        return changed(database, handoff_id, {"resolved_by": user, "resolved_at": now()})


def get(database: Database, handoff_id: int) -> Handoff:
    """One hand-off. Raises NotFoundError."""
    row = database.row("SELECT * FROM handoffs WHERE id = ?", [handoff_id])
    if row is None:
        raise NotFoundError(f"There is no hand-off {handoff_id}.")
    return Handoff(**row)


def is_open(database: Database, channel: str, thread: str) -> bool:
    """Whether a person was asked in this thread and has not closed it."""
    found = database.row(
        "SELECT 1 FROM handoffs WHERE channel = ? AND thread = ? AND resolved_at = ''", [channel, thread]
    )
    return found is not None


def changed(database: Database, handoff_id: int, values: dict[str, Any]) -> Handoff:
    """Store new values; returns the row as it stands then."""
    with database.write() as db:
        db.table("handoffs").update(handoff_id, values)
    return get(database, handoff_id)
