"""The review queue: propose, approve, edit, reject, withdraw, supersede; and the wordings of each correction.

Every change names who made it. That an author never approves their own row is held by the database itself;
this module only says it in words. It knows nothing of models: which correction is in which weights is `registry`'s.
"""

from collections.abc import Collection, Iterable, Sequence

from storage import audit, grounds, holds, private
from storage.database import Database, Row, now
from storage.domain import WORKSPACE, Correction, Status, Wording
from storage.errors import (
    ConflictError,
    ContradictionError,
    HeldError,
    NotAllowedError,
    NotFoundError,
    UserError,
)

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
    """Store a correction as pending.

    Raises UserError for an empty or oversized text, for one that holds a secret, and for a `supersedes` of another
    scope; NotFoundError for one that is not there.
    """
    must_hold_no_secret(question, answer, source)
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
        must_be_for(get(database, supersedes), scope)
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


def approve(
    database: Database,
    correction_id: int,
    reviewer: str,
    *,
    reason: str = "",
    supersedes: Collection[int] = (),
    anyway: bool = False,
) -> Correction:
    """Approve a pending correction and retire those that it supersedes: its own choice and the reviewer's.

    An approved one whose page was changed since is confirmed instead.
    Raises NotAllowedError when the reviewer wrote it (or, where four eyes are asked for on the text, changed it),
    ConflictError when it is no longer pending, HeldError while it is held, ContradictionError when an approved
    correction says otherwise and is neither superseded nor, with `anyway`, left beside it, UserError for a superseded
    one of another scope.
    """
    reviewer = clean(reviewer, "reviewer")
    with database.write() as db:
        row = get(database, correction_id)
        if row.status is Status.APPROVED and row.id in grounds.stale(database):
            return confirm(database, correction_id, reviewer)
        may_approve(database, row, reviewer)
        retired = tuple(dict.fromkeys([*supersedes, *([row.supersedes] if row.supersedes else [])]))
        if not anyway:
            must_agree(database, row, retired)
        for other in supersedes:
            must_be(get(database, other), Status.APPROVED)
        for other in retired:
            must_be_for(get(database, other), row.scope)
        review = {
            "reviewer": reviewer,
            "reviewed_at": now(),
            "reason": reason.strip(),
            "approved_by": reviewer,
            "supersedes": retired[-1] if retired else None,
        }
        db.table("corrections").update(correction_id, review | {"status": Status.APPROVED.value})
        for other in retired:
            if get(database, other).status is Status.APPROVED:
                db.table("corrections").update(other, {"status": Status.SUPERSEDED.value})
                note(database, "superseded", get(database, other), reviewer)
        approved = get(database, correction_id)
        grounds.note(database, approved)
        note(database, "approved", approved, reviewer)
    return approved


def confirm(database: Database, correction_id: int, reviewer: str) -> Correction:
    """Say that an approved correction holds although its page was changed; it answers again at once.

    Raises NotAllowedError when the reviewer wrote it, ConflictError when it is not approved.
    """
    reviewer = clean(reviewer, "reviewer")
    with database.write():
        row = get(database, correction_id)
        if row.author == reviewer:
            raise NotAllowedError(f"{reviewer} wrote correction {row.id} and may not confirm it.")
        must_be(row, Status.APPROVED)
        grounds.note(database, row)
        note(database, "confirmed", row, reviewer)
    return row


def may_approve(database: Database, row: Correction, reviewer: str) -> None:
    """Say in words what the triggers would refuse: one's own row, one's own wording, a closed or a held row."""
    if row.author == reviewer:
        raise NotAllowedError(f"{reviewer} wrote correction {row.id} and may not approve it.")
    must_be(row, Status.PENDING)
    if four_eyes_on_text(database) and reviewer in editors(database, row.id):
        raise NotAllowedError(f"{reviewer} changed the text of correction {row.id} and may not approve it.")
    if alike := holds.alike(database, row.id):
        raise HeldError(
            f"Correction {row.id} is held: it is nearly the same as {in_words(alike)}. "
            "Look at them together; if it is right, release it first."
        )


def must_agree(database: Database, row: Correction, retired: Collection[int]) -> None:
    """Raise ContradictionError when an approved correction outside `retired` says otherwise."""
    others = tuple(o for o in contradicted(database, row.id) if o not in retired)
    if not others:
        return
    old = get(database, others[0])
    choice = "Say whether it takes that one's place or both stand."
    if not may_replace(database, row.id, others):
        choice = "They are not for the same people, so neither replaces the other; say that both stand."
    raise ContradictionError(
        f"Correction {row.id} contradicts {in_words(others)}, already approved "
        f"(\u201c{old.question}\u201d: \u201c{old.answer}\u201d). {choice}",
        others,
    )


def may_replace(database: Database, correction_id: int, others: Collection[int]) -> bool:
    """Whether a correction is for the same people as all the others, so that it may take their place."""
    scope = get(database, correction_id).scope
    return all(get(database, other).scope == scope for other in others)


def contradicted(database: Database, correction_id: int) -> tuple[int, ...]:
    """The approved corrections that say otherwise, as noted when the later of the two was proposed or reworded."""
    rows = database.rows(
        "SELECT id FROM corrections WHERE status = 'approved' AND id IN ("
        "SELECT other_id FROM conflicts WHERE correction_id = ?1 AND kind = 'contradiction' UNION "
        "SELECT correction_id FROM conflicts WHERE other_id = ?1 AND kind = 'contradiction') ORDER BY id",
        [correction_id],
    )
    return tuple(r["id"] for r in rows)


def in_words(ids: Sequence[int]) -> str:
    """Some corrections by number: "correction 3", "corrections 3, 4 and 5"."""
    *first, last = map(str, ids)
    return f"corrections {', '.join(first)} and {last}" if first else f"correction {last}"


def four_eyes_on_text(database: Database, asked: bool | None = None) -> bool:
    """Whether who changed a text may not approve it; the trigger reads the same row. `asked` changes it."""
    held = bool(database.value("SELECT value FROM state WHERE name = 'four_eyes_on_text'"))
    if asked is None or asked == held:
        return held
    with database.write() as db:
        db.conn.execute("UPDATE state SET value = ? WHERE name = 'four_eyes_on_text'", (int(asked),))
    return asked


def editors(database: Database, correction_id: int) -> tuple[str, ...]:
    """Who changed the text of a correction after it was proposed."""
    sql = "SELECT DISTINCT editor FROM edits WHERE correction_id = ? ORDER BY id"
    return tuple(r["editor"] for r in database.rows(sql, [correction_id]))


def edit(
    database: Database,
    correction_id: int,
    reviewer: str,
    *,
    question: str | None = None,
    answer: str | None = None,
    reason: str = "",
) -> Correction:
    """Change the text of a pending correction; it stays pending. Raises UserError for a text that holds a secret.

    What it contradicts now is for the caller to find and to note, in the same transaction.
    """
    must_hold_no_secret(question or "", answer or "")
    with database.write() as db:
        row = get(database, correction_id)
        must_be(row, Status.PENDING)
        changed = {
            "question": clean(question if question is not None else row.question, "question"),
            "answer": clean(answer if answer is not None else row.answer, "answer"),
            "reviewer": clean(reviewer, "reviewer"),
            "reviewed_at": now(),
            "reason": reason.strip(),
        }
        db.table("corrections").update(correction_id, changed)
        if (changed["question"], changed["answer"]) != (row.question, row.answer):
            by = {"correction_id": correction_id, "editor": changed["reviewer"], "at": changed["reviewed_at"]}
            database.insert("edits", by)
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


def wordings_to_embed(database: Database, embedder: str) -> list[Row]:
    """Wordings without a vector of this sentence model yet: rows with id and text."""
    return database.rows("SELECT id, text FROM wordings WHERE vector IS NULL OR embedder <> ?", [embedder])


def store_vectors(database: Database, embedder: str, vectors: Sequence[tuple[int, bytes]]) -> None:
    """Keep the embeddings (float32 bytes) of wordings, and the name of the sentence model that made them."""
    with database.write() as db:
        sql = "UPDATE wordings SET vector = ?, embedder = ? WHERE id = ?"
        db.conn.executemany(sql, [(vector, embedder, number) for number, vector in vectors])


def taught(database: Database, embedder: str = "") -> list[Row]:
    """Every wording of every approved correction with its correction and its kind (rejected ones too).

    `vector` is the one that the named sentence model made, None where it made none: those of different models are
    never compared, and whoever names none gets none.
    """
    return database.rows(
        "SELECT w.id, w.text, w.kind, CASE WHEN w.embedder = ? THEN w.vector END AS vector, "
        "c.id AS correction_id, c.question, c.answer, c.scope "
        "FROM wordings w JOIN corrections c ON c.id = w.correction_id "
        "WHERE c.status = 'approved' ORDER BY w.id",
        [embedder],
    )


def taught_revision(database: Database) -> int:
    """A number that grows whenever a correction, a wording or the champion changes."""
    return int(database.value("SELECT value FROM state WHERE name = 'taught_revision'"))


def must_be(row: Correction, *allowed: Status) -> None:
    """Raise ConflictError unless the correction is in one of the allowed states."""
    if row.status not in allowed:
        raise ConflictError(f"Correction {row.id} is {row.status} already.")


def must_be_for(row: Correction, scope: str) -> None:
    """Raise UserError unless a correction is for the same people as the one that is to take its place."""
    if row.scope != scope:
        raise UserError(
            f"Correction {row.id} is for other people than this one, so this one cannot replace it; both may stand."
        )


def must_hold_no_secret(*texts: str) -> None:
    """Raise UserError when a text holds a secret: a correction may be trained, and weights do not forget."""
    secrets = private.find_secrets("\n".join(texts))
    if secrets:
        raise UserError(f"This correction holds a secret ({', '.join(secrets)}); remove it and send it again.")


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
