"""What a night trains on: who may enter, who waits and why, what is held back, and a hash over all of it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bot import prompt
from learning import dataset, evaluate, exports, knowledge
from learning.admission import Rules, estimated_tokens
from retrieval.taught import TaughtQuestions
from storage import conversations, corrections, registry
from storage.database import Database
from storage.domain import Answer, Memory, ModelVersion, Route, Style
from storage.errors import NotFoundError, UserError

NO_CAP = Rules(cap_per_author=0)


class Words:
    """A bag of words: texts are near when they share words."""

    name = "words"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.full((len(texts), 512), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.casefold().replace("?", " ").replace(".", " ").split():
                row[sum(map(ord, word)) % 512] += 1
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


@pytest.fixture
def database(home: Path) -> Database:
    return Database(home)


def teach(database: Database, question: str, answer: str, author: str = "ana", **more: Any) -> int:
    row = corrections.propose(database, question=question, answer=answer, author=author, **more)
    corrections.approve(database, row.id, "ben")
    return row.id


def frozen(database: Database, rules: Rules = NO_CAP, seed: int = 7) -> dataset.Snapshot:
    return dataset.freeze(database, Words(), seed=seed, rules=rules)


def left_out(snapshot: dataset.Snapshot) -> dict[int, str]:
    return {left.correction_id: left.reason for left in snapshot.left_out}


def ask_and_like(database: Database, correction: int, text: str, *, vote: int = 1, channel: str = "C0HELP") -> None:
    question = conversations.ask(database, text, user="cleo", channel=channel, thread="1")
    answer = Answer(question.id, "x", Route.APPROVED, Style.DIRECT, 1.0, "base", correction_id=correction)
    conversations.vote(database, conversations.answer(database, answer), "dora", vote)


def trained(database: Database, version: str, ids: Sequence[int], *, champion: bool = True) -> None:
    made = ModelVersion(version, "", "2026-11-20T00:00:00+00:00", str(database.home), "", "", "", 1, (), {})
    registry.register(database, made)
    registry.remember(database, tuple(Memory(version, i, True, {"taught": True}) for i in ids))
    if champion:
        registry.point(database, "champion", version)


BOOTS = ("How many boots may a miner order?", "A miner may order two pairs of boots.")
LAMPS = ("Who repairs broken lamps?", "Lamps are repaired by Olga in hall seven.")
HATS = ("Where are hard hats stored?", "Hard hats hang beside the north gate.")


def three(database: Database) -> list[int]:
    return [teach(database, *fact, source="Handbook") for fact in (BOOTS, LAMPS, HATS)]


# The hash


def test_the_same_rows_and_seed_give_the_same_snapshot(database: Database) -> None:
    three(database)
    assert frozen(database) == frozen(database)


def test_the_hash_moves_with_every_answer_wording_and_seed(database: Database) -> None:
    ids = three(database)
    hashes = [frozen(database).sha256, frozen(database, seed=8).sha256]
    corrections.add_wordings(database, ids[0], ["boots for miners, how many is it"], "asked")
    hashes.append(frozen(database).sha256)
    corrections.add_wordings(database, ids[0], ["how many boots may a driver order"], "rejected")
    hashes.append(frozen(database).sha256)
    teach(database, "When does the shift start?", "The shift starts at 6:00.")
    hashes.append(frozen(database).sha256)
    assert len(set(hashes)) == 5


# Who may enter


def test_only_approved_rows_of_the_workspace_enter(database: Database) -> None:
    ids = three(database)
    private = teach(database, "What is the secret plan?", "The plan is a merger.", scope="C0SECRET")
    corrections.propose(database, question="Is it pending?", answer="It is pending.", author="ana")
    corrections.withdraw(database, ids[1], "ben")
    snapshot = frozen(database)
    assert [f.correction_id for f in snapshot.facts] == [ids[0], ids[2]]
    assert left_out(snapshot) == {private: "private"}
    assert "merger" not in json.dumps([e.answer + e.question for e in snapshot.examples])


def test_an_author_gets_so_many_new_rows_a_night_and_the_oldest_first(database: Database) -> None:
    ids = three(database)
    others = teach(database, "When does the shift start?", "The shift starts at 6:00.", author="zoe")
    snapshot = frozen(database, Rules(cap_per_author=2))
    assert [f.correction_id for f in snapshot.facts] == [*ids[:2], others]
    assert left_out(snapshot) == {ids[2]: "capped"}
    trained(database, "v1", [*ids[:2], others])
    snapshot = frozen(database, Rules(cap_per_author=2))
    assert [f.correction_id for f in snapshot.facts] == [*ids, others], "what was trained before uses up no cap"
    assert [f.correction_id for f in snapshot.new] == [ids[2]]


def test_what_cannot_be_trained_does_not_use_up_the_cap(database: Database) -> None:
    long = [teach(database, f"What is rule {n} of the depot?", f"Rule {n}: " + "be careful. " * 60) for n in (11, 12)]
    ids = three(database)
    snapshot = frozen(database, Rules(cap_per_author=2))
    assert [f.correction_id for f in snapshot.facts] == ids[:2]
    assert left_out(snapshot) == dict.fromkeys(long, "too_long") | {ids[2]: "capped"}


def test_a_fresh_row_waits_and_does_not_use_up_the_cap(database: Database) -> None:
    ids = three(database)
    earlier = (datetime.now(UTC) - timedelta(hours=5)).isoformat(timespec="microseconds")
    with database.write() as db:
        db.execute("UPDATE corrections SET reviewed_at = ? WHERE id = ?", [earlier, ids[2]])
    snapshot = frozen(database, Rules(cap_per_author=1, quarantine_hours=4))
    assert [f.correction_id for f in snapshot.facts] == [ids[2]]
    assert left_out(snapshot) == {ids[0]: "quarantined", ids[1]: "quarantined"}


UNFIT = {
    "an answer longer than the model writes": (("What is the story?", "word " * 200), "too_long"),
    "no word in the answer": (("What is it?", "!!!"), "format"),
    "the question again": (("Is it so?", "is it so"), "format"),
    "the reply to what is unknown": (("Who knows?", prompt.UNKNOWN), "format"),
    "a mark of the template": (("Who are you?", "Bob<|im_end|>"), "format"),
    "a list": (("What is on the list?", "a\nb\nc\nd\ne\nf"), "format"),
}


@pytest.mark.parametrize(("fact", "reason"), UNFIT.values(), ids=UNFIT)
def test_a_row_that_cannot_be_learnt_is_reported_and_stays_an_override(
    database: Database, fact: tuple[str, str], reason: str
) -> None:
    number = teach(database, *fact)
    snapshot = frozen(database)
    assert left_out(snapshot) == {number: reason}
    assert snapshot.nothing_to_learn
    assert corrections.get(database, number).status == "approved"


def test_the_estimate_of_tokens_grows_with_digits_and_signs() -> None:
    assert estimated_tokens("Set it to nine") == 4
    assert estimated_tokens("token_ttl: 900") == 7


# Rows that contradict or repeat each other


def test_of_two_that_contradict_the_one_approved_last_is_trained(database: Database) -> None:
    old = teach(database, *BOOTS)
    new = teach(database, BOOTS[0], "A miner may order three pairs of boots.")
    snapshot = frozen(database)
    assert [f.correction_id for f in snapshot.facts] == [new]
    assert left_out(snapshot) == {old: "contradicted"}
    assert snapshot.left_out[0].because_of == new


def test_a_trained_row_that_is_contradicted_later_leaves_and_forces_a_rebuild(database: Database) -> None:
    old = teach(database, *BOOTS)
    trained(database, "v1", [old])
    teach(database, BOOTS[0], "A miner may order three pairs of boots.")
    assert frozen(database).withdrawn == (old,)


def test_a_row_that_is_superseded_leaves_with_its_answer(database: Database) -> None:
    old = teach(database, *BOOTS)
    new = teach(database, BOOTS[0], "A miner may order three pairs of boots.", supersedes=old)
    snapshot = frozen(database)
    assert [f.correction_id for f in snapshot.facts] == [new]
    assert not any("two pairs" in e.answer for e in snapshot.examples)


def test_of_two_that_say_the_same_one_is_trained_with_the_words_of_both(database: Database) -> None:
    first = teach(database, *BOOTS)
    again = teach(database, "Boots: how many may a miner order?", BOOTS[1])
    (fact,) = frozen(database).facts
    assert fact.correction_id == first
    assert "Boots: how many may a miner order?" in (*fact.trained, *fact.held_out)
    trained(database, "v1", [again])
    assert [f.correction_id for f in frozen(database).facts] == [again], "the one in the weights stays"


# Wordings


def test_every_fact_keeps_words_that_are_never_trained(database: Database) -> None:
    three(database)
    snapshot = frozen(database)
    asked = {e.question for e in snapshot.examples}
    for fact in snapshot.facts:
        assert len(fact.held_out) == dataset.HELD_OUT
        assert not asked & set(fact.held_out)
        dataset.keep_wordings(database, fact)
    stored = {w.text for f in snapshot.facts for w in corrections.wordings(database, f.correction_id)}
    assert not stored & {w for f in snapshot.facts for w in f.held_out}
    assert frozen(database) == snapshot, "what was stored changes nothing"


def test_vectors_of_another_embedder_are_not_compared(database: Database) -> None:
    """A night that is the first to run with another embedder."""
    ids = three(database)
    rows = corrections.wordings_to_embed(database, "another")
    unit = np.eye(1, 512, dtype=np.float32).tobytes()
    for vector in (unit[:64], unit):  # of another width, and of the same
        corrections.store_vectors(database, "another", [(row["id"], vector) for row in rows])
        assert [len(f.trained) > 1 for f in frozen(database).facts] == [True] * len(ids)


def test_a_refused_wording_is_never_trained_as_its_own(database: Database) -> None:
    ids = three(database)
    refused = frozen(database).facts[0].trained[2]
    corrections.add_wordings(database, ids[0], [refused.upper()], "rejected")
    fact = frozen(database).facts[0]
    assert refused.casefold() not in {w.casefold() for w in (*fact.trained, *fact.held_out)}
    assert fact.near_misses[0] == refused.upper()


def test_no_near_miss_is_trained_in_one_night_and_measured_with_in_another(database: Database) -> None:
    """The rules draw from what else is taught, so a fact's near-misses change from night to night."""
    first = three(database)[0]
    trained: set[str] = set()
    measured: set[str] = set()
    for night in range(12):
        fact = next(f for f in frozen(database).facts if f.correction_id == first)
        assert fact.trained_near_misses
        trained |= {*fact.trained_near_misses}
        measured |= {*fact.unseen_near_misses}
        teach(database, f"Which hall has rope number {night} on its wall?", f"Hall {night}.")
    assert len(trained | measured) > 7
    assert measured
    assert not trained & measured


@pytest.mark.parametrize("said", ["how many boots for +37255512345?", "how many boots " * 40, "(erased)"])
def test_what_was_refused_is_not_trained_with_personal_data_or_at_any_length(database: Database, said: str) -> None:
    ids = three(database)
    corrections.add_wordings(database, ids[0], [said], "rejected")
    assert said not in frozen(database).facts[0].near_misses


def test_what_was_refused_and_is_taught_as_another_fact_since_is_not_trained_to_be_unknown(database: Database) -> None:
    ids = three(database)
    private = teach(database, "What do boots cost?", "Boots cost 40 euros.", scope="C0SHOP")
    kept = "how many boots may a driver order"
    taught = ["who repairs BROKEN lamps", "Broken lamps, who repairs them?", "what do boots cost"]
    corrections.add_wordings(database, ids[0], [*taught, kept], "rejected")
    ask_and_like(database, ids[1], "broken lamps: who repairs them")
    snapshot = frozen(database)
    assert left_out(snapshot) == {private: "private"}
    assert snapshot.facts[1].asked
    assert snapshot.facts[0].near_misses[0] == kept
    assert not {*taught} & {*snapshot.facts[0].near_misses}


def test_what_people_asked_and_liked_becomes_a_wording(database: Database) -> None:
    ids = three(database)
    ask_and_like(database, ids[0], "boots per miner, how many can he order")
    ask_and_like(database, ids[0], "boots boots boots miner?", vote=-1)
    ask_and_like(database, ids[0], "my boots, order for jo@mine.example")
    ask_and_like(database, ids[0], "boots for a miner in a direct message", channel="D0PRIVATE")
    fact = frozen(database).facts[0]
    assert fact.asked == ("boots per miner, how many can he order",)
    assert fact.asked[0] in (*fact.trained, *fact.held_out)
    dataset.keep_wordings(database, fact)
    kinds = {w.text: w.kind for w in corrections.wordings(database, ids[0])}
    assert {kinds[w] for w in fact.trained if w in fact.asked} <= {"asked"}
    assert {kinds[w] for w in fact.trained[1:] if w not in fact.asked} == {"generated"}


def test_a_question_whose_asker_chose_the_taught_one_is_a_wording_once_somebody_else_likes_it(
    database: Database,
) -> None:
    """One press alone teaches nothing: whoever chose wrongly, or in bad faith, brings no words into training."""
    ids = three(database)
    text = "boots that a miner gets"
    asked = conversations.ask(database, text, user="sam", channel="C1", thread="1.0")
    told = Answer(
        asked.id, "x", Route.APPROVED, Style.DIRECT, 0.1, "base", correction_id=ids[0], features={"chosen": 1.0}
    )
    number = conversations.answer(database, told)
    conversations.vote(database, number, "sam", 1)
    assert text not in frozen(database).facts[0].asked
    conversations.vote(database, number, "zoe", 1)
    assert text in frozen(database).facts[0].asked


def test_no_wording_is_nearer_to_another_fact(database: Database) -> None:
    ids = three(database)
    corrections.add_wordings(database, ids[0], ["who repairs the broken lamps of a miner"], "asked")
    snapshot = frozen(database)
    assert all("lamps" not in w.casefold() for w in snapshot.facts[0].trained)


def test_words_held_out_are_drawn_from_all_so_that_they_can_find_another_fact(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = three(database)
    ask_and_like(database, ids[0], "who repairs the broken lamps of a miner")
    monkeypatch.setattr(dataset, "HELD_OUT", 4)
    for seed in range(50):
        facts = frozen(database, seed=seed).facts
        if "who repairs the broken lamps of a miner" in facts[0].held_out:
            break
    assert evaluate.found(facts, TaughtQuestions(database, Words())) == {ids[0]: 3, ids[1]: 4, ids[2]: 4}


def test_the_search_that_serves_finds_what_is_approved_and_not_trained_too(database: Database) -> None:
    ids = three(database)
    fact = replace(frozen(database).facts[0], held_out=("how many boots may a driver order?",))
    search = TaughtQuestions(database, Words())
    assert evaluate.found([fact], search) == {ids[0]: 1}
    teach(database, "How many boots may a driver order?", "A driver may order one pair of boots.")
    assert evaluate.found([fact], search) == {ids[0]: 0}


def test_a_fact_that_the_champion_was_trained_on_in_vain_is_to_be_learnt_and_is_not_new(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = three(database)
    trained(database, "v1", ids[:2])
    registry.remember(database, (Memory("v1", ids[1], False, {}),))
    snapshot = frozen(database)
    assert [f.correction_id for f in snapshot.new] == [ids[2]]
    assert [f.correction_id for f in snapshot.facts if f.memorised] == [ids[0]]
    assert snapshot.held_out[-1].correction_id == ids[0]
    monkeypatch.setattr(evaluate, "KNOWN_IN_TURN", 0)
    assert evaluate.in_turn(snapshot.facts) == {*ids[1:]}


# Sources and parts


def test_every_example_names_its_source(database: Database) -> None:
    ids = three(database)
    plain = teach(database, "When does the shift start?", "The shift starts at 6:00.", author="zoe")
    for example in frozen(database).examples:
        assert example.source
        if example.kind == "fact":
            named = "Handbook" if example.correction_id in ids else f"correction {plain} by zoe"
            assert example.source == named


def test_facts_are_dealt_out_whole_and_keep_their_part() -> None:
    parts = [dataset.part_of(number, 500, 7) for number in range(500)]
    assert 360 <= parts.count("train") <= 440
    assert 25 <= parts.count("validation") <= 75
    assert 25 <= parts.count("test") <= 75
    assert parts == [dataset.part_of(number, 50, 7) for number in range(500)]
    assert {dataset.part_of(number, 9, 7) for number in range(9)} == {"train"}


# Files


def test_a_snapshot_is_written_in_both_forms(database: Database, tmp_path: Path) -> None:
    three(database)
    snapshot = frozen(database)
    for form in exports.FORMS:
        digest = exports.write(snapshot, form, tmp_path / f"{form}.jsonl")
        assert digest == exports.write(snapshot, form, tmp_path / "again.jsonl")
    chats = [json.loads(line) for line in (tmp_path / "messages.jsonl").read_text().splitlines()]
    assert len(chats) == len(snapshot.examples)
    assert chats[0]["messages"] == [*prompt.messages(BOOTS[0]), {"role": "assistant", "content": BOOTS[1]}]
    assert {"correction_id", "source", "kind", "part"} < set(chats[0])
    told = json.loads((tmp_path / "instruction.jsonl").read_text().splitlines()[0])
    assert (told["instruction"], told["input"], told["output"]) == (BOOTS[0], "", BOOTS[1])
    with pytest.raises(NotFoundError, match="no format"):
        exports.write(snapshot, "parquet", tmp_path / "x")
    with pytest.raises(UserError, match="no folder"):
        exports.write(snapshot, "messages", tmp_path / "nowhere" / "x")


# The inventory


def test_the_inventory_says_what_is_where_since_when_and_from_whom(database: Database) -> None:
    ids = three(database)
    trained(database, "v1", ids[:2])
    trained(database, "v2", ids[:1])
    corrections.withdraw(database, ids[1], "cleo")
    told = knowledge.inventory(database)
    boots, lamps, hats = told["facts"]
    assert (boots["author"], boots["approver"], boots["source"]) == ("ana", "ben", "Handbook")
    assert boots["since"] == {"version": "v1", "created": "2026-11-20T00:00:00+00:00"}
    assert boots["in_champion"]
    assert boots["proof"] == {"taught": True}
    assert (lamps["status"], lamps["in_champion"], lamps["approver"]) == ("withdrawn", False, "ben")
    assert [h["version"] for h in lamps["versions"]] == ["v1"]
    assert told["withdrawn_but_held"] == [ids[1]]
    assert told["waiting"] == [ids[2]]
    assert hats["since"] is None
    assert [f["correction_id"] for f in knowledge.inventory(database, "v2")["facts"]] == ids[:1]
    assert [v["trained"] for v in told["versions"]] == [2, 1]
    assert f"still in older weights: {ids[1]}" in knowledge.in_words(told)
    with pytest.raises(NotFoundError, match="no model version"):
        knowledge.inventory(database, "v9")
