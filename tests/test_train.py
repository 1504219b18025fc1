"""Which rows meet in which step, which stages a recipe has, and how a run that was killed goes on."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learning import recipe as recipes
from learning import train
from learning.dataset import Example
from learning.plan import FEW_STEPS, Plan, taught_questions
from learning.recipe import Recipe, stages
from tests.test_merge import tiny

ROWS = 8 * (FEW_STEPS + 5)
LEARNT_AT_ONCE = {"learnt": 99.0, "recalled": 0.0}


def all_steps(plan: Plan, losses: list[float]) -> list[tuple[list[int], list[int]]]:
    return [plan.step(number, losses) for number in range(plan.steps)]


@pytest.mark.parametrize(("facts", "rate"), [(1, 5e-4), (12, 5e-4), (13, 1e-3), (500, 1e-3)])
def test_few_facts_are_learnt_at_half_the_rate(facts: int, rate: float) -> None:
    assert recipes.rate_for(facts) == rate
    assert recipes.rate_for(facts, warm=True) == Recipe.rate == 1e-3


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


def test_known_rows_that_were_not_seen_yet_leave_room_for_new_ones() -> None:
    recipe = Recipe(epochs=5, sifting=2, sifted=0.4)
    plan = Plan(ROWS, 50 * ROWS, 30, recipe, 5)
    losses = [float(row) for row in range(ROWS)] + [float("inf")] * (5 * ROWS)
    steps = all_steps(plan, losses)
    fifth = [row for facts, _ in steps[plan.ends[3] :] for row in facts]
    assert sorted(row for row in fifth if row < ROWS) == list(range(ROWS - int(0.4 * ROWS), ROWS))
    assert len(fifth) == int(0.8 * ROWS)


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


class Killed(Exception):
    pass


def run(folder: Path, recipe: Recipe, out: str, killed_at: int = 0) -> tuple[train.Trained | None, list[str]]:
    """What training of a tiny model gives and the epochs it tells of; it dies as it tells of one by its number."""
    told: list[str] = []

    def progress(line: str) -> None:
        told.append(line.split(":")[0])
        if len(told) == killed_at:
            raise Killed

    facts = [Example(f"w{n}", f"w{n + 9} w{n + 7}", "fact", n) for n in range(12)]
    held = [Example(f"w{n} w{n}", f"w{n + 9} w{n + 7}", "held_out", n) for n in range(4)]
    checkpoints = folder / f"checkpoints-{out}"
    try:
        made = train.train(
            folder / "base", facts, (), recipe, held_out=held, warm_from=None, out=folder / out, progress=progress,
            checkpoints=checkpoints,
        )  # fmt: skip
    except Killed:
        return None, told
    assert not checkpoints.exists()
    return made, told


@pytest.mark.parametrize("ends", [{}, LEARNT_AT_ONCE], ids=["all epochs", "ended early"])
def test_a_run_that_was_killed_in_a_later_stage_goes_on_there(tmp_path: Path, ends: dict[str, float]) -> None:
    tiny(tmp_path / "base")
    recipe = Recipe(epochs=8, schedule="staged", **ends)  # type: ignore[arg-type]
    whole, epochs = run(tmp_path, recipe, "whole")
    first = 1 if ends else stages(recipe)[0].epochs
    assert run(tmp_path, recipe, "cut", killed_at=first + 1)[0] is None
    again, rest = run(tmp_path, recipe, "cut")
    assert rest == epochs[first:]
    assert whole is not None
    assert again is not None
    assert (again.steps, again.losses, again.ended) == (whole.steps, pytest.approx(whole.losses), whole.ended)
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, atol=1e-4, rtol=1e-2)


def test_a_run_that_was_killed_after_its_last_epoch_trains_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Killed

    tiny(tmp_path / "base")
    recipe = Recipe(epochs=3)
    with monkeypatch.context() as disk:
        disk.setattr(train, "save", full)
        assert run(tmp_path, recipe, "cut") == (None, ["epoch 1", "epoch 2", "epoch 3"])
    (last := max((tmp_path / "checkpoints-cut" / "stage-0").glob("*"))).with_name("checkpoint-99").mkdir()
    (last.with_name("checkpoint-99") / "trainer_state.json").write_text('{"epoch"')  # cut short while it was written
    made, told = run(tmp_path, recipe, "cut")
    assert told == []
    assert made is not None
    assert len(made.losses) == len(made.held_out) == 3
