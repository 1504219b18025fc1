"""Which rows meet in which step, which stages a recipe has, and what a loss that is no number does."""

from itertools import chain

import pytest

from learning import recipe as recipes
from learning.dataset import Example
from learning.plan import FEW_STEPS, Plan, taught_questions
from learning.recipe import Recipe, stages

ROWS = 8 * (FEW_STEPS + 5)


def all_steps(plan: Plan, losses: list[float]) -> list[tuple[list[int], list[int]]]:
    return [plan.step(number, losses) for number in range(plan.steps)]


def test_every_new_row_comes_once_an_epoch() -> None:
    plan = Plan(20, 0, 30, Recipe(epochs=3), 3)
    steps = all_steps(plan, [0.0] * 20)
    per_epoch = plan.ends[0]
    for epoch in range(3):
        rows = list(chain(*(facts for facts, _ in steps[epoch * per_epoch : (epoch + 1) * per_epoch])))
        assert sorted(rows) == list(range(20))


def test_known_rows_come_in_turn_and_as_many_as_new_ones() -> None:
    plan = Plan(10, 500, 30, Recipe(epochs=4), 4)
    rows = [row for facts, _ in all_steps(plan, [0.0] * 50) for row in facts]
    known = [row for row in rows if row >= 10]
    assert len(plan.repeated) == 40
    assert len(known) == len(set(known)) == 40  # nothing is repeated twice while others wait
    assert len(rows) == 80


def test_later_epochs_repeat_what_is_known_worst() -> None:
    recipe = Recipe(epochs=5, sifting=3, sifted=0.5)
    plan = Plan(ROWS, 0, 30, recipe, 5)
    losses = [float(row) for row in range(ROWS)]
    steps = all_steps(plan, losses)
    fourth = [row for facts, _ in steps[plan.ends[2] : plan.ends[3]] for row in facts]
    assert sorted(fourth) == list(range(ROWS // 2, ROWS))


def test_a_taught_question_is_never_sifted_out() -> None:
    recipe = Recipe(epochs=5, sifting=3, sifted=0.5)
    plan = Plan(ROWS, 0, 30, recipe, 5, taught=(0, 5))
    steps = all_steps(plan, [float(row) for row in range(ROWS)])
    fourth = [row for facts, _ in steps[plan.ends[2] : plan.ends[3]] for row in facts]
    assert sorted(fourth) == [0, 5, *range(ROWS // 2 + 2, ROWS)]


def test_the_taught_question_is_the_first_wording_of_its_fact() -> None:
    rows = [("unknown", 1), ("fact", 1), ("fact", 1), ("fact", 2), ("unknown", 2), ("fact", 2)]
    assert taught_questions([Example("?", "!", kind, number) for kind, number in rows]) == [1, 3]


def test_short_epochs_are_not_sifted() -> None:
    plan = Plan(20, 0, 30, Recipe(epochs=5, sifting=1), 5)
    assert plan.steps == 5 * 3


def test_a_plan_is_the_same_for_the_same_seed_and_losses() -> None:
    one, two = (Plan(ROWS, 9, 30, Recipe(epochs=5), 5) for _ in range(2))
    losses = [0.1] * (ROWS + 45)
    assert all_steps(one, losses) == all_steps(two, losses)
    assert all_steps(Plan(ROWS, 9, 30, Recipe(epochs=5, seed=8), 5), losses) != all_steps(one, losses)


def test_stages_of_the_schedules() -> None:
    assert [s.first_layer for s in stages(Recipe(epochs=10, schedule="progressive"))] == [0.75, 0.5, 0.25, 0.0]
    assert [s.epochs for s in stages(Recipe(epochs=10, schedule="progressive"))] == [3, 3, 2, 2]
    light, medium, deep = stages(Recipe(epochs=18, schedule="staged"))
    assert (light.epochs, medium.epochs, deep.epochs) == (3, 5, 10)
    assert light.modules < deep.modules or set(light.modules) < set(deep.modules)
    assert stages(Recipe(epochs=3, method="full"))[0].first_layer == 0.0


@pytest.mark.parametrize(
    ("facts", "examples", "expected"),
    [(1, 19, 27), (4, 76, 10), (12, 228, 10), (13, 247, 5), (30, 570, 5), (60, 1140, 5), (500, 9500, 5)],
)
def test_epochs_follow_the_size(facts: int, examples: int, expected: int) -> None:
    assert recipes.epochs_for(facts, examples) == expected
