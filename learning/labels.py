"""Labelled rows for the confidence from this company's own people: votes, "Not my question", and the night's tests.

A thumb up on a taught answer says that the asked question was the taught one; a click on "Not my question" says that it
was not. Wordings kept back from training and near-misses made from the facts are labelled by how they were made.
Votes calibrate; they never train the model. It knows nothing of fitting.
"""

import json
from collections.abc import Iterable, Iterator

from bot.confidence import pair_features
from learning.dataset import Fact, Snapshot
from retrieval.taught import Encoder, TaughtQuestions
from storage import corrections, nights
from storage.database import Database, Row


def collect(database: Database, snapshot: Snapshot, embedder: Encoder, version: str) -> list[Row]:
    """All rows of this company, new ones stored first: they accumulate over the nights."""
    known = {(r["fact"], r["asked"]) for r in nights.calibration(database)}
    made = [*from_tests(database, snapshot, embedder), *from_votes(database)]
    fresh = {(r["fact"], r["asked"]): r | {"version": version} for r in made}
    nights.add_calibration(database, [row for key, row in fresh.items() if key not in known])
    return nights.calibration(database)


def from_tests(database: Database, snapshot: Snapshot, embedder: Encoder) -> Iterator[Row]:
    """One row for every held-out wording and every near-miss of the snapshot."""
    taught = TaughtQuestions(database, embedder)
    for fact in snapshot.facts:
        for asked, kind in labelled(fact):
            match = taught.nearest(embedder.encode([asked])[0])
            if match is None:
                continue
            right = kind == "reask" and match.correction_id == fact.correction_id
            yield row_of(fact.correction_id, asked, kind, right, pair_features(asked, match))


def labelled(fact: Fact) -> Iterable[tuple[str, str]]:
    """The questions of a fact that were not trained as its own, with their kind."""
    yield from ((w, "reask") for w in fact.held_out)
    yield from ((n, "near_miss") for n in fact.near_misses)


def from_votes(database: Database) -> Iterator[Row]:
    """One row for every taught answer that somebody voted on, with the features it was decided by."""
    for row in database.rows(
        "SELECT a.correction_id, a.features, q.text, sum(f.vote) AS votes FROM answers a "
        "JOIN questions q ON q.id = a.question_id JOIN feedback f ON f.answer_id = a.id "
        "WHERE a.correction_id IS NOT NULL AND f.vote = 1 GROUP BY a.id"
    ):
        yield row_of(row["correction_id"], row["text"], "wording", True, json.loads(row["features"]))
    for correction in corrections.in_status(database):
        for wording in corrections.wordings(database, correction.id):
            if wording.kind == "rejected":
                yield from refused(database, correction.id, wording.text)


def refused(database: Database, correction_id: int, asked: str) -> Iterator[Row]:
    """The decision that a "Not my question" click overruled, as a negative row."""
    found = database.row(
        "SELECT a.features FROM answers a JOIN questions q ON q.id = a.question_id "
        "WHERE a.correction_id = ? AND q.text = ? ORDER BY a.id DESC LIMIT 1",
        [correction_id, asked],
    )
    if found:
        yield row_of(correction_id, asked, "near_miss", False, json.loads(found["features"]))


def row_of(correction_id: int, asked: str, kind: str, right: bool, features: dict[str, float]) -> Row:
    """One row of the head `same`; the fact's name keeps its rows together when folds are made."""
    return {
        "head": "same",
        "kind": kind,
        "fact": f"correction-{correction_id}",
        "asked": asked,
        "correct": int(right),
        "features": features,
    }
