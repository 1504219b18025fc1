"""A bot that was taught one, three or ten facts: are questions about other things taken for the taught ones?

Half of the demo company's facts are taught, a few at a time, and the others of that half are asked too; the confidence
saw neither the facts nor the questions of that half. Then the halves change places. It measures the decision alone,
with no model and no documents.
"""

import random
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.confidence import Confidence
from learning import calibrate, ship
from retrieval.embedder import Embedder
from storage import company
from storage.database import Database
from tests.bench.routed import fitted, texts_of

SIZES = (1, 3, 10)
MIX = {"wording": 0.8, "near_miss": 0.1, "stranger": 0.1}
STRANGERS = 10
SEED = 11


@dataclass(frozen=True)
class Decided:
    """One question: its kind, how sure the head was, whether that is direct or an offer, and whether it was right."""

    size: int
    kind: str
    direct: bool
    offered: bool
    right: bool


def decided(embedder: Embedder) -> list[Decided]:
    """Every question of both halves at every size."""
    facts = list(company.facts())
    random.Random(SEED).shuffle(facts)
    half = len(facts) // 2
    return [d for own in (facts[:half], facts[half:]) for d in of_half(embedder, own)]


def of_half(embedder: Embedder, facts: Sequence[company.CompanyFact]) -> Iterator[Decided]:
    """The questions of one half, by a head that was fitted on the other one."""
    head = fitted_without(facts).head("same")
    for size in SIZES:
        for start in range(0, len(facts), size):
            shelf = facts[start : start + size]
            rest = [f for f in facts if f not in shelf]
            rng = random.Random(f"{SEED}:{size}:{start}")
            asked = [rng.choice((f.question, *f.wordings)) for f in rng.sample(rest, min(STRANGERS, len(rest)))]
            with tempfile.TemporaryDirectory() as home:
                rows = list(ship.rows_of_shelf(Database(Path(home)), embedder, shelf, asked))
            for row in rows:
                kind = "stranger" if row["asked"] in asked else row["kind"]
                said = head.probability(row["features"])
                yield Decided(size, kind, said >= head.direct, said >= head.related, bool(row["correct"]))


def fitted_without(facts: Collection[company.CompanyFact]) -> Confidence:
    """The confidence from the shipped rows that neither are about these facts nor ask for them."""
    names, texts = {f.id for f in facts}, texts_of(facts)
    rows = [r for r in calibrate.shipped_rows() if str(r["fact"]) not in names and r["asked"] not in texts]
    return fitted(rows)


def share(rows: Sequence[Decided], kind: str, what: str) -> float:
    """Of the questions of a kind, the share that got something: `direct` or `offered`."""
    own = [getattr(d, what) for d in rows if d.kind == kind]
    return sum(own) / len(own) if own else 0.0


def wrong_among_direct(rows: Sequence[Decided]) -> float:
    """The share of wrong answers among direct ones, with the kinds weighted by the mix; 0 when none was direct."""
    counts = {kind: sum(d.kind == kind for d in rows) for kind in MIX}
    weighted = [(MIX[d.kind] / counts[d.kind], d.right) for d in rows if d.direct]
    total = sum(w for w, _ in weighted)
    return sum(w for w, right in weighted if not right) / total if total else 0.0
