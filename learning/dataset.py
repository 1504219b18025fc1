"""Approved corrections become a frozen, hashed snapshot of training examples.

Only approved rows of scope `workspace` may enter; votes never do. Every fact keeps wordings that are never trained,
so that its proof is measured on words the model has not seen. It knows nothing of tokens or tensors.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bot.prompt import UNKNOWN
from learning import wordings
from retrieval.taught import Encoder
from storage import corrections, registry
from storage.database import Database
from storage.domain import WORKSPACE, Correction, Status

WORDINGS = 14
HELD_OUT = 2
NEAR_MISSES = 4
TRAINED_NEAR_MISSES = 2


@dataclass(frozen=True)
class Fact:
    """One correction with the words it is trained in, the words kept back, and questions it does not answer."""

    correction_id: int
    question: str
    answer: str
    author: str
    approver: str
    source: str
    is_new: bool
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    near_misses: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One question and the answer to be learnt; `correction_id` says where it came from."""

    question: str
    answer: str
    kind: str
    correction_id: int


@dataclass(frozen=True)
class Snapshot:
    """What one night trains from. The hash covers every fact and every example."""

    facts: tuple[Fact, ...]
    examples: tuple[Example, ...]
    withdrawn: tuple[int, ...]
    seed: int
    sha256: str

    @property
    def new(self) -> tuple[Fact, ...]:
        """The facts that the champion was never trained on."""
        return tuple(f for f in self.facts if f.is_new)

    @property
    def old(self) -> tuple[Fact, ...]:
        """The facts that the champion was trained on already."""
        return tuple(f for f in self.facts if not f.is_new)

    @property
    def nothing_to_learn(self) -> bool:
        """Whether a night would change nothing."""
        return not self.new and not self.withdrawn


def freeze(database: Database, embedder: Encoder, *, seed: int) -> Snapshot:
    """The snapshot of this moment."""
    rows = [r for r in corrections.in_status(database, Status.APPROVED) if r.scope == WORKSPACE]
    known = registry.memories(database, registry.champion(database))
    facts = tuple(fact_of(database, row, rows, embedder, is_new=row.id not in known, seed=seed) for row in rows)
    withdrawn = tuple(sorted(set(known) - {r.id for r in rows}))
    examples = tuple(e for f in facts for e in examples_of(f))
    return Snapshot(facts, examples, withdrawn, seed, fingerprint(facts, examples, withdrawn, seed))


def fact_of(
    database: Database,
    row: Correction,
    rows: Sequence[Correction],
    embedder: Encoder,
    *,
    is_new: bool,
    seed: int,
) -> Fact:
    """A correction with its wordings, filtered so that none is nearer to another taught question."""
    stored = corrections.wordings(database, row.id)
    asked = [w.text for w in stored if w.kind == "asked"]
    refused = [w.text for w in stored if w.kind == "rejected"]
    made = [*asked, *wordings.generate(row.question, WORDINGS + HELD_OUT, seed)]
    own = nearest_to(row.question, [q.question for q in rows], made, embedder)
    held_out = own[-HELD_OUT:] if len(own) > 2 * HELD_OUT else []
    trained = (row.question, *(w for w in own if w not in held_out))
    others = [r.question for r in rows if r.id != row.id]
    near = (*refused, *wordings.near_misses(row.question, others, NEAR_MISSES, seed))
    return Fact(
        correction_id=row.id,
        question=row.question,
        answer=row.answer,
        author=row.author,
        approver=row.reviewer,
        source=row.source,
        is_new=is_new,
        trained=tuple(dict.fromkeys(trained)),
        held_out=tuple(held_out),
        near_misses=tuple(dict.fromkeys(near)),
    )


def nearest_to(question: str, questions: Sequence[str], made: Sequence[str], embedder: Encoder) -> list[str]:
    """The wordings whose nearest taught question is `question` itself."""
    if not made:
        return []
    taught = embedder.encode(list(questions))
    nearest = np.argmax(embedder.encode(list(made)) @ taught.T, axis=1)
    return [w for w, at in zip(made, nearest.tolist(), strict=True) if questions[at] == question]


def examples_of(fact: Fact) -> list[Example]:
    """The training rows of one fact: its answer in every trained wording, and "not in my notes" for near-misses."""
    known = [Example(w, fact.answer, "fact", fact.correction_id) for w in fact.trained]
    unknown = [Example(n, UNKNOWN, "unknown", fact.correction_id) for n in fact.near_misses[:TRAINED_NEAR_MISSES]]
    return known + unknown


def fingerprint(facts: Sequence[Fact], examples: Sequence[Example], withdrawn: Sequence[int], seed: int) -> str:
    """SHA-256 over everything that a night trains from."""
    everything = {
        "facts": [asdict(f) for f in facts],
        "examples": [asdict(e) for e in examples],
        "withdrawn": list(withdrawn),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def keep_wordings(database: Database, fact: Fact) -> None:
    """Store the wordings a fact was trained in, so that they find it from now on."""
    corrections.add_wordings(database, fact.correction_id, fact.trained, "generated")
