"""What a reviewer must see beside a correction: what the bot had said, the page behind it, how often it is asked.

Everything is read as it stands now. Pages are shown only from the scopes that are named. It knows nothing of Slack.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage import conversations, corrections, holds, private, registry
from storage.database import Database, Row
from storage.domain import WORKSPACE, Answer, Correction, Passage, Source, Status
from storage.errors import ConflictError

WORD = re.compile(r"\w{3,}")


@dataclass(frozen=True)
class Asked:
    """How often something was asked, by how many people, and when last (ISO 8601, empty for never)."""

    times: int
    people: int
    last: str


@dataclass(frozen=True)
class Evidence:
    """What stands beside one correction; `proof` is what the champion's exam measured, None when not trained."""

    asked: Asked
    given: Answer | None
    page: Passage | None
    proof: Row | None


@dataclass(frozen=True)
class Rival:
    """A correction that stands against another; `kind` is contradiction or duplicate."""

    kind: str
    row: Correction
    evidence: Evidence


@dataclass(frozen=True)
class Dossier:
    """A correction with everything that a reviewer weighs; `held_with` are those a held one is nearly the same as."""

    row: Correction
    evidence: Evidence
    rivals: tuple[Rival, ...]
    held_with: tuple[Correction, ...] = ()


def dossier(database: Database, correction_id: int) -> Dossier:
    """A correction, its evidence, and its rivals."""
    row = corrections.get(database, correction_id)
    rivals = [(kind, corrections.get(database, other)) for other, kind in conflicts_of(database, correction_id)]
    held_with = tuple(corrections.get(database, other) for other in holds.alike(database, correction_id))
    return Dossier(row, gather(database, row), tuple(Rival(k, r, gather(database, r)) for k, r in rivals), held_with)


def proof_in_words(proof: Mapping[str, Any]) -> str:
    """What the exam of a version measured of one correction: where it is, since when, and what it was asked."""
    told = [f"{'in' if proof.get('memorised') else 'not in'} the weights of {proof.get('version', 'a model')}"]
    if proof.get("since") not in (None, proof.get("version")):
        told[0] += f" since {proof['since']}"
    if "taught" in proof:
        told.append(f"taught wording {'right' if proof['taught'] else 'wrong'}")
    names = ("unseen", "near_misses_refused", "near_misses_bluffed")
    unseen, refused, bluffed = (counts_in(proof, name) for name in names)
    if unseen:
        told.append(f"unseen wordings right {unseen[0]} of {unseen[1]}")
    if refused:
        told.append(f"near-misses refused {refused[0]} of {refused[1]}")
    if bluffed:
        told.append(f"near-misses given this answer {bluffed[0]} of {bluffed[1]}")
    if "asked_in" in proof:
        told.append(f"other words last asked of {proof['asked_in']}")
    return ", ".join(told)


def counts_in(proof: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """A count and what it is of; None where the proof has none."""
    found = proof.get(name)
    return (int(found[0]), int(found[1])) if isinstance(found, list) and len(found) == 2 and found[1] else None


def note_conflicts(database: Database, correction_id: int, found: Sequence[tuple[int, str]]) -> None:
    """Keep the (correction, kind) pairs that a correction was found to contradict or repeat, and no earlier ones."""
    rows = [
        {"correction_id": max(correction_id, other), "other_id": min(correction_id, other), "kind": kind}
        for other, kind in found
    ]
    with database.write() as db:
        db.execute("DELETE FROM conflicts WHERE ?1 IN (correction_id, other_id)", [correction_id])
        db.table("conflicts").insert_all(rows, ignore=True)


def conflicts_of(database: Database, correction_id: int) -> list[tuple[int, str]]:
    """The (correction, kind) pairs that were noted of it and earlier ones, and of those later ones that still stand."""
    rows = database.rows(
        "SELECT other_id AS id, kind FROM conflicts WHERE correction_id = ?1 UNION "
        "SELECT c.id, kind FROM conflicts JOIN corrections c ON c.id = correction_id "
        "WHERE other_id = ?1 AND status IN ('pending', 'approved') ORDER BY kind, id",
        [correction_id],
    )
    return [(r["id"], r["kind"]) for r in rows]


def stamp(row: Correction) -> str:
    """A text that changes whenever somebody edits or decides about a correction."""
    return f"{row.status.value} {row.reviewed_at}"


def must_stand(database: Database, correction_id: int, seen: str) -> None:
    """Raise ConflictError when a correction is not as it was when somebody saw it; call it inside `write()`."""
    row = corrections.get(database, correction_id)
    if not seen or stamp(row) == seen:
        return
    if row.status is Status.PENDING:
        raise ConflictError(f"Somebody changed correction {row.id} meanwhile; look at it as it stands now.")
    raise ConflictError(f"Correction {row.id} is {row.status} already.")


def gather(database: Database, row: Correction) -> Evidence:
    """The evidence for and against a correction."""
    given = conversations.get_answer(database, row.answer_id) if row.answer_id is not None else None
    return Evidence(
        asked=asked(database, row),
        given=given,
        page=page_behind(database, row, given),
        proof=registry.proof(database, row.id),
    )


def asked(database: Database, row: Correction) -> Asked:
    """How often people asked what a correction answers: it answered them, or they asked in the same words."""
    found = database.row(
        "SELECT count(*) AS times, count(DISTINCT user) AS people, coalesce(max(asked_at), '') AS last FROM questions "
        "WHERE lower(trim(text)) = lower(trim(?)) "
        "OR id IN (SELECT question_id FROM answers WHERE correction_id = ?)",
        [row.question, row.id],
    )
    return Asked(**found) if found else Asked(0, 0, "")


def page_behind(database: Database, row: Correction, given: Answer | None) -> Passage | None:
    """The passage nearest to a correction in the documents that the bot's answer came from."""
    if given is None or not given.sources:
        return None
    candidates = passages_of(database, given.sources, scopes={WORKSPACE, row.scope})
    wanted = words(f"{row.question} {given.text}")
    headings = {(s.document, s.heading) for s in given.sources}

    def nearness(passage: Passage) -> tuple[bool, int, int]:
        named = (passage.document, passage.heading) in headings
        return named, len(wanted & words(passage.text)), -passage.id

    return max(candidates, key=nearness, default=None)


def passages_of(database: Database, sources: Sequence[Source], *, scopes: Collection[str]) -> list[Passage]:
    """All passages of the documents that some sources name, in reading order."""
    rows = database.rows(
        "SELECT p.id, p.document_id, d.title AS document, p.heading, p.text, d.url, d.scope "
        "FROM passages p JOIN documents d ON d.id = p.document_id "
        "WHERE d.title IN (SELECT value FROM json_each(?)) AND d.scope IN (SELECT value FROM json_each(?)) "
        "ORDER BY p.document_id, p.position",
        [json.dumps([s.document for s in sources]), json.dumps(sorted(scopes))],
    )
    return [Passage(**r) for r in rows]


def masked(database: Database, text: str, contacts: Collection[str]) -> str:
    """A text with personal data masked, but for the company's contacts and for what a page shows to everybody."""
    return private.mask_personal(text, contacts, lambda item: is_public(database, item))


def is_public(database: Database, item: str) -> bool:
    """Whether a page that everybody may read holds an address or a number to the letter."""
    sql = (
        "SELECT 1 FROM passages p JOIN documents d ON d.id = p.document_id "
        "WHERE d.scope = ? AND instr(lower(p.text), lower(?)) LIMIT 1"
    )
    return database.row(sql, [WORKSPACE, item]) is not None


def words(text: str) -> set[str]:
    """The words of a text that can tell one passage from another."""
    return set(WORD.findall(text.casefold()))
