"""Proposing a correction: refuse secrets, find what it contradicts or repeats, put it into the queue.

It knows nothing of Slack or of training; approving is `storage.corrections`'.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bot import safety
from bot.confidence import codes, negated, plain
from retrieval.taught import Encoder
from storage import corrections
from storage.database import Database
from storage.domain import WORKSPACE, Correction, Status
from storage.errors import UserError

SAME_QUESTION = 0.80
"""Cosine of two questions from which their answers are compared; shown to a person, so better too many than too few."""
SAME_ANSWER = 0.90
UNITS = re.compile(r"\s+")


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
    return Proposal(row, conflicts(embedder, row, [o for o in open_rows if o.id != supersedes]))


def conflicts(embedder: Encoder, row: Correction, others: Sequence[Correction]) -> tuple[Conflict, ...]:
    """The corrections among `others` that answer the same question, each as a contradiction or a duplicate."""
    if not others:
        return ()
    questions = embedder.encode([row.question, *(o.question for o in others)])
    near = [
        o for o, cosine in zip(others, (questions[1:] @ questions[0]).tolist(), strict=True) if cosine >= SAME_QUESTION
    ]
    near = [o for o in near if same_subject(row.question, o.question)]
    if not near:
        return ()
    answers = embedder.encode([row.answer, *(o.answer for o in near)])
    likeness = (answers[1:] @ answers[0]).tolist()
    return tuple(
        Conflict(
            o.id,
            o.question,
            o.answer,
            "duplicate" if same_claim(row.answer, o.answer, like) else "contradiction",
        )
        for o, like in zip(near, likeness, strict=True)
    )


def same_subject(left: str, right: str) -> bool:
    """Whether two questions name the same codes and numbers."""
    return codes(left) == codes(right)


def same_claim(left: str, right: str, likeness: float) -> bool:
    """Whether two answers say the same: equal text, or alike with equal numbers and equal negation."""
    if plain(left) == plain(right):
        return True
    return likeness >= SAME_ANSWER and codes(left) == codes(right) and negated(left) == negated(right)
