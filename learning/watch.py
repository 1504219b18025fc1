"""What is looked at after every epoch of training, and what ends it.

It ends when everything is learnt, when too much was forgotten, when held-out wordings get no better, and at a loss
that is no number. What was seen is kept with every checkpoint. It trains nothing itself.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from learning.plan import Plan
from learning.recipe import Recipe
from learning.upper import Row, Upper

ASKED = 120
"""Taught questions at most that are asked after an epoch."""


@dataclass
class Seen:
    """What was seen of a stage up to a step: by epoch the loss on facts, on held-out wordings, and the share kept."""

    steps: int = 0
    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    ended: str = ""


def seen_at(checkpoint: Path) -> Seen:
    """What had been seen when a checkpoint was made."""
    told = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return Seen(**told["stateful_callbacks"]["Watch"]["attributes"])


class Watch(TrainerCallback, ExportableState):
    """Looks after every epoch, says how it goes, and ends training when there is a reason to."""

    def __init__(
        self,
        seen: Seen,
        plan: Plan,
        recipe: Recipe,
        upper: Upper,
        watched: Sequence[Row],
        asked: Sequence[Row],
        progress: Callable[[str], None],
    ) -> None:
        """`watched` are general answers of the base that are never trained, `asked` are taught questions.

        `seen` is what earlier runs saw of this stage.
        """
        self.seen = seen
        self._plan, self._recipe, self._upper, self._progress = plan, recipe, upper, progress
        self._watched, self._asked = watched, asked

    def state(self) -> dict[str, Any]:
        """What the Trainer stores of it in a checkpoint."""
        return {"args": {}, "attributes": asdict(self.seen)}

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Stop at a loss that is no number; look at everything once an epoch."""
        if not math.isfinite(self._upper.step_losses[-1][0]):
            self.seen.losses.append(math.nan)
            control.should_training_stop = True
            return control
        if state.global_step in self._plan.ends:
            self._look(state.global_step, control)
            control.should_evaluate = len(self._upper.held_out) > 0
            control.should_save = True
        return control

    def _look(self, step: int, control: Any) -> None:
        seen = self.seen
        known = self._upper.row_loss[torch.isfinite(self._upper.row_loss)]
        seen.steps = step
        seen.losses.append(float(known.mean()))
        seen.kept.append(self._upper.kept(self._watched) if self._watched else 1.0)
        recalled = self._upper.recalled(self._asked)
        recent = [drift for _, drift in self._upper.step_losses[-10:]]
        self._progress(
            f"epoch {self._plan.ends.index(step) + 1}: loss on facts {seen.losses[-1]:.4f}, {recalled:.0%} of the "
            f"taught questions known, drift {sum(recent) / len(recent):.4f} nats, {seen.kept[-1]:.0%} of the base's "
            "own choices kept"
        )
        if max(seen.kept[-2:]) < self._recipe.keeps and (len(seen.kept) > 1 or step == self._plan.steps):
            seen.ended = f"forgot: {seen.kept[-1]:.0%} of the base's choices were left"
        elif seen.losses[-1] < self._recipe.learnt and recalled >= self._recipe.recalled:
            seen.ended = "learnt"
        control.should_training_stop = bool(seen.ended)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Note the loss on held-out wordings; an epoch that forgot too much can never be the best one."""
        seen, metrics = self.seen, rest["metrics"]
        seen.held_out.append(metrics["eval_loss"])
        if seen.kept[-1] < self._recipe.keeps:
            metrics["eval_loss"] = math.inf
        best = min(range(len(seen.held_out)), key=seen.held_out.__getitem__)
        if not seen.ended and len(seen.held_out) - 1 - best >= self._recipe.patience:
            seen.ended = "wordings held out of training get no better"
            control.should_training_stop = True
        return control
