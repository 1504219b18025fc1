"""A model that reads well answers from documents in its own words, one that reads poorly is quoted."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bot import pipeline, prompt
from bot.confidence import Confidence, from_json
from bot.generation import Generation, Request
from bot.pipeline import Model, Tools
from learning import calibrate, nightly, own_words, replay
from learning.stages import Night
from retrieval.index import VectorIndex
from retrieval.ingest import ingest
from retrieval.retriever import Retriever
from retrieval.taught import TaughtQuestions
from storage import company, settings
from storage.database import Database
from storage.domain import Question, Route, Style
from tests.test_retrieval import WordHashes
from tests.test_routing import head_at

KEYS = {one["asked"]: one["keys"] for one in own_words.questions()}
ASKED = Question(1, "where can visitors park", "U", "C", "", "2026-11-28T00:00:00+00:00")


class Reads:
    """An engine that finds the key of every question, or of none, and is less sure where there is none to be found."""

    def __init__(self, *, well: bool) -> None:
        self.well = well
        self.asked = 0

    def many(self, requests: Sequence[Request]) -> list[Generation]:
        self.asked += len(requests)
        return [self.read(request) for request in requests]

    def read(self, request: Request) -> Generation:
        keys = next(keys for asked, keys in KEYS.items() if asked in request.messages[-1]["content"])
        if keys and self.well:
            return Generation(" ".join(group[0] for group in keys), (-0.05,), (5.0,), stopped=True)
        return Generation("It depends.", (-2.5,), (0.5,), stopped=True)


class Says:
    """An engine that writes one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, messages: object, *, max_tokens: int) -> Generation:
        return Generation(self.text, (-0.05,), (5.0,), stopped=True)


def fitted(read: list[own_words.Row]) -> Confidence:
    told = calibrate.fit(read, target_wrong=0.02, target_wrong_documents=0.05)
    return from_json(json.loads(json.dumps(told)))


@cache
def by_one_that_reads_well() -> Confidence:
    return fitted(own_words.answered(Reads(well=True), own_words.questions(), 64))


def test_a_model_that_reads_well_is_trusted_by_how_sure_it_was() -> None:
    rows = own_words.answered(Reads(well=True), own_words.questions(), 64)
    assert len(rows) == len(KEYS)
    assert {row["correct"] for row in rows if row["kind"] == "answerable"} == {1}
    assert {row["correct"] for row in rows if row["kind"] == "unknown"} == {0}
    confidence = by_one_that_reads_well()
    assert confidence.reading == "surest"
    head = confidence.head("generated")
    sure, unsure = (next(row["features"] for row in rows if row["correct"] == right) for right in (1, 0))
    assert head.probability(sure) > min(head.direct, head.related) > head.probability(unsure)


@pytest.mark.parametrize("well", [True, False])
def test_a_base_is_asked_a_few_once_and_is_worth_asking_only_if_it_reads_well(tmp_path: Path, *, well: bool) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    engine = Reads(well=well)
    for _ in range(2):
        assert own_words.reads_well(tmp_path, tmp_path / "cache", 64, lambda: engine) is well
    assert engine.asked == own_words.FEW
    (tmp_path / "model.safetensors").write_bytes(b"others")
    own_words.reads_well(tmp_path, tmp_path / "cache", 64, lambda: engine)
    assert engine.asked == 2 * own_words.FEW


def test_without_such_rows_a_version_is_quoted() -> None:
    assert fitted([]).reading == "quoted"


def test_a_model_that_says_it_does_not_know_has_not_answered() -> None:
    class Silent(Reads):
        def read(self, request: Request) -> Generation:
            return Generation(prompt.UNKNOWN, (-0.05,), (5.0,), stopped=True)

    assert own_words.answered(Silent(well=True), own_words.questions()[:3], 64) == []


def test_the_questions_that_ship_are_the_golden_ones_and_some_that_no_page_answers() -> None:
    known = {g.question for g in company.golden() if g.keys}
    asked = own_words.questions()
    assert {one["asked"] for one in asked if one["keys"]} == known
    assert {one["asked"] for one in asked if not one["keys"]} < set(company.near_topic())
    assert all(one["keys"] for one in asked[: own_words.FEW])
    assert all(one["passages"] for one in asked)


@pytest.mark.parametrize(
    ("text", "style", "route"),
    [
        ("They may park behind the gate on level two.", Style.GENERATED, Route.RETRIEVED),
        (prompt.UNKNOWN, Style.QUOTED, Route.RETRIEVED),
    ],
)
def test_the_surer_of_quote_and_own_words_is_given(
    home_in_memory: Path, tmp_path: Path, text: str, style: Style, route: Route
) -> None:
    page = tmp_path / "parking.md"
    page.write_text("# Parking\n\nVisitors park on level two, behind the gate.\n", encoding="utf-8")
    database, embedder = Database(home_in_memory), WordHashes()
    ingest(database, embedder, [page])
    confidence = by_one_that_reads_well()
    heads = {**confidence.heads, "quoted": head_at(0.6, 0.99)}
    tools = Tools(
        embedder=embedder,
        taught=TaughtQuestions(database, embedder),
        searcher=Retriever(database, embedder, VectorIndex(home_in_memory, database)),
        model=Model("v1", Says(text), replace(confidence, heads=heads), {}),  # type: ignore[arg-type]
    )
    answer = pipeline.answer(tools, ASKED)
    assert (answer.style, answer.route) == (style, route)
    assert answer.sources


def test_a_base_of_ones_own_is_asked_once_how_it_reads(home_in_memory: Path, tmp_path: Path) -> None:
    """Even where nothing is taught and nobody votes; the confidence that ships is that of the shipped base."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for name, asked in (("embedded", False), (str(tmp_path), True)):
        night = Night(Database(home_in_memory), settings.load({"NIGHTSHIFT_BASE_MODEL": name}), lambda _: None)
        told: dict[str, Any] = {"targets": calibrate.targets(night.settings)}
        assert nightly.outdated(night, told) is asked
        told["reads_as"] = replay.weights_of(tmp_path)
        assert not nightly.outdated(night, told)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert nightly.outdated(night, told)
