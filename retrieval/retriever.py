"""One search over meaning and words: dense and BM25 ranks, fused and re-checked.

It knows nothing of language models or answers. What it returns has been read from SQLite under the asker's
scopes, whatever an index said.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed

import numpy as np
from numpy.typing import NDArray

from retrieval import lexical
from retrieval.embedder import Encoder
from retrieval.index import VectorIndex
from storage import documents
from storage.database import Database
from storage.domain import WORKSPACE, Passage

log = logging.getLogger(__name__)

DEPTH = 50
"""Candidates that each side brings to the fusion."""
RANK_CONSTANT = 10
"""k of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""
BY_MEANING, BY_WORDS = 1.5, 1.0
"""Weights of the two rankings, among the best of ten settings tried on 174 questions about 245 pages. The
differences are small: the right page among the first five for 30 of 32 natural questions, 28 with k = 60 and 1 : 1.
"""

NOTES_CHARS = 6000
"""What a model is given to read at most, some 1,500 tokens; passages alone are never that long."""


@dataclass(frozen=True)
class Hit:
    """A passage with what each side thinks of it; `fused` is 1 when both rank it first."""

    passage: Passage
    cosine: float
    bm25: float
    fused: float


class Retriever:
    """Finds passages; threads may share it."""

    def __init__(self, database: Database, embedder: Encoder, index: VectorIndex) -> None:
        """Keep the three parts; nothing is loaded yet."""
        self._database = database
        self._embedder = embedder
        self._index = index

    def search(
        self,
        question: str,
        k: int = 5,
        scopes: Collection[str] = (WORKSPACE,),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Passage]:
        """The k nearest passages that the scopes allow, best first, `score` set to the fused score (0..1)."""
        return [hit.passage for hit in self.hits(question, k, scopes, vector)]

    def hits(
        self,
        question: str,
        k: int = 5,
        scopes: Collection[str] = (WORKSPACE,),
        vector: NDArray[np.float32] | None = None,
    ) -> list[Hit]:
        """Like `search`, with each side's score; `vector` is the question's own if it is known."""
        if not scopes or not question.strip():
            return []
        vector = self._vector(question, vector)
        dense = [] if vector is None else self._index.search(vector, DEPTH, scopes)
        words = lexical.search(self._database, question, DEPTH, scopes)
        fused = fuse([([i for i, _ in dense], BY_MEANING), ([i for i, _ in words], BY_WORDS)])
        found = documents.passages(self._database, list(fused), scopes)[:k]
        return self._scored(question, vector, found, fused)

    def notes(self, hits: Sequence[Hit], scopes: Collection[str]) -> list[str]:
        """What a model reads of some hits, best first: the section around each, under its titles, no text twice.

        Where the sections are longer than NOTES_CHARS together, the later hits are their passages alone.
        """
        around = documents.sections(self._database, [hit.passage.id for hit in hits], scopes)
        read: list[Passage] = []
        room = NOTES_CHARS
        for number, passage in enumerate(hit.passage for hit in hits):
            if any(beside(passage, other) and passage.text in other.text for other in read):
                continue
            whole = changed(passage, text=around.get(passage.id, passage.text))
            later = sum(len(hit.passage.titled) for hit in hits[number + 1 :])
            read.append(whole if len(whole.titled) + later <= room else passage)
            room -= len(read[-1].titled)
        return [passage.titled for passage in read]

    def _vector(self, question: str, given: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        name, dimension = documents.embedder(self._database)
        if name != self._embedder.name:
            if name:
                log.warning("The passages were embedded by %s; ingest again to search by meaning", name)
            return None
        vector = self._embedder.encode([question])[0] if given is None else given
        if dimension not in (0, len(vector)):
            log.warning("%s gives vectors of another length now; ingest a new page to embed all of them again", name)
            return None
        return vector

    def _scored(
        self, question: str, vector: NDArray[np.float32] | None, found: list[Passage], fused: dict[int, float]
    ) -> list[Hit]:
        ids = [passage.id for passage in found]
        words = lexical.scores(self._database, question, ids)
        cosines: dict[int, float] = {}
        if vector is not None and ids:
            stored = documents.vectors(self._database, ids)
            if len(stored.ids):  # an ingest may have taken all of them away meanwhile
                cosines = dict(zip(stored.ids.tolist(), (stored.matrix @ vector).tolist(), strict=True))
        return [
            Hit(changed(p, score=fused[p.id]), cosines.get(p.id, 0.0), words.get(p.id, 0.0), fused[p.id])
            for p in found
        ]


def beside(one: Passage, other: Passage) -> bool:
    """Whether two passages stand under the same heading of the same page."""
    return (one.document_id, one.heading) == (other.document_id, other.heading)


def fuse(rankings: Sequence[tuple[Sequence[int], float]]) -> dict[int, float]:
    """Weighted reciprocal rank fusion: ids with their score, best first; 1 means first in every ranking."""
    best = sum(weight for _, weight in rankings) / (RANK_CONSTANT + 1)
    total: dict[int, float] = {}
    for ranking, weight in rankings:
        for rank, item in enumerate(ranking, 1):
            total[item] = total.get(item, 0.0) + weight / (RANK_CONSTANT + rank) / best
    return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))
