"""Proposing a correction: refuse secrets, find what it contradicts or repeats, put it into the queue.

Several corrections of one matter within hours are a flood: from a limit on, the later ones are held until a reviewer
releases them one by one. It knows nothing of Slack or of training; approving is `storage.corrections`'.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict

from retrieval import claims
from retrieval.claims import Claim
from retrieval.taught import Encoder
from storage import corrections, evidence, holds
from storage.database import Database
from storage.domain import WORKSPACE, Correction, Status
from storage.settings import Settings

NEARLY_THE_SAME = 0.95
"""Cosine of two facts (question and answer) from which they count as one matter whatever the rules say."""


Pairs = tuple[tuple[int, str], ...]
"""Corrections that one contradicts or repeats, and which of the two; as `evidence.note_conflicts` keeps them."""


@dataclass(frozen=True)
class Conflict:
    """An earlier correction of the same question; `kind` is contradiction or duplicate, `scope` who it is for."""

    correction_id: int
    question: str
    answer: str
    kind: str
    scope: str = WORKSPACE


@dataclass(frozen=True)
class Proposal:
    """A pending correction and what the reviewer must see beside it."""

    correction: Correction
    conflicts: tuple[Conflict, ...]
    held_with: tuple[int, ...] = ()
    masked: bool = False

    @property
    def pairs(self) -> Pairs:
        """The conflicts as they are stored."""
        return tuple((c.correction_id, c.kind) for c in self.conflicts)


@dataclass(frozen=True)
class Flood:
    """How many corrections of one matter are taken within how many hours before further ones are held; 0: all."""

    limit: int = 3
    hours: float = 24


class Rules(TypedDict):
    """What the settings say about taking corrections."""

    flood: Flood
    contacts: Collection[str]


def rules_of(settings: Settings) -> Rules:
    """The limits and the company's contacts as the settings name them."""
    flood = Flood(settings.integer("FLOOD_LIMIT"), settings.number("FLOOD_HOURS"))
    return {"flood": flood, "contacts": settings.names("COMPANY_CONTACTS")}


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
    rewords: int | None = None,
    flood: Flood = Flood(),
    contacts: Collection[str] = (),
) -> Proposal:
    """Store a correction as pending, personal data masked, with its conflicts; held when it is one of a flood.

    With `rewords`, the id of a waiting one, nothing is stored: it is only compared anew, in these words.
    Raises UserError when it holds a secret or is empty.
    """
    texts = Claim(*(evidence.masked(database, text, contacts) for text in (question, answer)))
    if rewords is not None:
        return reworded(database, embedder, corrections.get(database, rewords), texts)
    open_rows = corrections.in_status(database, Status.PENDING, Status.APPROVED)
    seen = [o for o in open_rows if o.scope in (WORKSPACE, scope)]
    found = conflicts(embedder, texts, seen)
    alike = one_matter(embedder, texts, [o for o in seen if o.scope == scope], found, flood)
    told = tuple(c for c in found if c.correction_id != supersedes)
    with database.write():
        row = corrections.propose(
            database,
            question=texts.question,
            answer=texts.answer,
            author=author,
            source=source,
            scope=scope,
            answer_id=answer_id,
            supersedes=supersedes,
        )
        proposal = Proposal(row, told, alike, masked=(texts.question, texts.answer) != (question, answer))
        evidence.note_conflicts(database, row.id, proposal.pairs)
        if alike:
            holds.begin(database, row.id, alike)
    return proposal


def reworded(database: Database, embedder: Encoder, row: Correction, claim: Claim) -> Proposal:
    """A waiting correction with its conflicts in other words, as if the later of each two were proposed only now."""
    open_rows = corrections.in_status(database, Status.PENDING, Status.APPROVED)
    others = [o for o in open_rows if o.id not in (row.id, row.supersedes) and met(o, row)]
    return Proposal(row, conflicts(embedder, claim, others))


def met(one: Correction, other: Correction) -> bool:
    """Whether the later of two corrections is for people who have the earlier one too."""
    earlier, later = sorted((one, other), key=lambda row: row.id)
    return earlier.scope in (WORKSPACE, later.scope)


def conflicts(embedder: Encoder, claim: Claim, others: Sequence[Correction]) -> tuple[Conflict, ...]:
    """The corrections among `others` that contradict or repeat a claim."""
    kinds = claims.compare(embedder, claim, [claim_of(o) for o in others])
    return tuple(
        Conflict(o.id, o.question, o.answer, kind, o.scope)
        for o, kind in zip(others, kinds, strict=True)
        if kind != claims.UNRELATED
    )


def one_matter(
    embedder: Encoder, claim: Claim, others: Sequence[Correction], found: Sequence[Conflict], flood: Flood
) -> tuple[int, ...]:
    """The fresh corrections of the same matter as a claim, when they are as many as a flood; else none.

    One matter: they contradict or repeat each other, or nearly every word is the same. Whoever wrote them counts.
    """
    since = (datetime.now(UTC) - timedelta(hours=flood.hours)).isoformat(timespec="microseconds")
    fresh = [o for o in others if o.created_at >= since]
    if not flood.limit or len(fresh) < flood.limit:
        return ()
    alike = {c.correction_id for c in found} & {o.id for o in fresh}
    cosines = claims.likeness(embedder, claim.text, [claim_of(o).text for o in fresh])
    alike |= {o.id for o, cosine in zip(fresh, cosines, strict=True) if cosine >= NEARLY_THE_SAME}
    return tuple(sorted(alike)) if len(alike) >= flood.limit else ()


def claim_of(row: Correction) -> Claim:
    """What a correction claims."""
    return Claim(row.question, row.answer)
