"""Which taught question is nearest to what was asked?

Holds every wording of every approved correction as one matrix of embeddings, renewed when the database's revision
moves. Finding is easy and done here; deciding whether it IS the same question is `bot.confidence`'s.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from storage import corrections
from storage.database import Database, Row
from storage.domain import WORKSPACE

Vectors = NDArray[np.float32]
UNRELATED = 0.4
"""Cosine that two unrelated questions often have; with few taught questions the second best says nothing."""


class Encoder(Protocol):
    """Turns texts into L2-normalised vectors [n, dimension]."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row per text."""
        ...


@dataclass(frozen=True)
class Match:
    """The nearest taught question. `gap` is the cosine distance to the best wording of any other correction."""

    correction_id: int
    question: str
    answer: str
    wording: str
    cosine: float
    gap: float
    taught_cosine: float
    wordings: tuple[str, ...] = field(default=())


@dataclass
class TaughtQuestions:
    """The matrix of taught wordings. One thread owns it."""

    database: Database
    embedder: Encoder
    _revision: int = -1
    _rows: tuple[Row, ...] = ()
    _matrix: Vectors = field(default_factory=lambda: np.zeros((0, 1), dtype=np.float32))

    def nearest(self, vector: Vectors, scopes: Collection[str] = (WORKSPACE,)) -> Match | None:
        """The nearest approved correction that the asker may see, or None.

        Of two that are equally near the newer one wins. A correction whose rejected wording ("Not my question") is
        nearer than any accepted one is passed over.
        """
        self._renew()
        best = self._best_by_correction(vector, scopes)
        if not best:
            return None
        (score, row), *others = sorted(best.values(), key=lambda found: (-found[0], -found[1]["correction_id"]))
        own = [r for r in self._rows if r["correction_id"] == row["correction_id"] and r["kind"] != "rejected"]
        taught = next((r["cosine"] for r in self._scored(vector, own) if r["text"] == r["question"]), score)
        gap = score - max(UNRELATED, others[0][0] if others else UNRELATED)
        wordings = tuple(r["text"] for r in own)
        return Match(row["correction_id"], row["question"], row["answer"], row["text"], score, gap, taught, wordings)

    def _best_by_correction(self, vector: Vectors, scopes: Collection[str]) -> dict[int, tuple[float, Row]]:
        best: dict[int, tuple[float, Row]] = {}
        refused: dict[int, float] = {}
        if not self._rows:
            return best
        for row, score in zip(self._rows, (self._matrix @ vector).tolist(), strict=True):
            key = row["correction_id"]
            if row["scope"] not in scopes:
                continue
            if row["kind"] == "rejected":
                refused[key] = max(score, refused.get(key, -1.0))
            elif key not in best or score > best[key][0]:
                best[key] = (score, row)
        return {k: found for k, found in best.items() if found[0] > refused.get(k, -1.0)}

    def _scored(self, vector: Vectors, rows: Sequence[Row]) -> list[Row]:
        return [r | {"cosine": float(np.frombuffer(r["vector"], dtype=np.float32) @ vector)} for r in rows]

    def _renew(self) -> None:
        revision = corrections.taught_revision(self.database)
        if revision == self._revision:
            return
        self._embed_new()
        self._rows = tuple(r for r in corrections.taught(self.database) if r["vector"] is not None)
        stacked = [np.frombuffer(r["vector"], dtype=np.float32) for r in self._rows]
        self._matrix = np.stack(stacked) if stacked else np.zeros((0, 1), dtype=np.float32)
        self._revision = revision

    def _embed_new(self) -> None:
        waiting = corrections.wordings_to_embed(self.database)
        if not waiting:
            return
        vectors = self.embedder.encode([r["text"] for r in waiting]).astype(np.float32)
        corrections.store_vectors(
            self.database, [(r["id"], v.tobytes()) for r, v in zip(waiting, vectors, strict=True)]
        )
