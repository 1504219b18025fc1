"""A loss that is a sum of parts, each computed and differentiated in a thread of its own.

A training step of a small model gains little from a second processor; two halves of it side by side gain most of it
(DECISIONS.md). It knows nothing of models.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from bot.processors import Processors

Part = TypeVar("Part")


def loss(
    processors: Processors, of_part: Callable[[Part], Tensor], parts: Sequence[Part], trained: Sequence[Tensor]
) -> Tensor:
    """The sum of the parts' losses, a scalar; the gradient for the `trained` tensors is computed with it."""
    if len(parts) == 1:
        return of_part(parts[0])
    return torch.as_tensor(Sum.apply(processors, of_part, parts, *trained))  # type: ignore[no-untyped-call]


class Sum(torch.autograd.Function):
    """A sum of losses whose gradients are computed where the losses are, and only scaled afterwards."""

    @staticmethod
    def forward(ctx: Any, processors: Processors, of_part: Callable[[Any], Tensor], parts: Any, *trained: Any) -> Any:
        """Add the parts up, always in the same order: floating-point sums depend on it."""

        def graded(part: Part) -> tuple[Tensor, tuple[Tensor, ...]]:
            with torch.enable_grad():
                loss = of_part(part)
                return loss.detach(), torch.autograd.grad(loss, trained)

        done = processors.each(graded, parts)
        ctx.gradients = [torch.stack(found).sum(0) for found in zip(*(found for _, found in done), strict=True)]
        return torch.stack([loss for loss, _ in done]).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        """The gradients for what was trained; nothing for the rest."""
        return None, None, None, *(gradient * upstream[0] for gradient in ctx.gradients)
