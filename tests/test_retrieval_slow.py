"""Retrieval with the real sentence model, on the demo company's pages."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bot.confidence import from_json, pair_features, shipped
from bot.same_question import Comparer
from learning import ship
from retrieval.chunker import LIMIT, SPECIAL
from retrieval.embedder import BATCH, Embedder, in_equal_parts
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import documents
from storage.database import Database
from storage.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

COMPANY = Path(__file__).parents[1] / "storage" / "company"
QUESTIONS = {
    "how many days off can I take over into next year": "leave.md",
    "whats the hotel budget when I go to a client": "per-diem.md",
    "can i get a second screen for my desk at home": "monitors.md",
    "my boss wants me to be reachable on saturday night, do i get paid extra": "on-call.md",
    "someone sent me a weird mail with a link": "phishing.md",
    "when does the salary arrive": "payroll.md",
    "I broke my laptop": "laptops.md",
    "may i work from my parents' place for a month": "remote-work.md",
    "how long am I on trial as a new hire": "probation.md",
    "got the flu, what now": "sick-leave.md",
    "who looks after me in the first weeks": "buddy-program.md",
    "book a room for six people": "meeting-rooms.md",
}


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[Retriever]:
    home = tmp_path_factory.mktemp("home")
    database = Database(home)
    result = ingest(database, embedder, [COMPANY / "pages"])
    assert not result.failed
    index = VectorIndex(home, database)
    assert index.try_open()
    assert index.check().ok
    yield Retriever(database, embedder, index)
    index.close()


def test_natural_questions_find_their_page(retriever: Retriever) -> None:
    missed = [question for question, page in QUESTIONS.items() if not is_found(retriever, question, page)]
    assert len(missed) <= 1, missed


def test_golden_questions_find_their_page(retriever: Retriever) -> None:
    rows = [json.loads(line) for line in (COMPANY / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [row for row in rows if row.get("page")]
    assert len(asked) >= 30
    missed = [row["question"] for row in asked if not is_found(retriever, row["question"], row["page"])]
    assert len(missed) <= 0.05 * len(asked), missed


def is_found(retriever: Retriever, question: str, page: str) -> bool:
    """Whether the page is among the first five; `services` stands for the three pages of the services."""
    names = names_by_id(retriever._database)
    found = [names[passage.document_id] for passage in retriever.search(question, 5)]
    return any(name.startswith("service-") if page == "services" else name == page for name in found)


def names_by_id(database: Database) -> dict[int, str]:
    return {row["id"]: Path(row["path"]).name for row in database.rows("SELECT id, path FROM documents")}


FREEZE = "How is ZX-1234, the export that freezes at 99 %, resolved?"


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        (FREEZE, True),
        ("zx-1234 again, the export is frozen, what do I do?", True),
        ("What is behind ZX-9876, imports that hang, and what solves it?", False),
        ("What causes QA-3003 in the export, and how is it fixed?", False),
        ("How do I fix 9876, the export that freezes?", False),
        ("When does the canteen open?", False),
    ],
)
def test_the_only_taught_answer_is_not_given_for_everything(
    tmp_path: Path, embedder: Embedder, asked: str, offered: bool
) -> None:
    """With one fact taught nothing else stands beside it that a question could belong to."""
    database = Database(tmp_path)
    ship.teach(database, FREEZE, "Raise EXPORT_CHUNK to 512 and start the export again.")
    match = TaughtQuestions(database, embedder, Comparer(embedder)).nearest(asked, embedder.encode([asked])[0])
    assert match is not None
    head = from_json(shipped()).head("same")
    assert (head.probability(pair_features(asked, match)) >= min(head.related, head.direct)) is offered
    database.close()


def test_no_stored_passage_is_longer_than_the_model_reads(retriever: Retriever, embedder: Embedder) -> None:
    database = retriever._database
    ids = [row["id"] for row in database.rows("SELECT id FROM passages")]
    stored = documents.passages(database, ids, ("workspace",))
    lengths = embedder.count_tokens([passage.titled for passage in stored])
    assert max(lengths) + SPECIAL <= LIMIT


def test_fast_vectors_are_the_exact_ones(embedder: Embedder) -> None:
    texts = [f"Passage {n} about leave and travel. " * (1 + n % 9) for n in range(70)] + ["", "x"]
    fast = embedder.encode(texts)
    exact = Embedder(exact=True)
    plain = exact.load().encode(texts, normalize_embeddings=True)
    assert fast.shape == (72, 384)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(fast, axis=1), 1, atol=1e-5)
    assert (fast * plain).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(exact.encode(texts), plain, atol=1e-5)


def test_encoding_leaves_torch_as_it_was(embedder: Embedder) -> None:
    import torch

    before = torch.get_num_threads()
    embedder.encode([f"text {n}" for n in range(40)])
    assert torch.get_num_threads() == before


def test_its_workers_compute_with_one_thread_each(embedder: Embedder) -> None:
    """Otherwise each keeps a helper, and every other pass of the process takes nearly twice as long."""
    import torch

    embedder.encode(["Warm up."])
    pool = embedder._workers()
    assert {future.result() for future in [pool.submit(torch.get_num_threads) for _ in range(8)]} == {1}


def test_the_tokens_of_a_question_just_asked_are_known(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Who approves a Refund above 500 EUR at the Lisbon office?"
    alone = Embedder().tokens(question.casefold())
    embedder.encode([question, "Something much longer that stands beside it in the same pass, with many more words."])
    with monkeypatch.context() as patched:
        patched.setattr("retrieval.embedder.forward", None)
        known = embedder.tokens(question.casefold())
    assert known.spans == alone.spans
    for layer in ("middle", "last"):
        ours, theirs = getattr(known, layer), getattr(alone, layer)
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() > 0.999


def test_batches_are_equal_and_none_is_too_long() -> None:
    for texts in (1, 16, 17, 40, 100):
        size = in_equal_parts(texts, 2)
        assert 0 < size <= BATCH
        assert texts <= BATCH or -(-texts // size) % 2 == 0


def test_nothing_and_no_model_are_handled(embedder: Embedder, tmp_path: Path) -> None:
    assert embedder.encode([]).shape == (0, 384)
    assert embedder.count_tokens([]) == []
    with pytest.raises(UserError, match="cannot be loaded"):
        Embedder(str(tmp_path)).load()
