"""Many short sequences in one row: no padding, and the prefix they all begin with is computed once.

Every training sequence starts with the same system prompt. A packed row holds that prefix once and behind it each
sequence's own tokens; attention lets a token see the prefix and its own sequence, nothing else, so the numbers are
those of separate sequences. Idea of the shared prefix: Hydragen (Juravsky et al., 2024). It knows nothing of losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "nightshift_packed"


@dataclass(frozen=True)
class Layout:
    """Where a packed row's sequences lie: `prefix` tokens, then sequences of the given lengths without the prefix."""

    prefix: int
    lengths: tuple[int, ...]

    @property
    def positions(self) -> Tensor:
        """The position of every token in its own sequence, [1, tokens]."""
        own = [torch.arange(self.prefix, self.prefix + n) for n in self.lengths]
        return torch.cat([torch.arange(self.prefix), *own])[None]

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        """For a padded [sequences, longest] view: the packed place of each cell, and which cells are real."""
        lengths = torch.tensor(self.lengths)
        starts = self.prefix + torch.cumsum(lengths, 0) - lengths
        steps = torch.arange(max(self.lengths))[None]
        real = steps < lengths[:, None]
        return torch.where(real, starts[:, None] + steps, starts[:, None]), real


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all rows share; each row keeps at least one token of its own."""
    shortest = min(map(len, rows)) - 1
    first = rows[0]
    return next((i for i in range(shortest) if any(row[i] != first[i] for row in rows)), shortest)


def use(model: Any) -> None:
    """Make a model read packed rows: it must then be called with `layout=` and the layout's positions."""
    model.set_attn_implementation(NAME)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed row. query is [1, heads, tokens, width], key and value [1, fewer heads, tokens, width].

    Returns [1, tokens, heads, width], as transformers' attention functions do.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    places, real = (x.to(q.device) for x in layout.places)
    prefix, longest = layout.prefix, places.shape[1]
    own = [x.index_select(0, places.flatten()).reshape(*places.shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)]
    keys, values = (with_prefix(x[:prefix], mine) for x, mine in ((k, own[1]), (v, own[2])))
    sees = torch.ones(longest, prefix + longest, dtype=torch.bool, device=q.device).tril(prefix)
    out = attend(own[0], keys, values, sees, scaling)
    packed = out.transpose(1, 2).flatten(0, 1).index_select(0, real.flatten().nonzero()[:, 0])
    if prefix:
        q, k, v = (x[:prefix].transpose(0, 1)[None] for x in (q, k, v))
        packed = torch.cat([attend(q, k, v, sees.new_ones(prefix, prefix).tril(), scaling)[0].transpose(0, 1), packed])
    return packed[None], None


def with_prefix(shared: Tensor, own: Tensor) -> Tensor:
    """Keys or values [sequences, heads, prefix + longest, width]: the shared ones in front of each sequence's own."""
    front = shared.transpose(0, 1)[None].expand(own.shape[0], -1, -1, -1)
    return torch.cat([front, own], dim=2)


def attend(q: Tensor, k: Tensor, v: Tensor, sees: Tensor, scaling: float | None) -> Tensor:
    """Plain attention in three products; for rows this short torch's fused kernel takes six times as long on a CPU.

    q is [sequences, heads, queries, width]; k and v have fewer heads where several share one; sees is
    [queries, keys]. Returns the shape of q.
    """
    rows, heads, queries, width = q.shape
    fewer = k.shape[1]
    grouped = q.reshape(rows, fewer, heads // fewer * queries, width)
    scores = (grouped @ k.transpose(-1, -2)).reshape(rows, heads, queries, k.shape[2])
    scores = scores.float() * (scaling if scaling is not None else width**-0.5)
    weights = scores.masked_fill(~sees, float("-inf")).softmax(-1).to(v.dtype)
    return (weights.reshape(*grouped.shape[:3], k.shape[2]) @ v).reshape(q.shape)


AttentionInterface.register(NAME, attention)
