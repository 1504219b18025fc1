"""How sure is sure? Calibration, thresholds by risk, figures of the routing suite, and which of two answers wins."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import pipeline
from bot.confidence import (
    Confidence,
    Head,
    Isotonic,
    Platt,
    calibration_of,
    from_json,
    head_of,
    leaf,
    pair_features,
    tree_of,
)
from bot.generation import Generation
from bot.pipeline import CHOSEN, Model, Tools
from learning import calibrate, classifier, labels, reliability, routing
from learning.reliability import outcomes
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import conversations, corrections, nights
from storage.database import Database, Row
from storage.domain import Answer, Memory, Question, Route, Style, Suggestion
from storage.errors import NotFoundError
from tests.bench.exact import WordHashes

NAMES = calibrate.HEADS["same"]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on how many trees are grown, and a head grows forty forests."""
    monkeypatch.setattr(classifier, "TREES", 8)


def labelled(many: int, *, noise: float = 0.1, seed: int = 3) -> list[Row]:
    """Rows of the head `same` in which the first feature tells right from wrong but for some noise."""
    chance = np.random.default_rng(seed)
    rows = []
    for n in range(many):
        right = n % 10 < 7
        told = float(right) if chance.random() > noise else float(not right)
        kind = "wording" if right else ("near_miss", "unknown")[n % 2]
        features = dict.fromkeys(NAMES, 0.0) | {NAMES[0]: told + chance.normal(scale=0.1)}
        row = {"head": "same", "kind": kind, "fact": f"f{n // 4}", "asked": f"text {n}", "correct": int(right)}
        rows.append(row | {"features": features})
    return rows


def head(rows: list[Row], target: float = 0.02) -> dict[str, Any]:
    return calibrate.fit_head(rows, "same", calibrate.TRAFFIC, target, related=0.85)


# The calibration map


def test_few_rows_get_platt_many_get_isotonic_and_both_survive_storage() -> None:
    for many, kind in ((calibrate.PLATT_BELOW - 10, Platt), (calibrate.PLATT_BELOW, Isotonic)):
        fitted = json.loads(json.dumps(head(labelled(many))))
        read = head_of(fitted)
        assert isinstance(read.calibration, kind)
        low, high = (read.probability(dict.fromkeys(NAMES, 0.0) | {NAMES[0]: x}) for x in (0.0, 1.0))
        assert 0 < low < 0.5 < high < 1


def test_a_head_stored_before_there_were_maps_is_read_as_it_was() -> None:
    old = {"features": ["x"], "mean": [0.0], "scale": [1.0], "weight": [2.0], "intercept": -1.0}
    read = head_of(old | {"direct": 0.9, "related": 0.5})
    assert read.probability({"x": 1.0}) == pytest.approx(1 / (1 + np.exp(-1)))


@given(st.lists(st.tuples(st.floats(-8, 8), st.booleans()), min_size=4, max_size=60))
def test_a_map_never_turns_the_order_round_and_stays_between_nought_and_one(rows: list[tuple[float, bool]]) -> None:
    scores = np.array([s for s, _ in rows])
    right, weights = np.array([int(r) for _, r in rows]), np.ones(len(rows))
    for curve in (calibrate.calibration(scores, right, weights), calibrate.isotonic(scores, right, weights)):
        said = calibrate.calibrated(curve, np.linspace(-9, 9, 50))
        assert (np.diff(said) >= -1e-12).all()
        assert said.min() >= 0
        assert said.max() <= 1
        assert calibration_of(json.loads(json.dumps(curve)))(0.3) == calibration_of(curve)(0.3)


def test_an_overconfident_classifier_is_bent_back() -> None:
    """Scores of +-4 that are right in seven of ten cases must come out near 0.7 and 0.3."""
    scores = np.array([4.0] * 100 + [-4.0] * 100)
    right = np.array([1] * 70 + [0] * 30 + [1] * 30 + [0] * 70)
    for curve in (calibrate.platt(scores, right, np.ones(200)), calibrate.isotonic(scores, right, np.ones(200))):
        assert calibrate.calibrated(curve, np.array([4.0, -4.0])) == pytest.approx([0.7, 0.3], abs=0.02)


# The classifier


def crossed(many: int, *, kinds: tuple[str, str] = ("wording", "near_miss"), seed: int = 5) -> list[Row]:
    """Rows that are right where two features agree: no sum of the two tells them apart, a tree does."""
    chance = np.random.default_rng(seed)
    rows = []
    for n in range(many):
        left, other = (bool(b) for b in chance.integers(0, 2, 2))
        features = dict.fromkeys(NAMES, 0.0) | {NAMES[0]: float(left), NAMES[1]: float(other)}
        right = left == other
        rows.append(
            {"head": "same", "kind": kinds[not right], "fact": f"{kinds[0]}{n // 4}", "correct": int(right),
             "features": features}
        )  # fmt: skip
    return rows


def test_trees_see_what_belongs_together_and_a_regression_cannot() -> None:
    rows = crossed(400)
    told = classifier.fitted(rows, NAMES, np.ones(len(rows)))
    right = np.array([bool(r["correct"]) for r in rows])
    assert (classifier.scores(told, rows)[right] > 0).mean() > 0.95
    assert (classifier.scores(told, rows)[~right] < 0).mean() > 0.95
    alone = classifier.scores(told | {"forest": []}, rows)
    assert np.abs(alone).max() < 1.0


def test_a_stored_forest_gives_what_the_library_gives() -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    rows = labelled(300)
    x = np.array([[r["features"][n] for n in NAMES] for r in rows])
    y = np.array([r["correct"] for r in rows])
    told = json.loads(json.dumps(classifier.forest(x, y, np.ones(len(y)))))
    library = ExtraTreesClassifier(
        classifier.TREES, max_leaf_nodes=classifier.LEAVES, min_samples_leaf=classifier.LEAST_IN_LEAF,
        random_state=classifier.SEED,
    ).fit(x, y)  # fmt: skip
    trees = [tree_of(tree) for tree in told]
    ours = [np.mean([leaf(tree, row) for tree in trees]) for row in x.tolist()]
    assert ours == pytest.approx(library.predict_proba(x)[:, 1].tolist(), abs=0.02)


def test_the_same_rows_give_the_same_head() -> None:
    assert head(labelled(200)) == head(labelled(200))


def test_two_heads_that_are_one_are_stored_once() -> None:
    fitted = calibrate.fit(labelled(200), target_wrong=0.02, target_wrong_documents=0.05)
    assert fitted["heads"]["memorised"] == "same"
    read = from_json(json.loads(json.dumps(fitted)))
    assert read.head("memorised") == read.head("same")
    assert read.head("same").forest


def test_other_trades_teach_the_classifier_and_prove_nothing() -> None:
    abroad = crossed(400, kinds=("trade_wording", "trade_near_miss"))
    assert head(abroad)["direct"] == calibrate.NEVER
    few = labelled(60, noise=0.0)
    both = head([*few, *abroad])
    assert both["measured"]["rows"] == len(few)
    assert both["direct"] == calibrate.NEVER
    assert both["forest"] != head(few)["forest"]
    seen = calibrate.held_out([*few, *abroad], "same")
    assert len(seen) == len(few)


def test_rows_of_other_trades_weigh_what_they_are_given_beside_the_traffic() -> None:
    rows = [*labelled(100), *crossed(50, kinds=("trade_wording", "trade_near_miss"))]
    weights = calibrate.weights(rows, {**calibrate.TRAFFIC, **calibrate.ABROAD})
    assert weights[:100].sum() == pytest.approx(100)
    assert weights[100:].sum() == pytest.approx(100 * sum(calibrate.ABROAD.values()))


def test_a_verifier_sees_no_search_and_the_head_is_told_what_it_says() -> None:
    told = json.loads(json.dumps(calibrate.learnt(crossed(400), "same", calibrate.TRAFFIC)))
    verifier = told["verifier"]["sameness"]
    assert not calibrate.FOUND_BY & set(verifier["features"])
    assert told["features"][-1] == "sameness"
    read = head_of(told)
    features = dict.fromkeys(NAMES, 0.0)
    without = head_of(told | {"verifier": {}})
    assert read.log_odds(features) == without.log_odds(features | {"sameness": head_of(verifier).log_odds(features)})


def test_without_near_misses_there_is_no_verifier() -> None:
    rows = [r for r in labelled(200) if r["kind"] != "near_miss"]
    assert "verifier" not in calibrate.learnt(rows, "same", calibrate.TRAFFIC)


# Thresholds by risk


def test_the_bound_of_two_per_cent_needs_some_hundred_and_fourteen_rows_without_a_fault() -> None:
    for rows, proven in ((113, False), (114, True)):
        said, right = np.full(rows, 0.9), np.ones(rows, dtype=np.int64)
        tau = calibrate.threshold(said, right, np.ones(rows), 0.98, np.arange(rows))
        assert (tau == pytest.approx(0.9)) == proven
        assert (tau == calibrate.NEVER) != proven


def test_a_text_that_is_asked_in_several_homes_proves_once() -> None:
    for texts, proven in ((113, False), (114, True)):
        rows = [{"fact": 1, "asked": f"text {n % texts}"} for n in range(4 * texts)]
        said, right = np.full(len(rows), 0.9), np.ones(len(rows), dtype=np.int64)
        tau = calibrate.threshold(said, right, np.ones(len(rows)), 0.98, calibrate.texts(rows))
        assert (tau != calibrate.NEVER) == proven


def test_what_cannot_be_proven_is_never_given_directly() -> None:
    assert head(labelled(400, noise=0.0))["direct"] <= 1
    assert head(labelled(60, noise=0.0))["direct"] == calibrate.NEVER
    assert head(labelled(400, noise=0.3))["direct"] == calibrate.NEVER


def test_at_most_a_set_share_of_unknown_questions_is_answered() -> None:
    rows = [{"kind": "unknown"}] * 50 + [{"kind": "wording"}] * 50
    said = np.concatenate([np.linspace(0.01, 0.5, 50), np.linspace(0.3, 0.99, 50)])
    tau = calibrate.quiet(said, rows, 0.1)
    assert (said[:50] >= tau).sum() == 5
    assert calibrate.quiet(said, rows, 1.0) == 0.0
    assert calibrate.quiet(said[50:], rows[50:], 0.0) == 0.0


def test_without_labels_of_both_kinds_nothing_is_answered() -> None:
    for rows in ([], [row for row in labelled(50) if row["correct"]]):
        read = head_of(json.loads(json.dumps(head(rows))))
        assert read.probability({NAMES[0]: 9.0}) < 0.01
        assert min(read.direct, read.related) > 1


def test_rows_noted_before_a_feature_existed_are_left_out() -> None:
    rows = labelled(200)
    del rows[0]["features"][NAMES[-1]]
    assert len(calibrate.of_head(rows, "same")) == 199


def test_no_row_is_judged_by_a_model_that_saw_its_fact() -> None:
    """Every fact has a feature value of its own and a coin for a label: only a model that saw it could know."""
    coin = np.random.default_rng(1)
    rows = []
    for fact in range(120):
        right, told = int(coin.random() < 0.5), dict(zip(NAMES, coin.normal(size=len(NAMES)), strict=True))
        kinds = ("wording", "reask") if right else ("near_miss", "unknown")
        rows += [{"head": "same", "kind": k, "fact": str(fact), "correct": right, "features": told} for k in kinds]
    assert reliability.auroc(calibrate.held_out(rows, "same")) < 0.65


# Figures


def test_figures_of_known_cases() -> None:
    perfect = outcomes([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
    assert reliability.auroc(perfect) == 1.0
    assert reliability.auroc(outcomes([0.5, 0.5], [1, 0])) == 0.5
    assert reliability.auroc(outcomes([0.9, 0.9], [1, 1])) == 0.5
    assert reliability.calibration_error(outcomes([0.8] * 10, [1] * 8 + [0] * 2)) == pytest.approx(0.0)
    assert reliability.calibration_error(outcomes([0.95] * 10, [0] * 10)) == pytest.approx(0.95)
    curve = reliability.risk_coverage(perfect)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 0, 1 / 3, 0.5])
    assert curve.area == pytest.approx((1 / 3 + 0.5) / 4)
    assert curve.at(0.6) == pytest.approx(1 / 3)
    assert reliability.risk_coverage(outcomes([], [])).area == 0.0


def test_weights_are_counts() -> None:
    once = outcomes([0.9, 0.9, 0.9, 0.3], [1, 1, 0, 0])
    weighed = outcomes([0.9, 0.9, 0.3], [1, 0, 0], [2.0, 1.0, 1.0])
    for figure in (reliability.auroc, reliability.calibration_error, lambda seen: reliability.risk_coverage(seen).area):
        assert figure(once) == pytest.approx(figure(weighed))


def test_the_suite_tells_figures_and_draws_them(home_in_memory: Path) -> None:
    database = Database(home_in_memory)
    vote_on(database, "A", 0.9, 1)
    vote_on(database, "B", 0.9, -1)
    vote_on(database, "C", 0.2, 0)
    told = routing.measure(database, "v1", WordHashes())
    assert told["voted_rows"] == 2
    assert (told["voted_bin_9_rows"], told["voted_bin_9_said"], told["voted_bin_9_right"]) == (2, 0.9, 0.5)
    assert told["voted_ece"] == pytest.approx(0.4)
    for name in ("same", "quoted"):
        assert told[f"{name}_auroc"] > 0.8
        assert told[f"{name}_ece"] < 0.08
        assert 0 < told[f"{name}_aurc"] < told[f"{name}_risk_at_100"]
    assert Path(told["chart"]).read_bytes().startswith(b"\x89PNG")
    json.dumps(told)


def vote_on(database: Database, text: str, said: float, vote: int, **given: Any) -> Answer:
    """A question, its answer and a vote on it (0 for none)."""
    question = conversations.ask(database, text, user="U1", channel="C1", thread="")
    told: dict[str, Any] = {
        "route": Route.RETRIEVED,
        "style": Style.QUOTED,
        "confidence": said,
        "model_version": "v1",
        "text": "x",
    }
    reply = Answer(question.id, **told | given)
    number = conversations.answer(database, reply)
    if vote:
        conversations.vote(database, number, "U2", vote)
    return reply


# Labels


def test_votes_on_quotes_become_rows_and_a_refused_match_counts_as_wrong(home_in_memory: Path) -> None:
    database = Database(home_in_memory)
    vote_on(database, "right one", 0.9, 1, features={"rank": 0.0})
    vote_on(database, "wrong one", 0.8, -1, features={"rank": 2.0})
    vote_on(database, "nobody voted", 0.8, 0)
    rows = list(labels.from_votes(database))
    assert [(r["asked"], r["correct"], r["head"]) for r in rows] == [
        ("right one", 1, "quoted"),
        ("wrong one", 0, "quoted"),
    ]

    row = corrections.propose(database, question="Where do I park?", answer="Nowhere.", author="sam")
    corrections.approve(database, row.id, "priya")
    taught = {"route": Route.APPROVED, "style": Style.DIRECT, "correction_id": row.id}
    vote_on(database, "Where do I bark?", 0.95, 0, **taught)
    corrections.add_wordings(database, row.id, ["Where do I bark?"], "rejected")
    seen = routing.voted(database)
    assert (seen.said.tolist(), seen.right.tolist()) == ([0.9, 0.8, 0.95], [1.0, 0.0, 0.0])


def test_the_sum_of_the_votes_labels_a_taught_answer(home_in_memory: Path) -> None:
    database = Database(home_in_memory)
    taught = {"route": Route.APPROVED, "style": Style.DIRECT, "correction_id": 1}
    for text, votes in (("liked by one of three", (1, -1, -1)), ("liked by two of three", (1, 1, -1))):
        vote_on(database, text, 0.9, 0, **taught)
        for voter, vote in enumerate(votes):
            number = database.value("SELECT max(id) FROM answers")
            conversations.vote(database, number, f"U{voter}", vote)
    assert [r["asked"] for r in labels.from_votes(database)] == ["liked by two of three"]


def test_what_was_erased_is_no_label(home_in_memory: Path) -> None:
    database, embedder = Database(home_in_memory), WordHashes()
    row = corrections.propose(database, question="Where do I park?", answer="Nowhere.", author="sam")
    corrections.approve(database, row.id, "priya")
    vote_on(database, "(erased)", 0.9, 1)
    vote_on(database, "(erased)", 0.9, 1, route=Route.APPROVED, style=Style.DIRECT, correction_id=row.id)
    assert list(labels.from_votes(database)) == []
    old = labels.row_of(row.id, "(erased)", "wording", True, {"cosine": 0.1})
    assert list(labels.described_anew(database, embedder, [old])) == []


def test_not_my_question_takes_the_place_of_an_earlier_like(home_in_memory: Path) -> None:
    database = Database(home_in_memory)
    row = corrections.propose(database, question="Where do I park?", answer="Nowhere.", author="sam")
    corrections.approve(database, row.id, "priya")
    taught = {"route": Route.APPROVED, "style": Style.DIRECT, "correction_id": row.id}
    vote_on(database, "Where do I bark?", 0.95, 1, **taught)
    tested = labels.row_of(row.id, "Where could I park?", "reask", True, {})
    for version in ("v1", "v2"):
        labels.store(database, [tested], labels.from_votes(database), version)
    kept = {r["asked"]: (r["kind"], r["correct"], r["version"]) for r in nights.calibration(database)}
    assert kept == {"Where could I park?": ("reask", 1, "v1"), "Where do I bark?": ("wording", 1, "v1")}
    corrections.add_wordings(database, row.id, ["Where do I bark?"], "rejected")
    for version in ("v3", "v4"):
        labels.store(database, [tested], labels.from_votes(database), version)
    said = [(r["asked"], r["kind"], r["correct"], r["version"]) for r in nights.calibration(database)]
    assert said == [("Where could I park?", "reask", 1, "v1"), ("Where do I bark?", "near_miss", 0, "v3")]


def test_rows_of_earlier_nights_are_described_for_what_is_taught_now(home_in_memory: Path) -> None:
    database, embedder = Database(home_in_memory), WordHashes()

    def teach(question: str) -> int:
        row = corrections.propose(database, question=question, answer="Yes.", author="sam")
        corrections.approve(database, row.id, "priya")
        return row.id

    first = teach("Where may visitors park in Lisbon?")
    asked = "park a visitor car in Tallinn"
    old = {"head": "same", "kind": "wording", "fact": f"correction-{first}", "asked": asked, "correct": 1}
    nights.add_calibration(database, [old | {"features": {"cosine": 0.1}, "version": "v1"}])
    stored = nights.calibration(database)
    (now,) = labels.described_anew(database, embedder, stored)
    assert now["correct"] == 1
    assert now["features"]["cosine"] > 0.2
    second = teach("Where may a visitor park a car in Tallinn?")
    (then,) = labels.described_anew(database, embedder, stored)
    assert then["correct"] == 0, "the nearest taught question is another one now"
    corrections.add_wordings(database, first, [asked], "asked")
    assert next(iter(labels.described_anew(database, embedder, stored)))["features"] == {"cosine": 0.1}
    corrections.withdraw(database, first, "priya")
    assert list(labels.described_anew(database, embedder, stored)) == []
    assert second > first


def test_a_near_miss_that_is_taught_as_another_question_is_no_label_any_more(home_in_memory: Path) -> None:
    database, embedder = Database(home_in_memory), WordHashes()
    taught = []
    for code in (101, 106):
        question = f"What does AF-{code} mean?"
        row = corrections.propose(database, question=question, answer=f"Fault {code}.", author="sam")
        corrections.approve(database, row.id, "priya")
        taught.append(row.id)
        old = labels.row_of(taught[0], "What does AF-106 mean?", "near_miss", False, {"cosine": 0.9})
        kept = list(labels.described_anew(database, embedder, [old]))
        assert len(kept) == (1 if code == 101 else 0)


def test_what_rules_make_does_not_crowd_out_what_people_said() -> None:
    clicks = [labels.row_of(1, f"click {n}", "near_miss", False, {}) for n in range(3)]
    made = [labels.row_of(1, f"made {n}", "near_miss", False, {}) for n in range(2 * labels.LATEST)]
    kept = labels.latest([*clicks, *made], said=labels.by_question(clicks).keys())
    assert kept == [*clicks, *made[labels.LATEST :]]


def test_a_click_is_fitted_on_however_much_rules_made_since(
    home_in_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, embedder = Database(home_in_memory), WordHashes()
    row = corrections.propose(database, question="What does AF-101 mean?", answer="Fault 101.", author="sam")
    corrections.approve(database, row.id, "priya")
    click = labels.row_of(row.id, "What does AF-100 cost?", "near_miss", False, {"cosine": 0.9})
    monkeypatch.setattr(labels, "from_votes", lambda _: iter([click]))
    monkeypatch.setattr(labels, "LATEST", 2)
    made = [labels.row_of(row.id, f"Who owns AF-{n}?", "near_miss", False, {"cosine": 0.9}) for n in range(4)]
    labels.store(database, [], [click], "v1")
    labels.store(database, made, [], "v1")
    taught = TaughtQuestions(database, embedder)
    asked = [r["asked"] for r in labels.in_force(database, embedder, taught)]
    assert asked == [click["asked"], made[2]["asked"], made[3]["asked"]]


def test_the_suite_reports_on_the_rows_that_are_in_force(home_in_memory: Path) -> None:
    database, embedder = Database(home_in_memory), WordHashes()
    row = corrections.propose(database, question="What does AF-101 mean?", answer="Fault 101.", author="sam")
    corrections.approve(database, row.id, "priya")
    embedded = TaughtQuestions(database, embedder).nearest("AF-101, what?", embedder.encode(["AF-101, what?"])[0])
    assert embedded is not None
    noted = labels.row_of(row.id, "AF-101, what?", "wording", True, pair_features("AF-101, what?", embedded))
    labels.store(database, [noted], [], "v1")
    before = routing.measure(database, "v1", embedder)["same_rows"]
    corrections.withdraw(database, row.id, "priya")
    assert routing.measure(database, "v1", embedder)["same_rows"] < before


def test_who_chooses_a_suggestion_says_that_it_was_meant(home_in_memory: Path) -> None:
    database = Database(home_in_memory)
    row = corrections.propose(database, question="Where do I park?", answer="In the yard.", author="sam")
    corrections.approve(database, row.id, "priya")
    taught: dict[str, Any] = {"route": Route.APPROVED, "style": Style.DIRECT, "correction_id": row.id}
    for text, vote, features in (
        ("my car", 0, {"cosine": 0.4, CHOSEN: 1.0}),
        ("my bike", -1, {"cosine": 0.4, CHOSEN: 1.0}),
        ("my boat", 0, {"cosine": 0.4, CHOSEN: 1.0}),
        ("my bus", 0, {"cosine": 0.9}),
    ):
        vote_on(database, text, 0.5, vote, **taught, features=features)
    corrections.add_wordings(database, row.id, ["my boat"], "rejected")
    told = {r["asked"]: (r["kind"], r["correct"]) for r in labels.from_votes(database)}
    assert told == {"my car": ("wording", 1), "my boat": ("near_miss", 0)}


def test_nobody_says_that_the_taught_question_itself_is_another(home_in_memory: Path) -> None:
    """One click on it in lower case switched an approved answer off, for its paraphrases too."""
    database, embedder = Database(home_in_memory), WordHashes()
    row = corrections.propose(database, question="Where do I park?", answer="In the yard.", author="sam")
    corrections.approve(database, row.id, "priya")
    taught: dict[str, Any] = {"route": Route.APPROVED, "style": Style.DIRECT, "correction_id": row.id}
    vote_on(database, "where do I park", 0.5, 0, **taught, features={"cosine": 1.0})
    corrections.add_wordings(database, row.id, ["where do I park", "Where do I bark?"], "rejected")
    search = TaughtQuestions(database, embedder)
    for asked in ("Where do I park?", "where do i park", "park where?"):
        found = search.nearest(asked, embedder.encode([asked])[0])
        assert found is not None, asked
    assert search.nearest("Where do I bark?", embedder.encode(["Where do I bark?"])[0]) is None
    assert list(labels.from_votes(database)) == []


# Taught questions that are offered where there is no answer


@pytest.fixture
def taught_office(home_in_memory: Path) -> tuple[Database, Tools]:
    """Parking taught to everybody and to one channel, and a bot that is sure of nothing."""
    database, embedder = Database(home_in_memory), WordHashes()
    for question, scope in (
        ("Where do visitors park?", "workspace"),
        ("Where do visitors park at night?", "C1"),
        ("Who waters the plants?", "workspace"),
    ):
        row = corrections.propose(database, question=question, answer=f"Ask Liis. {scope}", author="sam", scope=scope)
        corrections.approve(database, row.id, "priya")
    tools = Tools(
        embedder=embedder,
        taught=TaughtQuestions(database, embedder),
        searcher=Retriever(database, embedder, VectorIndex(home_in_memory, database)),
        model=Model("v1", None, Confidence({}), {}),  # type: ignore[arg-type]
    )
    return database, tools


ASKED_ABOUT_PARKING = Question(1, "where can visitors park", "U", "C", "", "2026-11-20T00:00:00+00:00")


def test_who_gets_no_answer_is_offered_the_nearest_taught_questions(taught_office: tuple[Database, Tools]) -> None:
    _, tools = taught_office
    reply = pipeline.answer(tools, ASKED_ABOUT_PARKING)
    assert reply.route is Route.ABSTAINED
    assert reply.suggestions == (Suggestion(1, "Where do visitors park?"),)
    here = pipeline.answer(tools, ASKED_ABOUT_PARKING, scopes=("workspace", "C1"))
    assert {one.correction_id for one in here.suggestions} == {1, 2}
    assert pipeline.answer(tools, ASKED_ABOUT_PARKING, route="documents").suggestions == ()
    beside = pipeline.answer(tools, ASKED_ABOUT_PARKING, scopes=("workspace", "C1"), route="documents", refused=1)
    assert [one.correction_id for one in beside.suggestions] == [2], "what was not meant is not offered again"
    changed = replace(tools, stale=lambda: {1})
    assert pipeline.answer(changed, ASKED_ABOUT_PARKING).suggestions == ()
    far = replace(ASKED_ABOUT_PARKING, text="capital of Mongolia")
    assert pipeline.answer(tools, far).suggestions == ()


def test_the_taught_question_that_was_meant_is_answered(taught_office: tuple[Database, Tools]) -> None:
    database, tools = taught_office
    reply = pipeline.answer(tools, ASKED_ABOUT_PARKING, meant=1)
    assert (reply.route, reply.style, reply.text) == (Route.APPROVED, Style.DIRECT, "Ask Liis. workspace")
    assert reply.features[pipeline.CHOSEN] == 1.0
    with pytest.raises(NotFoundError, match="not there any more"):
        pipeline.answer(tools, ASKED_ABOUT_PARKING, meant=2)
    corrections.withdraw(database, 1, "priya")
    with pytest.raises(NotFoundError, match="not there any more"):
        pipeline.answer(tools, ASKED_ABOUT_PARKING, meant=1)


@pytest.mark.parametrize(
    ("confirmed", "stopped", "route"),
    [(1.0, True, Route.MEMORISED), (0.5, True, Route.APPROVED), (1.0, False, Route.APPROVED)],
)
def test_what_was_meant_comes_from_memory_where_the_model_confirms_all_of_it(
    taught_office: tuple[Database, Tools], confirmed: float, stopped: bool, route: Route
) -> None:
    class Engine:
        def confirm(self, messages: object, draft: str, *, max_tokens: int) -> Generation:
            return Generation(draft, (-0.1,), (2.0,), stopped=stopped, confirmed=confirmed)

    _, tools = taught_office
    model = replace(tools.model, engine=Engine(), memories={1: Memory("v1", 1, True, {})})  # type: ignore[arg-type]
    reply = pipeline.answer(replace(tools, model=model), ASKED_ABOUT_PARKING, meant=1)
    assert (reply.route, reply.style, reply.text) == (route, Style.DIRECT, "Ask Liis. workspace")


# "The closest I was taught" against the documents


def head_at(probability: float, direct: float) -> Head:
    """A head that always says the same."""
    return Head((), (), (), (), float(np.log(probability / (1 - probability))), direct, 0.3)


@pytest.mark.parametrize(
    ("taught", "direct", "quote", "style", "route"),
    [
        (0.6, 0.9, 0.8, Style.QUOTED, Route.RETRIEVED),
        (0.8, 0.9, 0.6, Style.RELATED, Route.APPROVED),
        (0.95, 0.9, 0.99, Style.DIRECT, Route.APPROVED),
        (0.6, 0.9, 0.2, Style.RELATED, Route.APPROVED),
        (0.2, 0.9, 0.8, Style.QUOTED, Route.RETRIEVED),
        (0.2, 0.9, 0.2, Style.NONE, Route.ABSTAINED),
    ],
)
def test_the_surer_of_taught_and_read_is_given_and_both_are_stored(
    home_in_memory: Path, tmp_path: Path, taught: float, direct: float, quote: float, style: Style, route: Route
) -> None:
    (tmp_path / "parking.md").write_text(
        "# Parking\n\nVisitors park on level two, behind the gate.\n", encoding="utf-8"
    )
    database, embedder = Database(home_in_memory), WordHashes()
    ingest(database, embedder, [tmp_path / "parking.md"])
    row = corrections.propose(database, question="Where do visitors park?", answer="Ask Liis.", author="sam")
    corrections.approve(database, row.id, "priya")
    heads = {"same": head_at(taught, direct), "quoted": head_at(quote, 0.99)}
    tools = Tools(
        embedder=embedder,
        taught=TaughtQuestions(database, embedder),
        searcher=Retriever(database, embedder, VectorIndex(home_in_memory, database)),
        model=Model("v1", None, Confidence(heads), {}),  # type: ignore[arg-type]
    )
    reply = pipeline.answer(tools, Question(1, "where can visitors park", "U", "C", "", "2026-11-20T00:00:00+00:00"))
    assert (reply.style, reply.route) == (style, route)
    own = {Style.QUOTED: "rank", Style.NONE: "rank"}.get(style, "cosine")
    assert own in reply.features
    others = {name.split("/")[0] for name in reply.features if "/" in name}
    assert others == {Style.QUOTED: {"same"}, Style.RELATED: {"quoted"}, Style.NONE: {"same"}}.get(style, set())
