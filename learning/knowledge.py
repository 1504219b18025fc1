"""The inventory: which correction is in which model, since when, from whom, who approved it, and its proof.

One whose page was changed since is marked stale. It reads what the nights have stored; rows that were withdrawn or
superseded are listed as long as any registered version was trained on them. It knows nothing of weights.
"""

import json
from pathlib import Path
from typing import Any

from storage import grounds, registry
from storage.database import Database, Row
from storage.domain import WORKSPACE
from storage.grounds import Stale


def inventory(database: Database, version: str | None = None) -> dict[str, Any]:
    """What one version holds, or without one what all versions hold and which approved rows still wait for a night.

    Raises NotFoundError for a version that does not exist.
    """
    if version is not None:
        registry.get(database, version)
    champion = registry.alias(database, "champion")
    held = holders(database)
    changed = grounds.stale(database)
    rows = [entry(row, held.get(row["id"], []), champion, changed.get(row["id"])) for row in taught(database)]
    chosen = [r for r in rows if version is None or any(h["version"] == version for h in r["versions"])]
    return {
        "version": version,
        "champion": champion,
        "versions": [shelf(database, v.version, held) for v in registry.versions(database)],
        "facts": chosen,
        "withdrawn_but_held": [r["correction_id"] for r in chosen if r["versions"] and r["status"] != "approved"],
        "waiting": [r["correction_id"] for r in chosen if not r["versions"]],
        "stale": [r["correction_id"] for r in chosen if r["stale"]],
    }


def taught(database: Database) -> list[Row]:
    """Corrections that may be or have been trained: approved ones of the workspace, and all that any version holds."""
    return database.rows(
        "SELECT id, question, answer, author, approved_by, source, status, scope, reviewed_at, supersedes "
        "FROM corrections WHERE (status = 'approved' AND scope = ?) OR id IN (SELECT correction_id FROM memories) "
        "ORDER BY id",
        [WORKSPACE],
    )


def holders(database: Database) -> dict[int, list[dict[str, Any]]]:
    """The versions that were trained on each correction, oldest first, with the proof that each one gave."""
    rows = database.rows(
        "SELECT m.correction_id, m.version, m.memorised, m.proof, v.created_at, v.path FROM memories m "
        "JOIN model_versions v ON v.version = m.version ORDER BY v.rowid"
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        held = {
            "version": row["version"],
            "created": row["created_at"],
            "memorised": bool(row["memorised"]),
            "proof": json.loads(row["proof"]),
            "weights_kept": Path(row["path"]).is_dir(),
        }
        found.setdefault(row["correction_id"], []).append(held)
    return found


def entry(row: Row, held: list[dict[str, Any]], champion: str | None, changed: Stale | None) -> dict[str, Any]:
    """One correction of the inventory; `since` is the first version that memorised it."""
    since = next((h for h in held if h["memorised"]), None)
    serving = next((h for h in held if h["version"] == champion), None)
    return {
        "correction_id": row["id"],
        "question": row["question"],
        "answer": row["answer"],
        "status": row["status"],
        "author": row["author"],
        "approver": row["approved_by"],
        "source": row["source"],
        "supersedes": row["supersedes"],
        "since": {"version": since["version"], "created": since["created"]} if since else None,
        "in_champion": bool(serving and serving["memorised"]),
        "proof": serving["proof"] if serving else None,
        "stale": stale_json(changed) if changed else None,
        "versions": held,
    }


def stale_json(changed: Stale) -> dict[str, Any]:
    """Which page of a correction was changed, or is gone, and since when."""
    return {"document": changed.document, "heading": changed.heading, "since": changed.since, "gone": changed.gone}


def shelf(database: Database, version: str, held: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """One version with the numbers of corrections it was trained on and has memorised."""
    mine = [h for those in held.values() for h in those if h["version"] == version]
    found = registry.get(database, version)
    return {
        "version": version,
        "parent": found.parent,
        "created": found.created_at,
        "trained": len(mine),
        "memorised": sum(h["memorised"] for h in mine),
        "weights_kept": Path(found.path).is_dir(),
    }


def place(stale: dict[str, Any]) -> str:
    """What happened to a page, and since when."""
    page = " > ".join(part for part in (stale["document"], stale["heading"]) if part)
    return f"{page} {'is gone' if stale['gone'] else 'was changed'} (since {stale['since'][:16].replace('T', ' ')} UTC)"


def in_words(told: dict[str, Any]) -> str:
    """The inventory for a person at a terminal."""
    lines = []
    for fact in told["facts"]:
        since = f"since {fact['since']['version']}" if fact["since"] else "in no model"
        names = ", ".join(h["version"] for h in fact["versions"] if h["memorised"] and h["weights_kept"])
        lines.append(
            f"{fact['correction_id']:>4} {fact['status']:<10} {since:<24} {fact['question']} -> {fact['answer']}"
            f" [{fact['author']}, approved by {fact['approver']}; held by {names or 'no kept model'}]"
        )
        if fact["stale"]:
            lines.append(f"     STALE: {place(fact['stale'])}; documents answer this until it is approved again.")
    if told["withdrawn_but_held"]:
        ids = ", ".join(map(str, told["withdrawn_but_held"]))
        lines.append(f"Taken back, but still in older weights: {ids}.")
    return "\n".join(lines) or "Nothing was taught yet."
