"""What the answer benches ask, and of whom: two handbooks in a home of their own, with questions and answer keys.

The demo company ships with the project; the larger handbook and StackFAQ are real, third-party and kept beside it
(NIGHTSHIFT_BENCH_DATA). It measures nothing.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.ingest import IngestResult, ingest
from retrieval.retriever import Hit, Retriever
from storage import company
from storage.database import Database

HERE = Path(__file__).parent
DATA = Path(os.environ.get("NIGHTSHIFT_BENCH_DATA", HERE.parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Asked:
    """One question with its answer key; `fact` is the same for all wordings of a fact, `page` a file name."""

    kind: str
    fact: str
    question: str
    keys: company.Keys
    page: str


@dataclass(frozen=True)
class Found:
    """A question with its vector and what retrieval found for it."""

    asked: Asked
    vector: NDArray[np.float32]
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class Library:
    """An ingested handbook."""

    database: Database
    retriever: Retriever
    result: IngestResult

    def file_of(self, hit: Hit) -> str:
        """The path of the file that a hit comes from."""
        return str(self.database.value("SELECT path FROM documents WHERE id = ?", (hit.passage.document_id,)))


def handbook() -> Path:
    """The large handbook's pages, which may be missing."""
    return DATA / "tts_handbook" / "pages"


def library(home: Path, embedder: Embedder, pages: Path) -> Library:
    """A handbook, ingested and indexed."""
    database = Database(home)
    result = ingest(database, embedder, [pages])
    return Library(database, Retriever(database, embedder, VectorIndex(home, database)), result)


def company_questions() -> list[Asked]:
    """The golden set, and every fact in its taught words and in colleagues' words; unknown ones are left out."""
    asked = [Asked("golden", g.id, g.question, g.keys, g.page) for g in company.golden() if g.keys]
    for fact in company.facts():
        asked.append(Asked("taught", fact.id, fact.question, fact.keys, fact.page))
        asked += [Asked("wording", fact.id, words, fact.keys, fact.page) for words in fact.wordings]
    return asked


def handbook_questions() -> list[Asked]:
    """The 80 natural questions about the large handbook."""
    rows = map(json.loads, (HERE / "tts_questions.jsonl").read_text(encoding="utf-8").splitlines())
    return [Asked("handbook", r["id"], r["question"], tuple(map(tuple, r["keys"])), r["page"]) for r in rows]


def find(embedder: Embedder, shelf: Library, questions: Sequence[Asked], k: int) -> list[Found]:
    """The k best passages for each question."""
    vectors = embedder.encode([asked.question for asked in questions])
    return [
        Found(asked, vector, tuple(shelf.retriever.hits(asked.question, k, vector=vector)))
        for asked, vector in zip(questions, vectors, strict=True)
    ]


def given(found: Found) -> bool:
    """Whether the answer stands in one of the passages found."""
    return any(company.answer_matches(hit.passage.text, found.asked.keys) for hit in found.hits)
