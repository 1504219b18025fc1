"""Labelled rows for the confidence from this company's own people: votes, "Not my question", and the night's tests.

A thumb up on a taught answer, or choosing it among those suggested, says that the asked question was the taught one; a
click on "Not my question" says that it was not. Votes on quotes label quotes. Wordings kept back from training and
near-misses made from the facts are labelled by how they were made. Rows add up over the nights, and are described anew
for what is taught now. Votes calibrate; they never train the model. It knows nothing of fitting.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from bot.confidence import pair_features
from bot.pipeline import CHOSEN
from bot.same_question import Comparer, TokenEncoder
from learning.dataset import Fact, Snapshot
from learning.evaluate import in_turn
from learning.same_question import swaps
from retrieval.taught import Encoder, Match, TaughtQuestions
from storage import corrections, nights, retention
from storage.audit import ERASED
from storage.database import Database, Row
from storage.domain import Status
from storage.texts import plain

SWAPS = 3
LATEST = 500
"""Rows of each kind that are described anew and fitted on, the newest of what rules made and of what people said: a
night's length must not follow the years, and rules must not crowd out people."""


class Reader(Encoder, TokenEncoder, Protocol):
    """An embedder of questions and of single words."""


def collect(database: Database, snapshot: Snapshot, embedder: Reader, version: str) -> list[Row]:
    """All rows of this company, new ones stored first, each as it would be decided tonight.

    Raises ConflictError when somebody's words were erased since the snapshot.
    """
    taught = TaughtQuestions(database, embedder, Comparer(embedder))
    tests = list(from_tests(snapshot, embedder, taught))
    with database.write():
        retention.check_unerased(database, snapshot.frozen_at)
        store(database, tests, from_votes(database), version)
    return in_force(database, embedder, taught)


def hear(database: Database, version: str) -> None:
    """Store what people said since the last fit."""
    with database.write():
        store(database, (), from_votes(database), version)


def in_force(database: Database, embedder: Reader, taught: TaughtQuestions | None = None) -> list[Row]:
    """The rows that a fit of today stands on, each as it would be decided today."""
    taught = taught or TaughtQuestions(database, embedder, Comparer(embedder))
    rows = latest(nights.calibration(database), said=by_question(from_votes(database)).keys())
    return list(described_anew(database, embedder, rows, taught))


def latest(rows: Sequence[Row], said: Collection[tuple[str, str]] = ()) -> list[Row]:
    """The newest rows of each head and kind, in their order; those that people `said` (`by_question`) count apart."""
    counts: Counter[tuple[str, str, bool]] = Counter()
    kept = []
    for row in reversed(rows):
        of_kind = (row["head"], row["kind"], (row["fact"], row["asked"]) in said)
        counts[of_kind] += 1
        if counts[of_kind] <= LATEST:
            kept.append(row)
    return kept[::-1]


def store(database: Database, tests: Iterable[Row], votes: Iterable[Row], version: str) -> None:
    """Keep what is new; what people say now replaces what was stored of the same question."""
    known = by_question(nights.calibration(database))
    fresh = {key: row for key, row in by_question(tests).items() if key not in known}
    for key, row in by_question(votes).items():
        if key not in known or any(known[key][said] != row[said] for said in ("kind", "correct")):
            fresh[key] = row
    with database.write() as db:
        gone = [known[key]["id"] for key in fresh if key in known]
        db.execute("DELETE FROM calibration_rows WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(gone)])
        nights.add_calibration(database, [row | {"version": version} for row in fresh.values()])


def by_question(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """Rows by their fact and what was asked; the last of several counts."""
    return {(row["fact"], row["asked"]): row for row in rows}


def described_anew(
    database: Database, embedder: Encoder, rows: Iterable[Row], taught: TaughtQuestions | None = None
) -> Iterator[Row]:
    """Rows of the head `same` with the features that the serving searches give them now.

    Those of a correction that is not taught any more are left out, and those whose words were erased, and near-misses
    that are taught as another's own question by now. One whose question has become a wording of its correction keeps
    what was noted when it was asked: found in itself, it would look surer than any stranger's.
    """
    taught = taught or TaughtQuestions(database, embedder)
    approved = {f"correction-{c.id}": c.id for c in corrections.in_status(database, Status.APPROVED)}
    own = {name: {w.text for w in corrections.wordings(database, number)} for name, number in approved.items()}
    for row in rows:
        if row["head"] != "same":
            yield row
        elif row["fact"] in approved and row["asked"] != ERASED:
            asked = row["asked"]
            match = None if asked in own[row["fact"]] else taught.nearest(asked, embedder.encode([asked])[0])
            right = row["kind"] != "near_miss" and match is not None and match.correction_id == approved[row["fact"]]
            anew = {"features": pair_features(row["asked"], match), "correct": int(right)} if match else {}
            if row["kind"] != "near_miss" or match is None or not another_has_it(row, match):
                yield row | anew


def another_has_it(row: Row, match: Match) -> bool:
    """Whether a question is a taught one, word for word, of another correction than the row's."""
    return plain(row["asked"]) == plain(match.wording) and row["fact"] != f"correction-{match.correction_id}"


def from_tests(snapshot: Snapshot, embedder: Encoder, taught: TaughtQuestions) -> Iterator[Row]:
    """One row for every held-out wording, near-miss and swap of the snapshot, and for every question left out."""
    asked_tonight = in_turn(snapshot.facts)
    for fact in (f for f in snapshot.facts if f.correction_id in asked_tonight):
        others = [f.question for f in snapshot.facts if f is not fact]
        for asked, kind in labelled(fact, others, snapshot.seed):
            without = fact.correction_id if kind == "neighbour" else None
            match = taught.nearest(asked, embedder.encode([asked])[0], without=without)
            if match is None:
                continue
            right = kind == "reask" and match.correction_id == fact.correction_id
            told = "near_miss" if kind == "neighbour" else kind
            yield row_of(fact.correction_id, asked, told, right, pair_features(asked, match))


def labelled(fact: Fact, others: Sequence[str], seed: int) -> Iterable[tuple[str, str]]:
    """The questions of a fact that were not trained as its own, with their kind.

    A neighbour is the taught question itself, asked as if its fact had not been taught: the nearest one is another.
    """
    yield from ((w, "reask") for w in fact.held_out)
    yield from ((n, "near_miss") for n in (*fact.near_misses, *swaps(fact.question, others, SWAPS, seed)))
    yield fact.question, "neighbour"


def from_votes(database: Database) -> Iterator[Row]:
    """One row for every taught answer that more people liked than not, every quote and every refusal.

    Each has the features that it was decided by; where two speak of the same question, the later one counts.
    """
    yield from votes_on_quotes(database)
    for row in database.rows(
        "SELECT a.correction_id, a.features, q.text FROM answers a "
        "JOIN questions q ON q.id = a.question_id JOIN feedback f ON f.answer_id = a.id "
        "WHERE a.correction_id IS NOT NULL AND q.text <> ? GROUP BY a.id HAVING sum(f.vote) > 0",
        [ERASED],
    ):
        yield row_of(row["correction_id"], row["text"], "wording", True, json.loads(row["features"]))
    for correction in corrections.in_status(database):
        for wording in corrections.wordings(database, correction.id):
            if wording.kind == "rejected" and plain(wording.text) != plain(correction.question):
                yield from refused(database, correction.id, wording.text)
    yield from chosen(database)


def chosen(database: Database) -> Iterator[Row]:
    """The taught questions that askers chose among those suggested: theirs was that one, unless somebody objected."""
    for row in database.rows(
        "SELECT a.correction_id, a.features, q.text FROM answers a JOIN questions q ON q.id = a.question_id "
        "LEFT JOIN feedback f ON f.answer_id = a.id WHERE a.correction_id IS NOT NULL AND q.text <> ? "
        "AND json_extract(a.features, ?) IS NOT NULL AND NOT EXISTS (SELECT 1 FROM wordings w "
        "WHERE w.correction_id = a.correction_id AND w.kind = 'rejected' AND w.text = q.text) "
        "GROUP BY a.id HAVING coalesce(sum(f.vote), 0) >= 0",
        [ERASED, f"$.{CHOSEN}"],
    ):
        yield row_of(row["correction_id"], row["text"], "wording", True, json.loads(row["features"]))


def votes_on_quotes(database: Database) -> Iterator[Row]:
    """Quotes that more people voted up than down are right, those with more votes down are wrong."""
    for row in database.rows(
        "SELECT a.features, q.text, sum(f.vote) AS votes FROM answers a JOIN questions q ON q.id = a.question_id "
        "JOIN feedback f ON f.answer_id = a.id WHERE a.style = 'quoted' AND q.text <> ? "
        "GROUP BY a.id HAVING sum(f.vote) <> 0",
        [ERASED],
    ):
        told = {"head": "quoted", "kind": "answerable", "fact": row["text"], "asked": row["text"]}
        yield told | {"correct": int(row["votes"] > 0), "features": json.loads(row["features"])}


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
