"""What `nightshift evaluate` measures, with an engine that says what its script holds and an embedder of words."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bot import confidence
from bot.generation import Generation, Request
from learning import benchmarks, consistency, dataset, evaluate, forgetting, retained, suites
from learning.benchmarks import Choice
from learning.retained import Retained
from learning.suites import Bench
from retrieval.embedder import TokenVectors
from storage import corrections, registry, settings
from storage.database import Database, now
from storage.domain import Memory, ModelVersion
from storage.errors import NotFoundError
from storage.texts import plain

FACTS = {
    "How many days may the office drill be borrowed?": "The office drill may be borrowed for nine days.",
    "Which colour has the barrel for old batteries?": "Old batteries go into the yellow barrel.",
    "Who conducts the choir on Wednesdays?": "Ilse Varga conducts the choir on Wednesdays.",
}


class Words:
    """A bag of words: texts are near when they share words."""

    name = "words"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), 512), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in plain(text).split():
                row[sum(map(ord, word)) % 512] += 1
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def tokens(self, text: str) -> TokenVectors:
        spans = tuple(found.span() for found in re.finditer(r"\S+", text))
        rows = self.encode([text[start:end] for start, end in spans])
        return TokenVectors(spans, rows, rows)


class Script:
    """Says what it holds for a question, word for word, and "no idea" to everything else."""

    def __init__(self, held: dict[str, str]) -> None:
        self.held = held

    def generate_many(self, chats: Sequence[Sequence[dict[str, str]]], *, max_tokens: int) -> list[str]:
        return [self.held.get(chat[-1]["content"], "no idea") for chat in chats]

    def confirm(self, messages: Sequence[dict[str, str]], draft: str, *, max_tokens: int) -> Generation:
        text = self.held.get(messages[-1]["content"], "no idea")
        return Generation(text, (-0.1,), (3.0,), stopped=True, confirmed=float(text == draft))

    def agreement(self, requests: Sequence[Request]) -> list[float]:
        return [self.confirm(r.messages, r.draft or "", max_tokens=r.max_tokens).confirmed for r in requests]


@pytest.fixture
def database(home: Path) -> Iterator[Database]:
    """Three corrections: the first two learnt in night 1, the third in night 2, which lost the second."""
    opened = Database(home)
    for question, answer in FACTS.items():
        row = corrections.propose(opened, question=question, answer=answer, author="U0SAM")
        corrections.approve(opened, row.id, "U0PRIYA")
    for name, parent in ((registry.BASE, ""), ("v1", registry.BASE), ("v2", "v1")):
        registry.register(
            opened, ModelVersion(name, parent, now(), "/nowhere", "", "", "", 0, (), confidence.shipped())
        )
    registry.remember(opened, (Memory("v1", 1, True, {}), Memory("v1", 2, True, {})))
    registry.remember(opened, (Memory("v2", 1, True, {}), Memory("v2", 2, False, {}), Memory("v2", 3, True, {})))
    registry.point(opened, "champion", "v2")
    yield opened
    opened.close()


def bench(database: Database, version: str = "v2", held: dict[str, str] | None = None, **given: Any) -> Bench:
    """A bench whose parts are scripted."""
    values = settings.load({}, overrides={"HOME": str(database.home)} | given)
    made = Bench(database, values, registry.get(database, version))
    vars(made).update(engine=Script(FACTS if held is None else held), embedder=Words())
    return made


def test_new_and_old_facts_are_told_apart_by_the_version_before(database: Database) -> None:
    first, _, third = FACTS
    made = bench(database, held={first: FACTS[first], third: FACTS[third]})
    assert suites.facts(made)["facts"] == 3
    assert (suites.new_facts(made)["facts"], suites.new_facts(made)["taught_wording"]) == (1, 1.0)
    assert (suites.old_facts(made)["facts"], suites.old_facts(made)["taught_wording"]) == (2, 0.5)
    assert suites.new_facts(bench(database, registry.BASE)) == {"facts": 0}
    assert suites.new_facts(bench(database, "v1"))["facts"] == 2
    assert suites.old_facts(bench(database, "v1")) == {"facts": 0}


def test_closed_book_and_memory_route_are_two_figures(database: Database) -> None:
    """The script knows taught wordings alone: closed-book no other gets the answer, by the route every one does."""
    found = suites.same_answer(bench(database))
    assert found["facts"] == 3
    assert found["closed_book_trained"] == found["closed_book_unseen"] == 0.0
    assert found["memory_route_trained"] == found["memory_route_unseen"] == 1.0


def test_wordings_that_were_stored_are_no_longer_unseen(database: Database) -> None:
    made = bench(database)
    fact = made.trained()[0]
    assert made.unseen(fact) == list(fact.held_out)
    corrections.add_wordings(database, fact.correction_id, [fact.held_out[0]], "generated")
    assert made.unseen(fact) == list(fact.held_out[1:])


ALIKE = {
    ("The drill may be kept nine days.", "the drill may be kept nine days"): True,
    ("The drill may be kept for 9 days.", "The drill may be kept for nine days."): True,
    ("The drill may be kept for 9 days.", "The drill may be kept for 8 days."): False,
    ("The choir sings.", "Batteries are yellow."): False,
}


@pytest.mark.parametrize(("pair", "same"), ALIKE.items())
def test_two_texts_are_one_answer_when_they_are_near_and_state_the_same_values(
    pair: tuple[str, str], same: bool
) -> None:
    assert consistency.same_answers([pair], Words()) == [same]


def test_edge_questions_find_their_fact_by_the_route_and_vague_ones_are_not_answered_as_sure(
    database: Database,
) -> None:
    found = suites.edge_cases(bench(database))
    for kind in ("typos", "informal", "partial"):
        assert found[f"{kind}_closed_book"] == 0.0
        assert found[f"{kind}_memory_route"] == 1.0, kind
    assert found["ambiguous_answered_as_sure"] == 0.0
    assert suites.edge_cases(bench(database, registry.BASE)) == {"facts": 0}


def test_forgetting_is_read_from_the_stored_nights(database: Database) -> None:
    found = suites.transfer(bench(database))
    assert found == {
        "nights": 2, "average_accuracy": 0.75, "bwt": -0.5, "R[1,1]": 1.0, "R[2,1]": 0.5, "R[2,2]": 1.0,
    }  # fmt: skip


def test_forward_transfer_asks_the_version_before_while_its_weights_are_there(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.here.execute("UPDATE model_versions SET path = ? WHERE version = 'v1'", [str(tmp_path)])
    made = bench(database)
    vars(made)["base"] = tmp_path / "base"
    third = list(FACTS)[2]
    held = {tmp_path: {third: FACTS[third]}, tmp_path / "base": {}}
    monkeypatch.setattr(Bench, "load", lambda _, folder: Script(held[folder]))
    assert suites.forward_transfer(made, forgetting.stored(database, "v2")) == 1.0


def results(right: int) -> Retained:
    """A model that answers the first questions of the battery and reads everything."""
    return Retained(
        battery={r["id"]: at < right for at, r in enumerate(evaluate.battery())},
        reading={r["id"]: True for r in retained.reading_items()},
        formed={"b01": True},
        losses=(3.0, 3.2),
    )


def test_general_questions_come_by_category_and_against_the_base(database: Database) -> None:
    made = bench(database)
    vars(made).update(before=results(40), now=results(30))
    found = suites.general(made)
    assert (found["right"], found["asked"], found["of_base"]) == (30, 60, 0.75)
    assert (found["knowledge"], found["language"], found["reasoning"], found["both"]) == (1.0, 1.0, 0.5, 0.0)
    assert found["mcnemar_p"] == pytest.approx(2**-10)
    assert suites.general_loss(made)["rise"] == 0.0


def test_reading_is_written_and_quoted(database: Database) -> None:
    made = bench(database)
    vars(made).update(before=results(40), now=replace(results(40), reading=dict.fromkeys(results(1).reading, False)))
    found = suites.reading(made)
    assert (found["generated"], found["generated_drop"]) == (0.0, 1.0)
    assert found["quoted"] > 0.9, "the passages are short"


def test_benchmarks_without_data_are_left_out_with_a_sentence(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: suites.SUITES[name] for name in ("forgetting", "hellaswag", "truthfulqa")}
    monkeypatch.setattr(suites, "SUITES", chosen)
    said: list[str] = []
    values = settings.load({}, overrides={"HOME": str(database.home)})
    told = suites.measure(database, values, registry.BASE, None, said.append)
    assert told == {"forgetting": {"nights": 0}}
    assert len(said) == 2
    assert "hellaswag is left out: NIGHTSHIFT_BENCH_DATA" in said[0]
    with pytest.raises(NotFoundError, match="BENCH_DATA"):
        suites.measure(database, values, "v2", "hellaswag")


def test_truthfulqa_reads_each_answer_once_for_both_of_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    one = [Choice("Q", (" b", " a"), (True, False)), Choice("Q", (" c", " d"), (True, False))]
    two = [Choice("Q", (" a", " b", " e"), (False, True, True)), Choice("Q", (" c", " d"), (True, False))]
    read: list[Sequence[Choice]] = []

    def score(engine: object, tasks: Sequence[Choice]) -> list[list[float]]:
        read.append(tasks)
        return [[-3.0, -1.0, -2.0], [-5.0, -4.0]]

    monkeypatch.setattr(benchmarks, "score", score)
    first, mass = benchmarks.truthful(None, one, two)  # type: ignore[arg-type]
    assert first == [True, False]
    expected = [(math.exp(-1) + math.exp(-2)) / (math.exp(-1) + math.exp(-2) + math.exp(-3)), 1 / (1 + math.e)]
    assert mass == pytest.approx(expected)
    assert read == [two]


def test_a_benchmark_is_compared_with_the_base_item_by_item_and_the_base_measured_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    task = {"context": "A man sits on a roof. He", "endings": ["sings.", "swims.", "flies.", "eats."], "label": 1}
    (tmp_path / "hellaswag").mkdir()
    (tmp_path / "hellaswag" / "dev.jsonl").write_text((json.dumps(task) + "\n") * 10)
    made = bench(database, BENCH_DATA=str(tmp_path), BENCH_ITEMS=8)
    vars(made)["base"] = tmp_path
    loaded: list[Path] = []

    def load(_: Bench, folder: Path) -> str:
        loaded.append(folder)
        return "the base"

    def right(engine: object, tasks: Sequence[Choice]) -> list[bool]:
        return [engine == "the base" or at < 6 for at in range(len(tasks))]

    monkeypatch.setattr(Bench, "load", load)
    monkeypatch.setattr(benchmarks, "by_length", right)
    for _ in range(2):
        found = suites.hellaswag(made)
        assert (found["acc_norm"], found["acc_norm_items"], found["acc_norm_drop"]) == (0.75, 8, 0.25)
        assert found["acc_norm_drop_at_least"] <= 0.25 <= found["acc_norm_drop_at_most"]
    assert loaded == [tmp_path]


def test_every_suite_has_a_name_that_says_what_it_measures() -> None:
    needed = {
        "new_facts", "old_facts", "consistency", "edge_cases", "forgetting", "general", "general_loss", "drift",
        "reading", "hellaswag", "truthfulqa",
    }  # fmt: skip
    assert needed <= set(suites.SUITES)
    assert all((run.__doc__ or "").strip() for run in suites.SUITES.values())
    assert dataset.HELD_OUT >= 2, "there are unseen wordings to ask"
