"""A packed row gives the numbers of separate sequences, and its gradients."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from learning import packing
from learning.packing import Layout

PREFIX = [5, 6, 7]
SEQUENCES = [[*PREFIX, 11, 12, 13, 14], [*PREFIX, 21], [*PREFIX, 31, 32, 33]]


def tiny(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def packed_states(model: LlamaForCausalLM, sequences: list[list[int]], prefix: int) -> torch.Tensor:
    own = [row[prefix:] for row in sequences]
    layout = Layout(prefix, tuple(map(len, own)))
    ids = torch.tensor([[*sequences[0][:prefix], *(t for row in own for t in row)]])
    out = model.model(input_ids=ids, position_ids=layout.positions, use_cache=False, layout=layout)
    return out.last_hidden_state[0]


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_packed_states_are_those_of_separate_sequences(prefix: int) -> None:
    plain, packed = tiny(), tiny()
    packing.use(packed)
    found = packed_states(packed, SEQUENCES, prefix)
    expected = [plain.model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in SEQUENCES]
    parts = [expected[0][:prefix], *(states[prefix:] for states in expected)]
    torch.testing.assert_close(found, torch.cat(parts), atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_separate_sequences() -> None:
    plain, packed = tiny(), tiny()
    packing.use(packed)
    weights = torch.randn(32, generator=torch.Generator().manual_seed(1))
    (packed_states(packed, SEQUENCES, len(PREFIX))[len(PREFIX) :] @ weights).sum().backward()
    for row in SEQUENCES:
        (plain.model(input_ids=torch.tensor([row])).last_hidden_state[0, len(PREFIX) :] @ weights).sum().backward()
    for (name, one), (_, other) in zip(plain.model.named_parameters(), packed.model.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-4, rtol=1e-3, msg=f"gradient of {name}")


def test_a_sequence_does_not_see_its_neighbours() -> None:
    model = tiny()
    packing.use(model)
    other = [[*PREFIX, 11, 12, 13, 14], [*PREFIX, 60, 61, 62], [*PREFIX, 31, 32, 33]]
    one, two = packed_states(model, SEQUENCES, 3), packed_states(model, other, 3)
    torch.testing.assert_close(one[:7], two[:7])
    torch.testing.assert_close(one[-3:], two[-3:])


def test_a_prefix_alone_is_read_as_it_is() -> None:
    plain, packed = tiny(), tiny()
    packing.use(packed)
    layout = Layout(3, (0,))
    ids = torch.tensor([PREFIX])
    found = packed.model(input_ids=ids, position_ids=layout.positions, use_cache=False, layout=layout)
    expected = plain.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(found.last_hidden_state, expected, atol=1e-5, rtol=1e-4)


def test_the_common_prefix_leaves_each_row_a_token() -> None:
    assert packing.common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert packing.common_prefix([[1, 2], [1, 2, 3]]) == 1
    assert packing.common_prefix([[9], [1]]) == 0
