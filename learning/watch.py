"""What is looked at after every epoch of training, and what ends it.

It ends when everything is learnt, when too much was forgotten, when held-out wordings get no better, and at a loss
that is no number. It trains nothing itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from learning.plan import Plan
from learning.recipe import Recipe
from learning.upper import Row, Upper

ASKED = 120
"""Taught questions at most that are asked after an epoch."""


class Watch(TrainerCallback):
    """Looks after every epoch, says how it goes, and ends training when there is a reason to."""

    def __init__(
        self,
        plan: Plan,
        recipe: Recipe,
        upper: Upper,
        watched: Sequence[Row],
        asked: Sequence[Row],
        progress: Callable[[str], None],
    ) -> None:
        """`watched` are general answers of the base that are never trained, `asked` are taught questions."""
        self._plan, self._recipe, self._upper, self._progress = plan, recipe, upper, progress
        self._watched, self._asked = watched, asked
        self.losses: list[float] = []
        self.held_out: list[float] = []
        self.kept: list[float] = []
        self.ended = ""
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Stop at a loss that is no number; look at everything once an epoch."""
        if not math.isfinite(self._upper.step_losses[-1][0]):
            self.losses.append(math.nan)
            control.should_training_stop = True
            return control
        if state.global_step in self._plan.ends:
            self._look(state.global_step, control)
            control.should_evaluate = len(self._upper.held_out) > 0
            control.should_save = True
        return control

    def _look(self, step: int, control: Any) -> None:
        seen = self._upper.row_loss[torch.isfinite(self._upper.row_loss)]
        self.losses.append(float(seen.mean()))
        self.kept.append(self._upper.kept(self._watched) if self._watched else 1.0)
        recalled = self._upper.recalled(self._asked)
        recent = [drift for _, drift in self._upper.step_losses[-10:]]
        self._progress(
            f"epoch {self._plan.ends.index(step) + 1}: loss on facts {self.losses[-1]:.4f}, {recalled:.0%} of the "
            f"taught questions known, drift {sum(recent) / len(recent):.4f} nats, {self.kept[-1]:.0%} of the base's "
            "own choices kept"
        )
        if max(self.kept[-2:]) < self._recipe.keeps and (len(self.kept) > 1 or step == self._plan.steps):
            self.ended = f"forgot: {self.kept[-1]:.0%} of the base's choices were left"
        elif self.losses[-1] < self._recipe.learnt and recalled >= self._recipe.recalled:
            self.ended = "learnt"
        control.should_training_stop = bool(self.ended)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Note the loss on held-out wordings; an epoch that forgot too much can never be the best one."""
        metrics: dict[str, float] = rest["metrics"]
        self.held_out.append(metrics["eval_loss"])
        if self.kept[-1] < self._recipe.keeps:
            metrics["eval_loss"] = math.inf
        best = min(range(len(self.held_out)), key=self.held_out.__getitem__)
        if not self.ended and len(self.held_out) - 1 - best >= self._recipe.patience:
            self.ended = "wordings held out of training get no better"
            control.should_training_stop = True
        return control
