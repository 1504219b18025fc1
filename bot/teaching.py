"""Proposing a correction: refuse secrets, find what it contradicts or repeats, put it into the queue.

It knows nothing of Slack or of training; approving is `storage.corrections`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bot import safety
from retrieval import claims
from retrieval.claims import Claim
from retrieval.taught import Encoder
from storage import corrections, evidence
from storage.database import Database
from storage.domain import WORKSPACE, Correction, Status
from storage.errors import UserError


@dataclass(frozen=True)
class Conflict:
    """An earlier correction of the same question; `kind` is contradiction or duplicate."""

    correction_id: int
    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Proposal:
    """A pending correction and what the reviewer must see beside it."""

    correction: Correction
    conflicts: tuple[Conflict, ...]


def propose(
    database: Database,
    embedder: Encoder,
    *,
    question: str,
    answer: str,
    author: str,
    source: str = "",
    scope: str = WORKSPACE,
    answer_id: int | None = None,
    supersedes: int | None = None,
) -> Proposal:
    """Store a correction as pending with its conflicts. Raises UserError when it holds a secret or is empty."""
    secrets = safety.find_secrets(f"{question}\n{answer}\n{source}")
    if secrets:
        raise UserError(f"This correction holds a secret ({', '.join(secrets)}); remove it and send it again.")
    open_rows = corrections.in_status(database, Status.PENDING, Status.APPROVED)
    row = corrections.propose(
        database,
        question=question,
        answer=answer,
        author=author,
        source=source,
        scope=scope,
        answer_id=answer_id,
        supersedes=supersedes,
    )
    found = conflicts(embedder, row, [o for o in open_rows if o.id != supersedes])
    evidence.note_conflicts(database, row.id, [(c.correction_id, c.kind) for c in found])
    return Proposal(row, found)


def conflicts(embedder: Encoder, row: Correction, others: Sequence[Correction]) -> tuple[Conflict, ...]:
    """The corrections among `others` that contradict or repeat a row; those of other private channels stay unseen."""
    seen = [o for o in others if o.id != row.id and o.scope in (WORKSPACE, row.scope)]
    kinds = claims.compare(embedder, claim_of(row), [claim_of(o) for o in seen])
    return tuple(
        Conflict(o.id, o.question, o.answer, kind)
        for o, kind in zip(seen, kinds, strict=True)
        if kind != claims.UNRELATED
    )


def claim_of(row: Correction) -> Claim:
    """What a correction claims."""
    return Claim(row.question, row.answer)
