"""What training does, as values: methods, schedules, and the sizes that follow from the amount of data.

Every value stands in the recipe that is stored with a model version. The tables of the seeds were the first defaults;
which were kept and which a measurement changed stands in DECISIONS.md. It knows nothing of tensors.
"""

import math
from dataclasses import dataclass

METHODS = ("lora", "full", "qlora")
SCHEDULES = ("single", "staged", "progressive")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FEW_FACTS, EPOCHS_OF_FEW, EPOCHS_OF_MANY = 12, 10, 5
"""Epochs at most, by facts; training ends earlier once everything is learnt. The rate falls to nothing over them: with
more of them it is still high when training ends, and what was learnt is lost again on the way (DECISIONS.md)."""
RATE_OF_FEW, RATE_OF_MANY = 5e-4, 1e-3
"""Peak rate, by facts learnt from the base. Few are learnt in some hundred steps at half the rate, and cost fewer
simple questions; beside known facts the half was too little (DECISIONS.md)."""
LEAST_STEPS = 80
"""A night makes at least so many steps where its loss asks for them: few facts make few steps an epoch."""
MOST_EPOCHS = 30


@dataclass(frozen=True)
class Recipe:
    """Every value that decides what the weights become; stored with the run.

    `first_layer` is the share of layers that stay frozen. From epoch `sifting` on, an epoch repeats only the `sifted`
    share of rows that the model knows worst, and the taught questions. Training ends when the mean fact loss is below
    `learnt` (nats a token) and the `recalled` share of taught questions would get their whole answer; when wordings
    held out of training have not improved for `patience` epochs; or when two looks in a row find fewer than `keeps` of
    the base's own choices on held-out general answers left (the seeds stop at a fall of 15 %; the first epoch of many
    facts comes near it and recovers).
    """

    epochs: int
    rate: float = RATE_OF_MANY
    rank: int = 16
    alpha: int = 32
    batch: int = 8
    replay: int = 6
    replay_weight: float = 2.0
    first_layer: float = 0.5
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 7
    method: str = "lora"
    schedule: str = "single"
    sifting: int = 2
    sifted: float = 0.4
    learnt: float = 0.01
    recalled: float = 0.98
    patience: int = 3
    keeps: float = 0.85


@dataclass(frozen=True)
class Stage:
    """One stretch of training: its epochs, its share of the rate, the lowest layer and the modules that change."""

    name: str
    epochs: int
    rate: float
    first_layer: float
    modules: tuple[str, ...] = ALL


def stages(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe.

    `staged`: light, medium and deep, by modules and epochs (seeds/000, technique 1: 3, 5 and 10 epochs of 18, the
    first at half of the rate). `progressive`: the upper quarter, half, three quarters and all layers (seeds/000,
    technique 3: 3, 3, 2 and 2 epochs of 10).
    """
    if recipe.schedule == "staged":
        light, medium, deep = shares(recipe.epochs, (3, 5, 10))
        return (
            Stage("light", light, 0.5, recipe.first_layer, ("q_proj", "v_proj")),
            Stage("medium", medium, 1.0, recipe.first_layer, ("q_proj", "v_proj", "k_proj", "o_proj")),
            Stage("deep", deep, 1.0, 0.0 if recipe.method == "full" else recipe.first_layer),
        )
    if recipe.schedule == "progressive":
        parts = zip(shares(recipe.epochs, (3, 3, 2, 2)), (0.75, 0.5, 0.25, 0.0), strict=True)
        return tuple(Stage(f"from {first:.0%} up", epochs, 1.0, first) for epochs, first in parts)
    return (Stage("all at once", recipe.epochs, 1.0, 0.0 if recipe.method == "full" else recipe.first_layer),)


def shares(epochs: int, parts: tuple[int, ...]) -> list[int]:
    """Epochs dealt out in proportion, at least one each."""
    return [max(1, round(epochs * part / sum(parts))) for part in parts]


def epochs_for(facts: int, examples: int, batch: int = Recipe.batch) -> int:
    """Epochs at most for a number of facts whose examples make steps of `batch`."""
    by_size = EPOCHS_OF_FEW if facts <= FEW_FACTS else EPOCHS_OF_MANY
    an_epoch = math.ceil(max(1, examples) / batch)
    return min(MOST_EPOCHS, max(by_size, math.ceil(LEAST_STEPS / an_epoch)))


def rate_for(facts: int, *, warm: bool = False) -> float:
    """The peak rate for a number of facts; a night that goes on from an adapter (`warm`) has to keep up known ones."""
    return RATE_OF_FEW if facts <= FEW_FACTS and not warm else RATE_OF_MANY
