"""What meets what in training: pure planning, gates and paired statistics, without a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import gates, paired
from learning.plan import Plan
from learning.recipe import Recipe


@given(new=st.integers(1, 60), known=st.integers(0, 200), anchors=st.integers(1, 30), epochs=st.integers(1, 5))
def test_every_new_example_comes_once_an_epoch_and_known_ones_in_turn(
    new: int, known: int, anchors: int, epochs: int
) -> None:
    plan = Plan(new, known, anchors, Recipe(epochs=epochs, sifting=epochs), epochs)
    steps = [plan.step(number, [0.0] * (new + known)) for number in range(plan.steps)]
    for epoch, end in enumerate(plan.ends):
        seen = [f for facts, _ in steps[([0, *plan.ends][epoch]) : end] for f in facts]
        assert sorted(f for f in seen if f < new) == list(range(new))
        assert len([f for f in seen if f >= new]) == min(new, known)
    assert len(set(plan.repeated)) == len(plan.repeated) == min(known, min(new, known) * epochs)
    assert all(f < new + len(plan.repeated) for facts, _ in steps for f in facts)
    assert all(a < anchors for _, held in steps for a in held)


def test_a_gate_that_fails_is_named_with_its_number() -> None:
    verdict = gates.judge({"new_facts": 0, "general_battery": 0.95, "finite": 1.0})
    assert not verdict.passed
    assert [g["name"] for g in verdict.gates if not g["passed"]] == ["new_facts"]
    assert "new_facts is 0 and must be at least 1" in verdict.reason


def test_every_gate_passes_at_its_threshold_and_not_a_number_never_does() -> None:
    for gate in gates.TABLE:
        assert gates.judge({gate.name: gate.threshold}).passed
        assert not gates.judge({gate.name: float("nan")}).passed
        beyond = gate.threshold * (0.99 if gate.rule == "at_least" else 1.01)
        assert not gates.judge({gate.name: beyond}).passed
        assert gate.reason


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (5, 0, 1 / 32), (3, 1, 5 / 16), (1, 1, 0.75)],
)
def test_mcnemar_is_the_exact_binomial_tail(lost: int, won: int, p: float) -> None:
    before = [True] * lost + [False] * won + [True, False]
    after = [False] * lost + [True] * won + [True, False]
    assert paired.mcnemar(before, after) == pytest.approx(p)


def test_the_bootstrap_bounds_the_drop_from_above() -> None:
    before = [1.0] * 60 + [0.0] * 40
    after = [1.0] * 50 + [0.0] * 50
    found = paired.dropped(before, after)
    mean, bound = found.mean, found.at_most
    assert mean == pytest.approx(0.10)
    assert mean < bound < 0.20
    same = paired.dropped(before, before)
    assert (same.mean, same.at_most) == (0.0, 0.0)
