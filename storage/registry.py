"""Model versions and the three aliases: champion serves, previous can come back, candidate waits for its gates.

It stores what was measured of each version and which correction is in which weights. It never loads a model.
"""

import json
from typing import Any

from storage import audit, trust
from storage.database import Database, Row, now
from storage.domain import Memory, ModelVersion
from storage.errors import ConflictError, NotFoundError

BASE = "base"
"""The version that no night has touched."""


def register(database: Database, version: ModelVersion) -> None:
    """Store a version. Raises sqlite3.IntegrityError when the name is taken: names are never reused."""
    with database.write() as db:
        db.table("model_versions").insert(row_of(version))
        hashes = {"manifest": version.manifest_sha256, "snapshot": version.snapshot_sha256}
        audit.append(database, "model.registered", version=version.version, parent=version.parent, **hashes)


def ensure_base(database: Database, *, path: str, size: int, manifest_sha256: str, confidence: dict[str, Any]) -> str:
    """Register the base model as the first champion if there is none; returns the champion's name."""
    with database.write():
        if find(database, BASE) is None:
            register(
                database,
                ModelVersion(BASE, "", now(), path, "", manifest_sha256, "", size, (), confidence),
            )
        if alias(database, "champion") is None:
            point(database, "champion", BASE)
    return champion(database)


def rebase(database: Database, *, path: str, size: int, manifest_sha256: str) -> None:
    """Put another folder in the place of the base model's."""
    with database.write() as db:
        told = {"path": path, "bytes": size, "manifest_sha256": manifest_sha256}
        db.table("model_versions").update(BASE, told)
        audit.append(database, "model.rebased", version=BASE, manifest=manifest_sha256)


def find(database: Database, version: str) -> ModelVersion | None:
    """A version, or None."""
    row = database.row("SELECT * FROM model_versions WHERE version = ?", [version])
    return version_of(row) if row else None


def get(database: Database, version: str) -> ModelVersion:
    """A version. Raises NotFoundError."""
    found = find(database, version)
    if found is None:
        raise NotFoundError(f"There is no model version {version!r}; see 'nightshift models list'.")
    return found


def versions(database: Database) -> tuple[ModelVersion, ...]:
    """All versions, oldest first."""
    return tuple(version_of(r) for r in database.rows("SELECT * FROM model_versions ORDER BY rowid"))


def alias(database: Database, name: str) -> str | None:
    """The version an alias points to, or None."""
    found = database.value("SELECT version FROM aliases WHERE name = ?", [name])
    return None if found is None else str(found)


def champion(database: Database) -> str:
    """The version that serves. Raises NotFoundError before the first start."""
    found = alias(database, "champion")
    if found is None:
        raise NotFoundError("No model is registered yet; the first question or night registers the base model.")
    return found


def point(database: Database, name: str, version: str | None) -> None:
    """Point an alias at a version, or remove it."""
    with database.write() as db:
        if version is None:
            db.execute("DELETE FROM aliases WHERE name = ?", [name])
        else:
            db.table("aliases").insert({"name": name, "version": version}, pk="name", replace=True)
        audit.append(database, "model.pointed", **{name: version})


def promote(database: Database, version: str) -> str:
    """Make a version the champion and remember the one before; returns the earlier champion.

    Raises ConflictError when it is the champion already, or may not serve (see `trust`).
    """
    with database.write():
        trust.check(database, get(database, version))
        before = champion(database)
        if before == version:
            raise ConflictError(f"{version} is the champion already.")
        point(database, "previous", before)
        point(database, "champion", version)
        if alias(database, "candidate") == version:
            point(database, "candidate", None)
        audit.append(database, "model.promoted", champion=version, before=before)
    return before


def rollback(database: Database) -> tuple[str, str]:
    """Put the previous champion back; returns (version left, version now serving).

    Raises ConflictError when there is none, or it may not serve (see `trust`).
    """
    with database.write():
        left, back = champion(database), alias(database, "previous")
        if back is None:
            raise ConflictError("There is no previous model to roll back to.")
        found = get(database, back)
        trust.check(database, found)
        point(database, "champion", back)
        point(database, "previous", earlier(database, found))
        audit.append(database, "model.rolled_back", champion=back, left=left)
    return left, back


def rolled_back(database: Database) -> str | None:
    """The version that somebody left for the one that serves now, or None."""
    (*_, last) = (None, *audit.entries(database, "model.rolled_back", "model.promoted", "model.refused"))
    return str(last["payload"]["left"]) if last and last["kind"] == "model.rolled_back" else None


def retreat(database: Database, version: str) -> str:
    """Take a champion out for good and put the best earlier version in its place; returns that one.

    Raises ConflictError for the base model, which has nothing before it.
    """
    with database.write():
        bad, previous = get(database, version), find(database, alias(database, "previous") or "")
        trust.refuse(database, version)
        usable = previous is not None and previous.version != version and not trust.barred(database, previous)
        back = previous.version if previous and usable else earlier(database, bad)
        if back is None:
            raise ConflictError(f"There is no model before {version} that could serve.")
        point(database, "champion", back)
        point(database, "previous", earlier(database, get(database, back)))
        audit.append(database, "model.refused", champion=back, left=version)
    return back


def earlier(database: Database, version: ModelVersion) -> str | None:
    """The nearest ancestor that may serve, or None."""
    parent = find(database, version.parent)
    while parent is not None and trust.barred(database, parent):
        parent = find(database, parent.parent)
    return parent.version if parent else None


def recalibrate(database: Database, version: str, confidence: dict[str, Any]) -> None:
    """Put another confidence in the place of a version's; the bot that serves it takes it up."""
    told = json.dumps(confidence)
    with database.write() as db:
        db.table("model_versions").update(version, {"confidence": told})
        db.execute("UPDATE state SET value = value + 1 WHERE name = 'taught_revision'")
        audit.append(database, "model.recalibrated", version=version, confidence=audit.digest(told))


def remember(database: Database, memories: tuple[Memory, ...]) -> None:
    """Store what a version holds of each trained correction."""
    rows = [
        {
            "version": m.version,
            "correction_id": m.correction_id,
            "memorised": int(m.memorised),
            "proof": json.dumps(m.proof),
        }
        for m in memories
    ]
    with database.write() as db:
        db.table("memories").insert_all(rows, replace=True, pk=("version", "correction_id"))


def memories(database: Database, version: str) -> dict[int, Memory]:
    """What a version holds, by correction id."""
    rows = database.rows("SELECT * FROM memories WHERE version = ?", [version])
    return {r["correction_id"]: memory_of(r) for r in rows}


def proof(database: Database, correction_id: int) -> Row | None:
    """The proof of a correction in the champion: version, memorised, since when, the numbers; None when not trained."""
    name = alias(database, "champion")
    row = database.row("SELECT * FROM memories WHERE version = ? AND correction_id = ?", [name, correction_id])
    if row is None:
        return None
    first = since(database, row["version"], correction_id).get(correction_id)
    return {"version": row["version"], "memorised": bool(row["memorised"]), "since": first, **json.loads(row["proof"])}


def since(database: Database, version: str, correction_id: int | None = None) -> dict[int, str]:
    """The first of the versions that held each correction without a break up to `version`; one or all that it holds."""
    rows = database.rows(
        "SELECT m.correction_id AS id, m.version, v.parent FROM memories m JOIN model_versions v USING (version) "
        "WHERE m.memorised = 1 AND m.correction_id = coalesce(?, m.correction_id)",
        [correction_id],
    )
    before: dict[int, dict[str, str]] = {}
    for row in rows:
        before.setdefault(row["id"], {})[row["version"]] = row["parent"]
    found = {}
    for number, parents in before.items():
        at = version
        while at in parents:
            found[number], at = at, parents[at]
    return found


def memory_of(row: Row) -> Memory:
    """A database row as a Memory."""
    return Memory(row["version"], row["correction_id"], bool(row["memorised"]), json.loads(row["proof"]))


def row_of(version: ModelVersion) -> Row:
    """A ModelVersion as a database row."""
    return {
        **{k: getattr(version, k) for k in ModelVersion.__dataclass_fields__},
        "gates": json.dumps(version.gates),
        "confidence": json.dumps(version.confidence),
    }


def version_of(row: Row) -> ModelVersion:
    """A database row as a ModelVersion."""
    fields = row | {"gates": tuple(json.loads(row["gates"])), "confidence": json.loads(row["confidence"])}
    return ModelVersion(**fields)
