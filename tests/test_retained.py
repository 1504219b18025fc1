"""What a night must not take away: the items that ship, the statistics, the gates, and that each gate can fail."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.generation import Request
from bot.generator import LocalGenerator
from learning import edges, evaluate, gates, paired, replay, retained
from learning.dataset import Fact
from learning.evaluate import Proof
from learning.retained import Retained
from storage import company
from storage.company import answer_matches
from storage.domain import Memory

paired.least_share(1, 2)  # loads scipy once, and not inside an example that is timed

CATEGORIES = ("knowledge", "language", "reasoning", "domain", "both")

# --- the items ---


def test_the_battery_has_sixty_questions_in_five_categories_of_twelve() -> None:
    rows = evaluate.battery()
    assert [sum(r["category"] == name for r in rows) for name in CATEGORIES] == [12] * 5
    assert len({r["id"] for r in rows}) == len({r["question"] for r in rows}) == 60
    assert all(not answer_matches(r["question"], r["keys"]) for r in rows), "a question gives its answer away"


def test_every_answer_stands_in_its_passage_and_in_no_question() -> None:
    rows = retained.reading_items()
    assert 30 <= len(rows) <= 40
    assert len({r["id"] for r in rows}) == len({r["passage"] for r in rows}) == len(rows)
    for row in rows:
        assert answer_matches(row["passage"], row["keys"]), row["id"]
        assert not answer_matches(row["question"], row["keys"]), row["id"]


def test_nothing_that_is_measured_is_replayed_or_a_fact_of_the_demo_company() -> None:
    replayed = {*replay.general_prompts(), *(question for _, question in replay.readings())}
    measured = {r["question"] for r in [*evaluate.battery(), *retained.reading_items()]}
    assert not measured & replayed
    assert not measured & {f.question for f in company.facts()}


def test_the_general_texts_are_of_many_kinds_and_long_enough() -> None:
    texts = retained.general_texts()
    assert len(texts) >= 20
    assert len(set(texts)) == len(texts)
    assert all(40 <= len(text.split()) <= 120 for text in texts)


FORMS = {
    "The tour starts at 10:15.": True,
    "Yes.": True,
    "": False,
    "...": False,
    "Nine days.<|im_end|>": False,
    "Nine days.\nuser\nAnd then?": False,
    "the end of the road and the end of the road and the end of the road": False,
    "It is red, it is green, it is blue.": True,
}


@pytest.mark.parametrize(("text", "expected"), FORMS.items())
def test_an_answer_has_words_and_no_marks_and_does_not_run_in_circles(text: str, expected: bool) -> None:
    assert retained.well_formed(text) is expected


# --- the statistics ---


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_drop_is_proven_just_when_mcnemar_says_so(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    found = paired.lost(before, after)
    assert found.at_least <= found.mean + 1e-9
    assert found.mean <= found.at_most + 1e-9
    assert (found.at_least > 1e-9) == (paired.mcnemar(before, after) < 0.05 - 1e-9)
    back = paired.lost(after, before)
    assert (back.mean, back.at_least, back.at_most) == pytest.approx((-found.mean, -found.at_most, -found.at_least))


@pytest.mark.parametrize(("right", "asked", "least"), [(10, 10, 0.05**0.1), (0, 10, 0.0), (5, 10, 0.2224), (0, 0, 0.0)])
def test_the_lower_end_of_a_share_is_the_textbook_one(right: int, asked: int, least: float) -> None:
    assert paired.least_share(right, asked) == pytest.approx(least, abs=1e-4)


def test_the_exact_interval_holds_the_true_drop_as_often_as_it_promises() -> None:
    """Among items that change, 60 % are losses; the bound may be above the truth in at most 5 % of samples."""
    rng = random.Random(1)
    missed = 0
    for _ in range(400):
        changes = [rng.random() < 0.6 for _ in range(30)]
        before, after = changes + [True] * 70, [not c for c in changes] + [True] * 70
        missed += paired.lost(before, after).at_least > 0.3 * (2 * 0.6 - 1)
    assert missed / 400 <= 0.05


def test_the_bootstrap_has_both_ends() -> None:
    found = paired.dropped([3.0, 3.1, 2.9, 3.3] * 6, [3.1, 3.1, 3.0, 3.5] * 6)
    assert found.at_least < found.mean < found.at_most < 0
    assert paired.dropped([], []) == paired.Drop(0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="zip"):
        paired.lost([True], [])


# --- the gates ---

IDS = tuple(f"b{n}" for n in range(60))
READ = tuple(f"r{n}" for n in range(40))
BASE = Retained(
    battery={name: at < 36 for at, name in enumerate(IDS)},
    reading={name: at < 28 for at, name in enumerate(READ)},
    formed=dict.fromkeys((*IDS, *READ), True),
    losses=tuple(3.0 + 0.1 * (at % 7) for at in range(24)),
)


def failed(now: Retained) -> set[str]:
    """The gates that a model with these results fails against the base."""
    return {g["name"] for g in gates.judge(retained.compared(BASE, now)).gates if not g["passed"]}


def without(results: dict[str, bool], lost: int) -> dict[str, bool]:
    """The same results with the first items wrong."""
    return {name: right and at >= lost for at, (name, right) in enumerate(results.items())}


def test_the_base_passes_against_itself_and_a_few_unlucky_items_stop_nothing() -> None:
    assert failed(BASE) == set()
    assert (
        failed(replace(BASE, battery=without(dict(BASE.battery), 4), reading=without(dict(BASE.reading), 4))) == set()
    )


def test_a_loss_beyond_chance_stops_before_fifteen_per_cent_do() -> None:
    assert failed(replace(BASE, battery=without(dict(BASE.battery), 5))) == {"battery_worse"}
    assert failed(replace(BASE, battery=without(dict(BASE.battery), 6))) == {"battery_worse", "general_battery"}


def test_losing_and_winning_as_many_is_not_worse() -> None:
    turned = {name: 8 <= at < 44 for at, name in enumerate(IDS)}
    assert failed(replace(BASE, battery=turned)) == set()


def test_reading_stops_at_its_bound_and_at_the_hard_stop() -> None:
    assert failed(replace(BASE, reading=without(dict(BASE.reading), 6))) == {"reading", "reading_drop"}
    swapped = {name: 6 <= at < 33 for at, name in enumerate(READ)}
    assert failed(replace(BASE, reading=swapped)) == set(), "six lost and five won is noise"


def test_answers_that_do_not_end_stop_a_night() -> None:
    assert failed(replace(BASE, formed=without(dict(BASE.formed), 5))) == set()
    assert failed(replace(BASE, formed=without(dict(BASE.formed), 8))) == {"stop_format"}


def test_a_rise_of_general_loss_stops_when_it_is_proven() -> None:
    noisy = tuple(x + (0.4 if at % 4 == 0 else -0.05) for at, x in enumerate(BASE.losses))
    assert failed(replace(BASE, losses=noisy)) == set(), "mean 0.06, but four texts make all of it"
    assert failed(replace(BASE, losses=tuple(x + 0.06 for x in BASE.losses))) == {"general_loss"}
    assert failed(replace(BASE, losses=(float("nan"), *BASE.losses[1:]))) == {"general_loss"}


def test_a_failed_gate_of_forgetting_names_its_number_and_is_mended_by_less() -> None:
    verdict = gates.judge(retained.compared(BASE, replace(BASE, reading=without(dict(BASE.reading), 14))))
    assert "reading is 0.5 and must be at least 0.85" in verdict.reason
    assert verdict.only_forgot
    assert not gates.judge({"finite": 0.0, "reading": 0.5}).only_forgot


def test_other_items_are_never_compared() -> None:
    with pytest.raises(KeyError):
        retained.compared(BASE, replace(BASE, battery={"new": True}))


def proof(number: int, *, taught: bool) -> Proof:
    return Proof(number, taught, 2, 2, 0, 1)


@pytest.mark.parametrize(
    ("counts", "memorised"),
    [((2, 2, 0, 3), True), ((1, 2, 1, 3), True), ((0, 2, 0, 3), False), ((2, 2, 2, 3), False), ((0, 0, 0, 0), True)],
)
def test_an_answer_that_unseen_words_miss_or_near_misses_get_is_not_memorised(
    counts: tuple[int, int, int, int], memorised: bool
) -> None:
    assert Proof(1, True, *counts).memorised == memorised
    assert not Proof(1, False, *counts).memorised


def test_a_proof_that_was_not_asked_tonight_names_the_version_that_was() -> None:
    asked, taken_over = Proof(1, True, 2, 2, 1, 3, 2), Proof(1, True, 0, 0, 0, 0)
    first = asked.as_json()
    second = taken_over.as_json(Memory("v1", 1, True, first))
    counts = {"unseen": [2, 2], "near_misses_bluffed": [1, 3], "near_misses_refused": [2, 3]}
    assert second == {"taught": True, **counts, "asked_in": "v1"}
    assert taken_over.as_json(Memory("v2", 1, True, second)) == second
    assert asked.as_json(Memory("v3", 1, True, second)) == first == asked.as_json()


def test_of_many_known_facts_a_small_proven_loss_stops_and_of_few_it_does_not() -> None:
    champion = {n: Memory("v1", n, True, {}) for n in range(500)}
    lost = evaluate.old_fact_values([proof(n, taught=n >= 20) for n in range(500)], champion)
    assert lost["old_facts"] == 0.96
    assert [g["name"] for g in gates.judge(lost).gates if not g["passed"]] == ["old_facts_lost"]
    few = evaluate.old_fact_values([proof(n, taught=n >= 1) for n in range(30)], champion)
    assert gates.judge(few).passed


@pytest.mark.parametrize(("known", "lost", "passes"), [(3, 1, True), (19, 1, True), (19, 2, False), (40, 2, True)])
def test_one_lost_fact_of_a_few_blocks_nobody_and_two_do(known: int, lost: int, passes: bool) -> None:
    champion = {n: Memory("v1", n, True, {}) for n in range(known)}
    values = evaluate.old_fact_values([proof(n, taught=n >= lost) for n in range(known)], champion)
    assert values["old_facts"] == (1.0 if lost == 1 else 1 - lost / known)
    assert gates.judge(values).passed == passes


def test_what_another_taught_question_took_from_the_search_is_not_lost_by_the_weights() -> None:
    shown = Proof(1, True, 2, 2, 0, 3).as_json()
    champion = {n: Memory("v1", n, True, shown) for n in range(10)}
    outshone = [Proof(n, True, 0, 2, 0, 3) for n in range(10)]
    values = evaluate.old_fact_values(outshone, champion)
    assert values["old_facts"] == 1.0
    assert gates.judge(values).passed
    assert not any(p.memorised for p in outshone)


def test_what_the_champion_gave_to_near_misses_it_did_not_hold() -> None:
    champion = {n: Memory("v1", n, False, Proof(n, True, 0, 2, 0, 3).as_json()) for n in range(10)}
    champion |= {n: Memory("v1", n, False, Proof(n, True, 2, 2, 3, 3).as_json()) for n in range(10, 20)}
    values = evaluate.old_fact_values([proof(n, taught=False) for n in range(20)], champion)
    assert values["old_facts"] == 0.0, "only the search had lost the first ten"
    assert evaluate.old_fact_values([proof(n, taught=False) for n in range(10, 20)], champion)["old_facts_lost"] <= 0


class Bluffer:
    """An engine that says one long answer to everything, as far as it is let."""

    def agreement(self, requests: Sequence[Request]) -> list[float]:
        """Whether the whole draft would be said."""
        return [float(len(r.draft.split()) <= r.max_tokens) for r in requests]


def test_a_bluff_of_many_words_is_seen() -> None:
    fact = Fact(1, "What now?", "word " * 80, "a", "b", "", True, ("What now?",), (), ("What then?", "When is now?"))
    fact = replace(fact, near_misses=tuple(f"What about {n}?" for n in range(20)))
    asked = len(fact.unseen_near_misses)
    assert asked >= 2
    assert evaluate.given_to_near_misses(cast("LocalGenerator", Bluffer()), [fact], 96) == {1: asked}


def test_what_a_full_disk_left_of_the_base_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    asked: list[str] = []
    monkeypatch.setattr(retained, "of", lambda _: asked.append("asked") or BASE)
    for left in ("", "{", None, None):
        for stored in tmp_path.glob("cache/*") if left is not None else ():
            stored.write_text(left)
        assert retained.of_base(tmp_path, tmp_path / "cache", "float32", lambda: cast("LocalGenerator", None)) == BASE
    assert asked == ["asked", "asked"]


def test_a_base_that_has_nothing_right_can_lose_nothing() -> None:
    nothing = dict.fromkeys(BASE.battery, False)
    assert retained.compared(replace(BASE, battery=nothing), replace(BASE, battery=nothing))["general_battery"] == 1.0
    assert retained.relative([True, True], [True, False]) == 0.5


def test_what_the_champion_did_not_hold_cannot_be_lost() -> None:
    champion = {1: Memory("v1", 1, False, {}), 2: Memory("v1", 2, True, {})}
    told = evaluate.old_fact_values([proof(1, taught=False), proof(2, taught=True), proof(3, taught=False)], champion)
    assert told["old_facts"] == 1.0
    assert told["old_facts_lost"] <= 0
    assert evaluate.old_fact_values([proof(3, taught=True)], champion) == {}


# --- edge cases ---


@given(st.integers(0, 40), st.sampled_from([f.question for f in company.facts()]))
def test_edge_questions_are_the_same_for_the_same_seed_and_differ_from_the_question(seed: int, question: str) -> None:
    made = edges.clear(question, seed)
    assert made == edges.clear(question, seed)
    assert question not in made.values()
    assert {"informal", "partial"} <= set(made)
    if "typos" in made:
        assert sorted(made["typos"]) == sorted(question)
    assert len(edges.vague(question, seed).split()) <= 4


def test_the_base_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(retained, "of", lambda _: BASE)
    calls: list[str] = []

    def load() -> object:
        calls.append("loaded")
        return object()

    for _ in range(2):
        found = retained.of_base(tmp_path, tmp_path / "cache", "bfloat16", load)  # type: ignore[arg-type]
        assert json.dumps(found.losses) == json.dumps(BASE.losses)
        assert retained.compared(BASE, found) == retained.compared(BASE, BASE)
    assert calls == ["loaded"]
