"""Make the confidence that ships: `python -m learning.ship` (make base-confidence).

Teaches the demo company's facts, all of them and a few at a time, and those of other trades, to an empty home without
any training, asks every wording, near-miss and unknown question through the real searches, labels each row by what was
right, and writes the three files that ship: `learning/calibration_rows.jsonl`, `bot/base_confidence.json`, and
`learning/own_words.jsonl`, which every model is asked. It knows nothing of model weights.
"""

import json
import logging
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bot import quoting
from bot.confidence import pair_features
from bot.pipeline import PASSAGES_READ, search_features
from bot.same_question import Comparer
from learning import calibrate, replay, wordings
from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import Match, TaughtQuestions
from storage import company, corrections, settings
from storage.database import Database, Row
from storage.domain import WORKSPACE

log = logging.getLogger(__name__)

SEED = 7
REASKS = 4
UNKNOWN = 120
SHELVES = (1, 3, 10, 30)
"""Numbers of facts in homes that are just beginning."""
OTHERS = 5
"""Questions about facts that are not taught in such a home: so many of the nearest ones, and as many of the rest."""
UNREADABLE = 24
"""Questions that no page answers, beside the golden ones, that a model is asked to read for."""
DIGITS = 5


def main() -> None:
    """Write the files."""
    logging.basicConfig(level="INFO", format="%(message)s")
    values = settings.load()
    with tempfile.TemporaryDirectory() as home:
        database = Database(Path(home))
        embedder = Embedder(values.text("EMBEDDER"))
        rows = list(same_rows(database, embedder))
        ingest(database, embedder, [company.pages()], "workspace")
        retriever = Retriever(database, embedder, VectorIndex(database.home, database))
        rows += quoted_rows(retriever, embedder)
        reading = list(questions_to_read(retriever, embedder))
    rows += shelf_rows(embedder)
    with tempfile.TemporaryDirectory() as home:
        rows += trade_rows(Database(Path(home)), embedder)
    room = Path(__file__).parent
    (room / "calibration_rows.jsonl").write_text("".join(json.dumps(r | shortened(r)) + "\n" for r in rows))
    (room / "own_words.jsonl").write_text("".join(json.dumps(r | shortened(r)) + "\n" for r in reading))
    fitted = calibrate.fit(calibrate.shipped_rows(), **calibrate.targets(values))
    (room.parent / "bot" / "base_confidence.json").write_text(json.dumps(fitted) + "\n")
    for name in ("same", "quoted"):
        head = fitted["heads"][name]
        log.info("%s: direct from %.3f, related from %.3f", name, head["direct"], head["related"])


def shortened(row: Row) -> Row:
    """The features with five digits behind the point, which is all that is told apart by them."""
    return {"features": {name: round(value, DIGITS) for name, value in row["features"].items()}}


def same_rows(database: Database, embedder: Embedder) -> Iterator[Row]:
    """Is the asked question the taught one? One row for every wording, re-ask, near-miss and unknown question."""
    facts = company.facts()
    ids = {fact.id: teach(database, fact.question, fact.answer) for fact in facts}
    taught = TaughtQuestions(database, embedder, Comparer(embedder))
    for fact in facts:
        asked = [(w, "reask", ids[fact.id]) for w in wordings.generate(fact.question, 8 + REASKS, SEED + 1)[-REASKS:]]
        asked += [(fact.question, "reask", ids[fact.id])]
        asked += [(w, "wording", ids[fact.id]) for w in fact.wordings]
        asked += [(n, "near_miss", 0) for n in fact.near_misses]
        for text, kind, right in asked:
            yield same_row(found(taught, embedder, text), text, kind, right, fact.id)
    for text in [*replay.general_prompts()[-UNKNOWN:], *company.near_topic()]:
        yield same_row(found(taught, embedder, text), text, "unknown", 0, text)


def shelf_rows(embedder: Embedder) -> Iterator[Row]:
    """The same in homes where only a few facts are taught, with questions about facts that are not.

    The nearest of a few is often of another fact, and no other stands beside it to say so.
    """
    facts = company.facts()
    vectors = embedder.encode([fact.question for fact in facts])
    for size in SHELVES:
        rng = random.Random(f"{SEED}:{size}")
        places = rng.sample(range(len(facts)), len(facts))
        for start in range(0, len(facts), size):
            shelf = places[start : start + size]
            others = sorted(set(places) - set(shelf), key=lambda at: -float((vectors[shelf] @ vectors[at]).max()))
            strangers = [*others[:OTHERS], *rng.sample(others[OTHERS:], OTHERS)]
            asked = [rng.choice((facts[at].question, *facts[at].wordings)) for at in strangers]
            with tempfile.TemporaryDirectory() as home:
                yield from rows_of_shelf(Database(Path(home)), embedder, [facts[at] for at in shelf], asked)


def rows_of_shelf(
    database: Database, embedder: Embedder, shelf: Sequence[company.CompanyFact], strangers: Sequence[str]
) -> Iterator[Row]:
    """Rows of the facts that are taught here, and of questions that belong to none: those count for the one found."""
    ids = {teach(database, fact.question, fact.answer): fact for fact in shelf}
    taught = TaughtQuestions(database, embedder, Comparer(embedder))
    for number, fact in ids.items():
        for kind, texts in (("wording", fact.wordings), ("near_miss", fact.near_misses)):
            for text in texts:
                yield same_row(found(taught, embedder, text), text, kind, number if kind == "wording" else 0, fact.id)
    for text in strangers:
        match = found(taught, embedder, text)
        yield same_row(match, text, "near_miss", 0, ids[match.correction_id].id)
    database.close()


def trade_rows(database: Database, embedder: Embedder) -> Iterator[Row]:
    """The same of other trades: wordings and near-misses, in a home where only their facts are taught."""
    facts = trades()
    ids = {fact["id"]: teach(database, fact["question"], fact["answer"]) for fact in facts}
    taught = TaughtQuestions(database, embedder, Comparer(embedder))
    for fact in facts:
        for text in fact["wordings"]:
            yield same_row(found(taught, embedder, text), text, "trade_wording", ids[fact["id"]], fact["id"])
        for text in fact["near_miss"]:
            yield same_row(found(taught, embedder, text), text, "trade_near_miss", 0, fact["id"])


def trades() -> list[dict[str, Any]]:
    """Facts of hospitals, breweries and building sites: id, question, answer, wordings, near_miss."""
    text = (Path(__file__).parent / "trades.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def teach(database: Database, question: str, answer: str) -> int:
    """Approve a correction, with the wordings that a night would add; returns its id."""
    row = corrections.propose(database, question=question, answer=answer, author="author")
    corrections.approve(database, row.id, "reviewer")
    corrections.add_wordings(database, row.id, wordings.generate(question, 8, SEED), "generated")
    return row.id


def found(taught: TaughtQuestions, embedder: Embedder, text: str) -> Match:
    """The taught question that is nearest to what is asked."""
    match = taught.nearest(text, embedder.encode([text])[0])
    if match is None:
        raise ValueError("nothing is taught")
    return match


def same_row(match: Match, text: str, kind: str, right: int, fact: str) -> Row:
    """One labelled row of the head `same`; `right` is the correction that the question belongs to, 0 for none."""
    return {
        "head": "same", "kind": kind, "fact": fact, "asked": text, "features": pair_features(text, match),
        "correct": int(match.correction_id == right),
    }  # fmt: skip


def quoted_rows(retriever: Retriever, embedder: Embedder) -> Iterator[Row]:
    """Does the quote answer the question? One row for every handbook fact's wordings and every golden question."""
    golden = [(g.question, g.keys, g.id) for g in company.golden()]
    facts = [(q, f.keys, f.id) for f in company.facts() for q in (f.question, *f.wordings)]
    unknown = [(q, (), q) for q in [*replay.general_prompts()[-60:], *company.near_topic()]]
    for text, keys, fact in [*golden, *facts, *unknown]:
        row = quoted_row(retriever, embedder, text, keys, fact)
        if row is not None:
            yield row


def questions_to_read(retriever: Retriever, embedder: Embedder) -> Iterator[Row]:
    """The golden questions with the passages that are found for them, then some that no page answers."""
    golden = [g for g in company.golden() if g.keys]
    random.Random(SEED).shuffle(golden)
    asked = [(g.question, g.keys, g.id) for g in golden] + [(q, (), q) for q in company.near_topic()[:UNREADABLE]]
    for text, keys, fact in asked:
        hits = retriever.hits(text, PASSAGES_READ, vector=embedder.encode([text])[0])
        told = {"asked": text, "fact": fact, "keys": keys, "passages": retriever.notes(hits, (WORKSPACE,))}
        yield told | {"features": search_features(hits)}


def quoted_row(retriever: Retriever, embedder: Embedder, text: str, keys: Any, fact: str) -> Row | None:
    """One labelled row of the head `quoted`."""
    vector = embedder.encode([text])[0]
    hits = retriever.hits(text, PASSAGES_READ, vector=vector)
    quote = quoting.best_quote(text, vector, hits, embedder)
    if quote is None:
        return None
    return {
        "head": "quoted", "kind": "answerable" if keys else "unknown", "fact": fact, "asked": text,
        "features": search_features(hits) | quote.features,
        "correct": int(bool(keys) and company.answer_matches(quote.text, keys)),
    }  # fmt: skip


if __name__ == "__main__":
    main()
