"""The review queue: propose, approve, edit, reject, withdraw, supersede; and the wordings of each correction.

Every change names who made it. That an author never approves their own row is held by the database itself;
this module only says it in words. It knows nothing of models: which correction is in which weights is `registry`'s.
"""

from collections.abc import Iterable, Sequence

from storage import audit
from storage.database import Database, Row, now
from storage.domain import WORKSPACE, Correction, Status, Wording
from storage.errors import ConflictError, NotAllowedError, NotFoundError, UserError

REJECTED = "rejected"
MAX_CHARS = 3000
"""Slack's limit for one plain text input; a longer answer does not belong into a small model either."""


def propose(
    database: Database,
    *,
    question: str,
    answer: str,
    author: str,
    source: str = "",
    scope: str = WORKSPACE,
    answer_id: int | None = None,
    supersedes: int | None = None,
) -> Correction:
    """Store a correction as pending. Raises UserError for empty or oversized text, NotFoundError for `supersedes`."""
    row = {
        "question": clean(question, "question"),
        "answer": clean(answer, "answer"),
        "author": clean(author, "author"),
        "source": source.strip(),
        "scope": scope,
        "status": Status.PENDING.value,
        "created_at": now(),
        "answer_id": answer_id,
        "supersedes": supersedes,
    }
    if supersedes is not None:
        get(database, supersedes)
    with database.write() as db:
        key = database.insert("corrections", row)
        db.table("wordings").insert({"correction_id": key, "text": row["question"], "kind": "taught"})
        made = get(database, key)
        note(database, "proposed", made)
    return made


def get(database: Database, correction_id: int) -> Correction:
    """One correction. Raises NotFoundError."""
    row = database.row("SELECT * FROM corrections WHERE id = ?", [correction_id])
    if row is None:
        raise NotFoundError(f"There is no correction {correction_id}.")
    return correction_of(row)


def in_status(database: Database, *statuses: Status) -> tuple[Correction, ...]:
    """All corrections in any of the given states, oldest first; all of them when none is given."""
    wanted = [s.value for s in statuses or tuple(Status)]
    marks = ",".join("?" * len(wanted))
    rows = database.rows(f"SELECT * FROM corrections WHERE status IN ({marks}) ORDER BY id", wanted)
    return tuple(correction_of(r) for r in rows)


def approve(database: Database, correction_id: int, reviewer: str, *, reason: str = "") -> Correction:
    """Approve a pending correction and retire the one it supersedes.

    Raises NotAllowedError when the reviewer wrote it, ConflictError when it is no longer pending.
    """
    reviewer = clean(reviewer, "reviewer")
    with database.write() as db:
        row = get(database, correction_id)
        if row.author == reviewer:
            raise NotAllowedError(f"{reviewer} wrote correction {correction_id} and may not approve it.")
        must_be(row, Status.PENDING)
        review = {
            "reviewer": reviewer,
            "reviewed_at": now(),
            "reason": reason.strip(),
            "approved_by": reviewer,
        }
        db.table("corrections").update(correction_id, review | {"status": Status.APPROVED.value})
        if row.supersedes is not None and get(database, row.supersedes).status is Status.APPROVED:
            db.table("corrections").update(row.supersedes, {"status": Status.SUPERSEDED.value})
            note(database, "superseded", get(database, row.supersedes), reviewer)
        approved = get(database, correction_id)
        note(database, "approved", approved, reviewer)
    return approved


def edit(
    database: Database,
    correction_id: int,
    reviewer: str,
    *,
    question: str | None = None,
    answer: str | None = None,
) -> Correction:
    """Change the text of a pending correction; it stays pending."""
    with database.write() as db:
        row = get(database, correction_id)
        must_be(row, Status.PENDING)
        changed = {
            "question": clean(question if question is not None else row.question, "question"),
            "answer": clean(answer if answer is not None else row.answer, "answer"),
            "reviewer": clean(reviewer, "reviewer"),
            "reviewed_at": now(),
        }
        db.table("corrections").update(correction_id, changed)
        db.execute("DELETE FROM wordings WHERE correction_id = ? AND kind = 'taught'", [correction_id])
        taught = {"correction_id": correction_id, "text": changed["question"], "kind": "taught"}
        db.table("wordings").insert(taught, replace=True)
        edited = get(database, correction_id)
        note(database, "edited", edited, edited.reviewer)
    return edited


def reject(database: Database, correction_id: int, reviewer: str, *, reason: str = "") -> Correction:
    """Refuse a pending correction."""
    return close(database, correction_id, reviewer, Status.REJECTED, reason, allowed=(Status.PENDING,))


def withdraw(database: Database, correction_id: int, reviewer: str, *, reason: str = "") -> Correction:
    """Take back a pending or approved correction; it stops answering at once."""
    return close(database, correction_id, reviewer, Status.WITHDRAWN, reason, allowed=(Status.PENDING, Status.APPROVED))


def close(
    database: Database,
    correction_id: int,
    reviewer: str,
    status: Status,
    reason: str,
    *,
    allowed: tuple[Status, ...],
) -> Correction:
    """Move a correction to a final state. Raises ConflictError when it is not in an allowed one."""
    with database.write() as db:
        must_be(get(database, correction_id), *allowed)
        review = {"reviewer": clean(reviewer, "reviewer"), "reviewed_at": now(), "reason": reason.strip()}
        db.table("corrections").update(correction_id, review | {"status": status.value})
        closed = get(database, correction_id)
        note(database, status.value, closed, closed.reviewer)
    return closed


def note(database: Database, verb: str, row: Correction, reviewer: str = "") -> None:
    """Log what became of a correction, by ids and hashes."""
    audit.append(
        database,
        f"correction.{verb}",
        id=row.id,
        author=row.author,
        reviewer=reviewer,
        scope=row.scope,
        question=audit.digest(row.question),
        answer=audit.digest(row.answer),
        reason=audit.digest(row.reason),
        supersedes=row.supersedes,
    )


def add_wordings(database: Database, correction_id: int, texts: Iterable[str], kind: str) -> None:
    """Store ways to ask a correction; known ones stay as they are, but a rejection overrules all but the taught one."""
    rows = [{"correction_id": correction_id, "text": t, "kind": kind} for t in texts]
    with database.write() as db:
        db.table("wordings").insert_all(rows, ignore=True)
        if kind == REJECTED:
            for row in rows:
                overrule(database, row)


def overrule(database: Database, row: Row) -> None:
    """Mark a known wording as rejected, and let the searches know."""
    sql = "UPDATE wordings SET kind = ? WHERE correction_id = ? AND text = ? AND kind NOT IN ('taught', 'rejected')"
    with database.write() as db:
        if db.conn.execute(sql, (REJECTED, row["correction_id"], row["text"])).rowcount:
            db.conn.execute("UPDATE state SET value = value + 1 WHERE name = 'taught_revision'")


def wordings(database: Database, correction_id: int) -> tuple[Wording, ...]:
    """All stored wordings of a correction."""
    sql = "SELECT id, correction_id, text, kind FROM wordings WHERE correction_id = ? ORDER BY id"
    return tuple(Wording(**r) for r in database.rows(sql, [correction_id]))


def wordings_to_embed(database: Database) -> list[Row]:
    """Wordings without a vector yet: rows with id and text."""
    return database.rows("SELECT id, text FROM wordings WHERE vector IS NULL")


def store_vectors(database: Database, vectors: Sequence[tuple[int, bytes]]) -> None:
    """Keep the embeddings (float32 bytes) of wordings."""
    with database.write() as db:
        db.conn.executemany("UPDATE wordings SET vector = ? WHERE id = ?", [(v, i) for i, v in vectors])


def taught(database: Database) -> list[Row]:
    """Every wording of every approved correction with its vector, its correction and its kind (rejected ones too)."""
    return database.rows(
        "SELECT w.id, w.text, w.kind, w.vector, c.id AS correction_id, c.question, c.answer, c.scope "
        "FROM wordings w JOIN corrections c ON c.id = w.correction_id "
        "WHERE c.status = 'approved' ORDER BY w.id"
    )


def taught_revision(database: Database) -> int:
    """A number that grows whenever a correction, a wording or the champion changes."""
    return int(database.value("SELECT value FROM state WHERE name = 'taught_revision'"))


def must_be(row: Correction, *allowed: Status) -> None:
    """Raise ConflictError unless the correction is in one of the allowed states."""
    if row.status not in allowed:
        raise ConflictError(f"Correction {row.id} is {row.status} already.")


def clean(text: str, name: str) -> str:
    """The text without surrounding space. Raises UserError when it is empty or too long."""
    text = text.strip()
    if not text:
        raise UserError(f"The {name} is empty.")
    if len(text) > MAX_CHARS:
        raise UserError(f"The {name} has {len(text):,} characters; {MAX_CHARS:,} are allowed.")
    return text


def correction_of(row: Row) -> Correction:
    """A database row as a Correction."""
    fields = {k: v for k, v in row.items() if k != "approved_by"}
    return Correction(**fields | {"status": Status(row["status"])})
