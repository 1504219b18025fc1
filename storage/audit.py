"""The audit log: one entry for everything that was said, decided or switched, chained by hashes.

An entry is written in the transaction of the change it tells of. It holds ids and SHA-256 of content, never the
words themselves, so a text can be erased and the log still holds. Each entry's hash covers the entry before it, and
the newest hash (the head) is copied to places outside the database: a chain alone cannot tell that its end was cut.
It knows nothing of who reads it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import manifest
from storage.database import BACKUPS, Database, Row, now
from storage.settings import TABLE, Settings

log = logging.getLogger(__name__)

GENESIS = "genesis"
HEAD_FILE = "audit.head"
"""In the home folder, beside the database: the head after the last committed entry."""
BEGAN, RESTORED, SETTINGS = "log.began", "database.restored", "settings.changed"
GUARDS = ("audit_is_never_changed", "audit_is_never_deleted", "audit_is_in_order")
UNLOGGED = "unlogged:"
NOT_WATCHED = ("HOME", "LOG_LEVEL")
SECRET = "TOKEN"


@dataclass(frozen=True)
class Head:
    """The newest entry: its number and its hash."""

    seq: int
    hash: str

    def as_json(self) -> dict[str, Any]:
        """As manifests keep it, under the key `audit`."""
        return {"seq": self.seq, "hash": self.hash}

    def in_words(self) -> str:
        """As reports show it."""
        return f"audit log: {self.seq} entries, head {self.hash[:12]}"


@dataclass(frozen=True)
class Anchor:
    """A head that was noted outside the database, and where."""

    seq: int
    hash: str
    where: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with the log, at which entry; `kind` is order, edited, cut, anchor, guard or row."""

    seq: int
    kind: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What a verification found."""

    head: Head
    anchors: int
    restores: int
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


def append(database: Database, kind: str, **payload: Any) -> None:
    """Add an entry; inside a transaction it stands or falls with it. Payloads hold ids and hashes, no words."""
    with database.write() as db:
        last = head(database)
        if last.seq == 0 and kind != BEGAN:
            append(database, BEGAN, **unlogged(database))
            last = head(database)
        entry = (last.seq + 1, now(), kind, canonical(payload), last.hash)
        made = Head(entry[0], chained(*entry))
        db.conn.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (*entry, made.hash))
        database.after_commit("audit", lambda: write_head(database.home, made))


def head(database: Database) -> Head:
    """The newest entry; number 0 while there is none."""
    row = database.row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    return Head(row["seq"], row["hash"]) if row else Head(0, GENESIS)


def digest(text: str) -> str:
    """The SHA-256 of a text, as payloads hold it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def chained(seq: int, at: str, kind: str, payload: str, previous: str) -> str:
    """The hash of an entry, which covers the hash before it."""
    return digest(canonical([seq, at, kind, payload, previous]))


def canonical(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def unlogged(database: Database) -> dict[str, int]:
    """The highest id of each table that is older than the log."""
    rows = database.rows("SELECT name, value FROM state WHERE name GLOB ?", [UNLOGGED + "*"])
    return {row["name"].removeprefix(UNLOGGED): row["value"] for row in rows}


def entries(database: Database, *kinds: str) -> Iterator[Row]:
    """Entries in order (of these kinds, or all of them), the payload as a dict."""
    marks = ",".join("?" * len(kinds))
    where = f"WHERE kind IN ({marks})" if kinds else ""
    for row in database.rows(f"SELECT * FROM audit {where} ORDER BY seq", kinds):
        yield row | {"payload": payload_of(row)}


def payload_of(row: Row) -> dict[str, Any]:
    """The payload of an entry; empty when somebody made it unreadable."""
    try:
        told = json.loads(row["payload"])
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def note_settings(database: Database, settings: Settings) -> None:
    """Log which settings differ from those that were last in force; a token is logged as its hash."""
    in_force: dict[str, Any] = {s.name: shown(s.name, s.default) for s in TABLE}
    for entry in entries(database, SETTINGS):
        in_force |= entry["payload"]
    watched = {s.name: shown(s.name, settings.values[s.name]) for s in TABLE if s.name not in NOT_WATCHED}
    changed = {name: value for name, value in watched.items() if value != in_force.get(name)}
    if changed:
        append(database, SETTINGS, **changed)


def shown(name: str, value: Any) -> Any:
    """A setting as the log may hold it."""
    return f"sha256:{digest(str(value))}" if SECRET in name and value else value


# --- anchors ---


def write_head(home: Path, newest: Head) -> None:
    """Note the head beside the database, in one write of fixed length; a full disk costs the note, not the change."""
    try:
        descriptor = os.open(home / HEAD_FILE, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, f"{newest.seq:020d} {newest.hash}\n".encode("ascii"), 0)
        finally:
            os.close(descriptor)
    except OSError:
        log.warning("the head of the audit log could not be noted beside the database", exc_info=True)


def anchors(home: Path, backups: Path | None = None) -> tuple[Anchor, ...]:
    """Every head that was noted outside the database: beside it, in backups and in model manifests."""
    found = [*noted_head(home)]
    for folder in ((backups or home / BACKUPS), home / "models"):
        for file in sorted(folder.glob(f"*/{manifest.NAME}")):
            found += noted_in(file)
    return tuple(found)


def noted_head(home: Path) -> Iterator[Anchor]:
    """The head noted beside the database, if any."""
    try:
        seq, _, value = (home / HEAD_FILE).read_text(encoding="ascii").strip().partition(" ")
        yield Anchor(int(seq), value, HEAD_FILE)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield Anchor(-1, "", HEAD_FILE)


def noted_in(file: Path) -> Iterator[Anchor]:
    """The head noted in a manifest, if any; an unreadable manifest is its owner's business."""
    try:
        told = json.loads(file.read_text(encoding="utf-8")).get("audit")
        if told:
            yield Anchor(int(told["seq"]), str(told["hash"]), f"{file.parent.parent.name}/{file.parent.name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s is no readable manifest", file)


# --- verification ---


def verify(database: Database, noted: Iterable[Anchor] = ()) -> Verdict:
    """Check the chain, its guards, the anchors, and that the stored rows are what the log says of them."""
    rows = database.rows("SELECT * FROM audit ORDER BY seq")
    noted = tuple(noted)
    hashes = {row["seq"]: row["hash"] for row in rows}
    restores = [(row["seq"], payload_of(row)) for row in rows if row["kind"] == RESTORED]
    faults = [*broken_links(rows), *missing_guards(database)]
    faults += [fault for anchor in noted if (fault := anchor_fault(anchor, hashes, restores))]
    faults += row_faults(database, rows)
    return Verdict(head(database), len(noted), len(restores), tuple(faults))


def broken_links(rows: Iterable[Row]) -> Iterator[Fault]:
    """Entries that do not follow from the one before."""
    expected, previous = 1, GENESIS
    for row in rows:
        seq = row["seq"]
        if seq != expected:
            yield Fault(seq, "order", f"entry {seq} stands where {expected} should")
        elif row["previous"] != previous:
            yield Fault(seq, "order", f"entry {seq} does not follow the entry before it")
        if chained(seq, row["at"], row["kind"], row["payload"], row["previous"]) != row["hash"]:
            yield Fault(seq, "edited", f"entry {seq} is not what was written")
        expected, previous = seq + 1, row["hash"]


def missing_guards(database: Database) -> Iterator[Fault]:
    """Triggers of the log that somebody took away."""
    names = {row["name"] for row in database.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    for guard in GUARDS:
        if guard not in names:
            yield Fault(0, "guard", f"the trigger {guard} is gone")


def anchor_fault(anchor: Anchor, hashes: Mapping[int, str], restores: list[tuple[int, dict[str, Any]]]) -> Fault | None:
    """Why an anchor does not lie on the chain; None when it does, or on a branch that a restore replaced."""
    if anchor.seq == 0 or hashes.get(anchor.seq) == anchor.hash:
        return None
    if anchor.seq < 0:
        return Fault(0, "anchor", f"{anchor.where} cannot be read")
    if any(seq <= anchor.seq <= int(told.get("replaced_seq", 0)) for seq, told in restores):
        return None
    if anchor.seq > max(hashes, default=0):
        return Fault(anchor.seq, "cut", f"{anchor.where} has seen entry {anchor.seq}; the log ends before it")
    return Fault(anchor.seq, "anchor", f"{anchor.where} has seen another entry {anchor.seq}")


# --- the log against the rows ---

CORRECTION = "correction."
STATUS = {"proposed": "pending", "edited": "pending", "confirmed": "approved"}
"""The state of a correction after an entry of that kind; the other kinds are named as their state."""


@dataclass(frozen=True)
class Told:
    """What the log says of the rows: by table and id, column by column; a text as its hash, None once erased."""

    rows: dict[tuple[str, int], dict[str, Any]]
    champion: str | None


def row_faults(database: Database, rows: Iterable[Row]) -> Iterator[Fault]:
    """Stored rows that the log does not know, and rows that differ from what it says."""
    told = replay(rows)
    older = told.rows.get(("", 0)) or unlogged(database)
    for table, columns in (
        ("questions", ("text",)),
        ("answers", ("text", "route")),
        ("corrections", ("question", "answer", "status", "author")),
    ):
        stored = database.rows(f"SELECT id, {', '.join(columns)} FROM {table}")
        for number in {i for of, i in told.rows if of == table} - {row["id"] for row in stored}:
            yield Fault(0, "row", f"row {number} of {table} is gone")
        for row in stored:
            known = told.rows.get((table, row["id"]))
            if known is None and row["id"] > older.get(table, 0):
                yield Fault(0, "row", f"row {row['id']} of {table} is not in the log")
            elif known and (wrong := [c for c in columns if c in known and not same(known[c], row[c])]):
                yield Fault(0, "row", f"row {row['id']} of {table} has another {' and '.join(wrong)} than was logged")
    serving = database.value("SELECT version FROM aliases WHERE name = 'champion'")
    if told.champion is not None and serving != told.champion:
        yield Fault(0, "row", f"{serving} is the champion, the log says {told.champion}")


def replay(rows: Iterable[Row]) -> Told:
    """What the entries, one after the other, say of the rows."""
    known: dict[tuple[str, int], dict[str, Any]] = {}
    champion = None
    for row in rows:
        told, kind = payload_of(row), row["kind"]
        if kind == BEGAN:
            known["", 0] = told
        elif kind in ("question.asked", "answer.given"):
            table = "questions" if kind == "question.asked" else "answers"
            known[table, told.get("id", 0)] = {k: told[k] for k in ("text", "route") if k in told}
        elif kind.startswith(CORRECTION):
            verb = kind.removeprefix(CORRECTION)
            fields: dict[str, Any] = {k: told[k] for k in ("question", "answer", "author") if k in told}
            fields["status"] = STATUS.get(verb, verb)
            known.setdefault(("corrections", told.get("id", 0)), {}).update(fields)
        elif kind == "text.erased":
            forget(known, told)
        elif "champion" in told:
            champion = told["champion"]
    return Told(known, champion)


def forget(known: dict[tuple[str, int], dict[str, Any]], told: dict[str, Any]) -> None:
    """Expect the mark of erasure where texts were."""
    for table in ("questions", "answers", "corrections"):
        for number in told.get(table, ()):
            fields = known.get((table, number), {})
            fields.update({name: None for name in ("text", "question", "answer") if name in fields})


ERASED = "(erased)"
"""What stands in place of a text that was erased."""


def same(logged: Any, stored: Any) -> bool:
    """Whether a stored value is the logged one, given as itself, as its hash, or as None for an erased text."""
    if logged is None:
        return bool(stored == ERASED)
    return logged in (stored, digest(str(stored)))
