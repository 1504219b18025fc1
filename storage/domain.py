"""The nouns of Nightshift as frozen dataclasses.

They carry no behaviour beyond reading themselves, and know nothing of SQL, Slack, Chroma or torch.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

WORKSPACE = "workspace"
"""The scope that everybody in the company may read, and the only one that is ever trained."""


class Route(StrEnum):
    """Which of the four ways an answer came."""

    APPROVED = "APPROVED"
    MEMORISED = "MEMORISED"
    RETRIEVED = "RETRIEVED"
    ABSTAINED = "ABSTAINED"


class Style(StrEnum):
    """How the answer speaks: as the answer, as the closest taught one, in own words, as a quote, or not at all."""

    DIRECT = "direct"
    RELATED = "related"
    GENERATED = "generated"
    QUOTED = "quoted"
    NONE = "none"


class Status(StrEnum):
    """Where a correction stands in the review queue."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Question:
    """What somebody asked, where and when (ISO 8601, UTC); `repeats` is the question that this asks anew."""

    id: int
    text: str
    user: str
    channel: str
    thread: str
    asked_at: str
    repeats: int | None = None


@dataclass(frozen=True)
class Source:
    """A page that an answer rests on; `score` is the fused retrieval score, higher is nearer, 1 if it was taught."""

    document: str
    heading: str
    url: str
    score: float


@dataclass(frozen=True)
class Passage:
    """A piece of a document under its heading; `score` is 0 until a search sets it."""

    id: int
    document_id: int
    document: str
    heading: str
    text: str
    url: str
    scope: str
    score: float = 0.0

    @property
    def titled(self) -> str:
        """The text with `title > heading` in front, as it is embedded and searched."""
        return f"{self.document} > {self.heading}\n{self.text}" if self.heading else f"{self.document}\n{self.text}"


@dataclass(frozen=True)
class Suggestion:
    """A taught question that may be the one that was meant, where none was near enough to be answered."""

    correction_id: int
    question: str


@dataclass(frozen=True)
class Answer:
    """One reply. `confidence` is a calibrated probability (0..1); `timings` are milliseconds by stage."""

    question_id: int
    text: str
    route: Route
    style: Style
    confidence: float
    model_version: str
    taught_question: str = ""
    correction_id: int | None = None
    sources: tuple[Source, ...] = ()
    features: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    suggestions: tuple[Suggestion, ...] = ()
    id: int = 0


@dataclass(frozen=True)
class Feedback:
    """One person's vote on one answer: +1 or -1, and what was wrong if they said so."""

    answer_id: int
    user: str
    vote: int
    reason: str
    at: str


@dataclass(frozen=True)
class Correction:
    """A better answer that somebody proposed. Only approved rows of scope `workspace` are ever trained."""

    id: int
    question: str
    answer: str
    author: str
    source: str
    scope: str
    status: Status
    created_at: str
    answer_id: int | None = None
    supersedes: int | None = None
    reviewer: str = ""
    reviewed_at: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Wording:
    """One way to ask what a correction answers; `kind` is taught, generated, asked or rejected."""

    id: int
    correction_id: int
    text: str
    kind: str


@dataclass(frozen=True)
class ModelVersion:
    """A published model: a merged folder, the gates it passed, and the confidence fitted for its weights."""

    version: str
    parent: str
    created_at: str
    path: str
    adapter_path: str
    manifest_sha256: str
    snapshot_sha256: str
    bytes: int
    gates: tuple[dict[str, Any], ...]
    confidence: dict[str, Any]


@dataclass(frozen=True)
class Memory:
    """What one model version holds of one correction, and the proof that was measured."""

    version: str
    correction_id: int
    memorised: bool
    proof: dict[str, Any]


@dataclass(frozen=True)
class Notice:
    """Something the bot owes a person: written by the night, delivered by the bot."""

    id: int
    user: str
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class NightlyRun:
    """One night: how it ended, why, and how long each stage took (seconds)."""

    id: int
    started_at: str
    finished_at: str
    outcome: str
    version: str
    parent: str
    reason: str
    report: dict[str, Any]
