"""Several texts in one pass of a model, laid end to end, each attending to itself alone.

Nothing is padded, and every other layer works token by token, so a text gets the numbers that it gets alone: to the
bit where the linear layers do not depend on the number of rows (`bot.weights`). It knows nothing of choosing tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

SEPARABLE = ("llama", "mistral", "qwen2", "qwen3")
"""Model families whose attention is the plain one, over grouped heads, and hands on what it is given by name."""
ROOM = 64
"""Tokens of room that a text's memory gets beyond what it holds, so that not every step copies it."""
HEAD_ROWS = 32
"""Rows whose logits are made in one product: 6 MB in fp32."""
NO_MASK = torch.zeros(1, 1, 1, 1)
"""Handed over as if it were a mask made ready, so that none is made: `attend` makes its own."""


class Memory:
    """The keys and values of one text, [heads, tokens, size] a layer."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.length = 0
        """Tokens held; what lies behind them was forgotten."""
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def with_more(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values with those of the coming tokens, which count once `length` says so."""
        whole = self.length + keys.shape[1]
        held = self._layers.get(layer)
        if held is None or held[0].shape[1] < whole:
            held = (self._larger(held and held[0], keys, whole), self._larger(held and held[1], values, whole))
            self._layers[layer] = held
        for old, new in zip(held, (keys, values), strict=True):
            old[:, self.length : whole] = new
        return held[0][:, :whole], held[1][:, :whole]

    def _larger(self, held: Tensor | None, like: Tensor, tokens: int) -> Tensor:
        made = like.new_empty(like.shape[0], tokens + ROOM, like.shape[2])
        if held is not None:
            made[:, : self.length] = held[:, : self.length]
        return made

    def copied(self) -> "Memory":
        """A memory that goes on from here by itself."""
        other = Memory()
        other.length = self.length
        other._layers = {
            layer: (self._larger(keys, keys, self.length), self._larger(values, values, self.length))
            for layer, (keys, values) in self._layers.items()
        }
        return other


@dataclass(frozen=True)
class Layout:
    """Which tokens of a pass belong to which text: its memory and the number of its tokens, in order."""

    texts: Sequence[tuple[Memory, int]]
    _masks: dict[int, Tensor] = field(default_factory=dict)

    @cached_property
    def counts(self) -> list[int]:
        """The number of tokens of each text."""
        return [count for _, count in self.texts]

    @property
    def places(self) -> list[int]:
        """The place of every token in its own text."""
        return [memory.length + at for memory, count in self.texts for at in range(count)]

    def mask(self, count: int, like: Tensor) -> Tensor:
        """What is added to the scores of a text's new tokens among themselves: none looks ahead."""
        if count not in self._masks:
            self._masks[count] = like.new_full((count, count), float("-inf")).triu(1)
        return self._masks[count]


def separate(model: Any) -> bool:
    """Let a model read several texts in one pass, where its attention is a plain one; whether it is.

    Calls without a `layout` go to the attention that the model had before.
    """
    config = model.config
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if config.model_type not in SEPARABLE or sliding:
        return False
    before = config._attn_implementation
    name = f"separate_{before}"
    AttentionInterface.register(name, attention_beside(ALL_ATTENTION_FUNCTIONS.get(before, eager_attention_forward)))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[before])
    model.set_attn_implementation(name)
    return True


def is_separate(model: Any) -> bool:
    """Whether a model takes a `layout`."""
    return str(model.config._attn_implementation).startswith("separate_")


def attention_beside(usual: Callable[..., Any]) -> Callable[..., Any]:
    """The attention of each text to itself where there is a layout, and the usual one where there is none."""

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *, scaling: float, **given: Any
    ) -> tuple[Tensor, None]:
        layout: Layout | None = given.pop("layout", None)
        if layout is None:
            made: tuple[Tensor, None] = usual(module, query, key, value, attention_mask, scaling=scaling, **given)
            return made
        parts = [torch.split(rows[0], layout.counts, dim=1) for rows in (query, key, value)]
        seen = []
        for (memory, count), asks, keys, values in zip(layout.texts, *parts, strict=True):
            mask = layout.mask(count, asks) if count > 1 else None
            known, held = memory.with_more(module.layer_idx, keys, values)
            seen.append(attend(asks, known, held, scaling, mask))
        whole = torch.cat(seen, dim=1) if len(seen) > 1 else seen[0]
        return whole[None].transpose(1, 2).contiguous(), None

    return attention


def attend(asks: Tensor, keys: Tensor, values: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """Softmax attention of [heads, tokens, size] to [groups, all tokens, size], several heads to a group."""
    heads, tokens, size = asks.shape
    groups, length, _ = keys.shape
    scores = torch.bmm(asks.reshape(groups, -1, size), keys.transpose(1, 2)).mul_(scaling)
    if mask is not None:
        scores.view(heads, tokens, length)[..., length - tokens :] += mask
    weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
    return torch.bmm(weights, values).view(heads, tokens, size)


def read(model: Any, texts: Sequence[tuple[Memory, Sequence[int]]], keep: Sequence[int]) -> Iterator[Tensor]:
    """Read on in several texts at once; the logits [keep, vocabulary] behind the last tokens of each, in fp32.

    Those of single tokens are made together, because each product reads the whole vocabulary; those of long drafts one
    after the other: all at once they would be a hundred megabytes of new memory.
    """
    layout = Layout([(memory, len(tokens)) for memory, tokens in texts])
    with torch.inference_mode():
        states = model.model(
            input_ids=torch.tensor([[token for _, tokens in texts for token in tokens]], device=model.device),
            position_ids=torch.tensor([layout.places], device=model.device),
            attention_mask=NO_MASK,
            use_cache=False,
            layout=layout,
        ).last_hidden_state[0]
    for memory, tokens in texts:
        memory.length += len(tokens)
    last = [rows[-count:] for rows, count in zip(torch.split(states, layout.counts), keep, strict=True)]
    for together in few_at_once(last):
        with torch.inference_mode():
            logits: Tensor = model.lm_head(torch.cat(together)).float()
        yield from torch.split(logits, [len(rows) for rows in together])


def few_at_once(texts: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Texts in order, in groups of at most HEAD_ROWS rows; a longer one stands alone."""
    group: list[Tensor] = []
    for rows in texts:
        if group and sum(map(len, group)) + len(rows) > HEAD_ROWS:
            yield group
            group = []
        group.append(rows)
    if group:
        yield group
