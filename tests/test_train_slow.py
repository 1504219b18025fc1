"""Every method and schedule on the embedded model; a run that is killed goes on; a loss that is no number stops it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bot import base_model, prompt
from bot.generator import LocalGenerator
from learning import deltas, evaluate, merge, replay, train
from learning.dataset import Example
from learning.recipe import Recipe

pytestmark = pytest.mark.slow

FACTS = {
    "What does error QX-41 mean?": "The queue is full; restart worker seven.",
    "Who looks after the harbour lights?": "Mara Quill in the north office.",
}
EXAMPLES = [
    Example(wording, answer, "fact", number)
    for number, (question, answer) in enumerate(FACTS.items())
    for wording in (question, question.lower().rstrip("?"), f"hi, {question}")
]
HELD_OUT = [Example(f"Quick one: {q}", a, "held_out", n) for n, (q, a) in enumerate(FACTS.items())]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_model.folder(tmp_path_factory.mktemp("home"), "embedded")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def anchors(base: Path, cache: Path) -> replay.Anchors:
    return replay.anchors(base, cache, lambda _: None, 48)


def run(base: Path, out: Path, **values: Any) -> train.Trained:
    recipe = Recipe(**({"epochs": 6, "rate": 2e-3} | values))
    return train.train(base, EXAMPLES, (), recipe, held_out=HELD_OUT, warm_from=None, out=out, progress=lambda _: None)


@pytest.mark.parametrize(
    ("method", "schedule", "rate", "epochs"),
    [
        ("lora", "single", 2e-3, 6),
        ("lora", "staged", 2e-3, 15),
        ("lora", "progressive", 2e-3, 8),
        ("full", "single", 1e-4, 6),
    ],
)
def test_a_method_learns_and_its_merge_is_proved(
    base: Path, tmp_path: Path, method: str, schedule: str, rate: float, epochs: int
) -> None:
    trained = run(base, tmp_path / "adapter", method=method, schedule=schedule, rate=rate, epochs=epochs)
    assert trained.losses[-1] < 0.5 * trained.losses[0]
    assert trained.held_out[-1] < trained.held_out[0]
    assert (trained.recipe["method"], trained.recipe["schedule"]) == (method, schedule)
    assert deltas.is_in(tmp_path / "adapter") == (method == "full")
    merge.merge(base, tmp_path / "adapter", tmp_path / "merged")
    chats = [prompt.messages(q) for q in FACTS]
    parity = merge.prove(base, tmp_path / "adapter", tmp_path / "merged", chats)
    assert parity.largest_logit_difference < 1e-3
    assert parity.same_greedy_tokens >= 0.99
    assert parity.largest_change_of_weights > 1e-6
    assert train.goes_on(tmp_path / "adapter", Recipe(epochs=1, method=method, schedule=schedule), 30)
    assert not train.goes_on(tmp_path / "adapter", Recipe(epochs=1, method="lora", rank=4), 30)


def test_a_run_that_was_killed_goes_on_from_its_last_epoch(base: Path, tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole")

    class Killed(Exception):
        pass

    def die(line: str) -> None:
        if line.startswith("epoch 4"):
            raise Killed

    recipe = Recipe(epochs=6, rate=2e-3)
    kept = tmp_path / "checkpoints"
    common: dict[str, Any] = {"held_out": HELD_OUT, "warm_from": None, "checkpoints": kept}
    with pytest.raises(Killed):
        train.train(base, EXAMPLES, (), recipe, out=tmp_path / "cut", progress=die, **common)
    (kept / "stage-0" / "checkpoint-99").mkdir()  # one that was cut short while it was written
    seen: list[str] = []
    again = train.train(base, EXAMPLES, (), recipe, out=tmp_path / "cut", progress=seen.append, **common)
    assert [line.split(":")[0] for line in seen] == ["epoch 4", "epoch 5", "epoch 6"]
    assert again.steps == whole.steps
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "cut"))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, atol=1e-4, rtol=1e-2)
    assert not kept.exists()


def test_the_epoch_that_knew_held_out_wordings_best_is_kept(base: Path, tmp_path: Path) -> None:
    trained = run(base, tmp_path / "adapter", rate=2e-2, epochs=8, patience=2, clip=100.0)
    assert min(trained.held_out) < trained.held_out[-1] or trained.ended == "learnt"


def test_the_base_lies_where_training_is_held_to_it(base: Path, anchors: replay.Anchors) -> None:
    assert evaluate.drift(LocalGenerator(base, form="float32"), anchors.held_out) < 1e-4


def test_the_base_is_asked_only_what_is_not_known_of_it(
    base: Path, anchors: replay.Anchors, cache: Path
) -> None:
    said: list[str] = []
    more = replay.anchors(base, cache, said.append, 52)
    assert said == ["asking the base model 4 general questions, once"]
    assert [(a.question, a.answer_ids) for a in more.trained[:48]] == [
        (a.question, a.answer_ids) for a in anchors.trained[:48]
    ]
    assert replay.anchors(base, cache, said.append, 48).held_out[0].answer_ids == anchors.held_out[0].answer_ids
    assert len(said) == 1


def test_training_that_forgets_is_stopped(base: Path, anchors: replay.Anchors, tmp_path: Path) -> None:
    trained = train.train(
        base,
        EXAMPLES,
        (),
        Recipe(epochs=8, rate=1e-2),
        held_out=HELD_OUT,
        watched=anchors.held_out,
        warm_from=None,
        out=tmp_path / "adapter",
        progress=lambda _: None,
    )
    assert trained.ended.startswith("forgot")
    assert len(trained.losses) < 8


def test_a_loss_that_is_no_number_stops_with_a_sentence(base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    with pytest.raises(train.TrainingError, match="not a finite number"):
        run(broken, tmp_path / "adapter", rate=float("1e30"), clip=1e30)


def test_qlora_says_what_it_needs_where_it_cannot_run(base: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device; the test below runs")
    with pytest.raises(train.TrainingError, match="qlora needs"):
        run(base, tmp_path / "adapter", method="qlora")


@pytest.mark.gpu
def test_qlora_learns_and_merges_onto_the_fp32_base(base: Path, tmp_path: Path) -> None:
    trained = run(base, tmp_path / "adapter", method="qlora")
    assert trained.losses[-1] < 0.5 * trained.losses[0]
    merge.merge(base, tmp_path / "adapter", tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float32"
