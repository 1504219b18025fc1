"""Parts that are computed side by side give what one computation gives."""

from collections.abc import Sequence

import pytest
import torch

from bot.processors import Processors
from learning import packing
from learning.replay import Anchor
from learning.upper import Upper
from tests.test_packing import tiny

PREFIX = [5, 6, 7]
ROWS = [([*PREFIX, 11, 12], [13, 14]), ([*PREFIX, 21], [22]), ([*PREFIX, 31, 32, 33, 34], [35, 36, 37])]


class Everything:
    """A plan of one step with every row and anchor in it, which keeps the losses that it was given."""

    losses: Sequence[float] = ()

    def step(self, number: int, losses: Sequence[float]) -> tuple[list[int], list[int]]:
        self.losses = losses
        return [0, 1, 2], [0, 1]


def anchor(prompt: list[int], answer: list[int]) -> Anchor:
    generator = torch.Generator().manual_seed(len(prompt))
    top = torch.stack([torch.randperm(64, generator=generator)[:4] for _ in answer])
    return Anchor("?", tuple(prompt), tuple(answer), top, torch.full(top.shape, 0.2).log())


def stepped(parts: int, first_layer: int) -> tuple[Upper, dict[str, torch.Tensor]]:
    model = tiny()
    packing.use(model)
    for parameter in (p for layer in model.model.layers[:first_layer] for p in layer.parameters()):
        parameter.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(first_layer == 0)
    upper = Upper(model, first_layer, PREFIX, 2.0, exact=True)
    upper.parts = parts
    upper.lessons(ROWS, [anchor([*PREFIX, 41, 42], [43, 44]), anchor([*PREFIX, 51], [52, 53, 54])], ROWS[:1])
    upper.plan = Everything()
    loss = upper(step=torch.tensor([0]))["loss"]
    (3 * loss).backward()
    gradients = {name: p.grad for name, p in upper.trained().items() if p.grad is not None}
    return upper, gradients | {"loss": loss.detach()}


@pytest.mark.parametrize("first_layer", [0, 1])
def test_a_step_in_two_parts_is_the_step_in_one(first_layer: int) -> None:
    one, expected = stepped(1, first_layer)
    two, found = stepped(2, first_layer)
    assert len(two.dealt([0, 1, 2], [0, 1])) == 2
    assert set(found) == set(expected)
    assert len(found) > 5
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-5, rtol=1e-4, msg=name)
    torch.testing.assert_close(two.row_loss, one.row_loss, atol=1e-5, rtol=1e-4)
    assert two.step_losses[0] == pytest.approx(one.step_losses[0], abs=1e-5)
    assert two.recalled(two.rows) == one.recalled(one.rows)


def test_the_rows_of_a_step_are_chosen_by_their_worst_token() -> None:
    """A long answer whose first token is wrong has a small mean, and is lost all the same."""
    upper, _ = stepped(1, 0)
    plan = upper.plan = Everything()
    before = [upper.losses([row], [])[0].detach() for row in upper.rows]
    upper(step=torch.tensor([0]))
    upper(step=torch.tensor([1]))
    assert plan.losses == pytest.approx([float(own.max()) for own in before], rel=1e-3)
    assert plan.losses[2] > float(upper.row_loss[2]) == pytest.approx(float(before[2].mean()), rel=1e-3)
    assert {"row_loss", "row_worst"} < set(upper.state_dict())


def test_a_step_with_less_than_a_row_for_each_part_is_one_part() -> None:
    upper, _ = stepped(2, 0)
    assert [(part.rows, part.anchors) for part in upper.dealt([1], [])] == [([1], [])]


def test_results_keep_their_order_and_a_failure_is_raised() -> None:
    before = torch.get_num_threads()
    assert Processors().each(lambda x: x * x, range(5)) == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        Processors().each(lambda x: 1 // x, [1, 0])
    assert torch.get_num_threads() == before
