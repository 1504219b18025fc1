"""The part of a model that one stage trains, fed with what the layers below it computed once.

Facts are learnt with cross-entropy on their answer tokens, anchors (see `replay`) hold everything else in place with
a KL term, and logits are computed at answer positions alone. Every step is a few packed rows (see `packing`), side by
side (see `abreast`). It knows nothing of corrections, schedules or the Trainer.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bot.processors import ABREAST, Processors
from learning import abreast, packing
from learning.packing import Layout
from learning.replay import Anchor
from retrieval import precision

PREPARED_TOGETHER = 24
BY_LAYER = ("layer_types", "layer_rope_theta", "no_rope_layers")
"""Values of a configuration that have one item a layer; a body looks them up by a layer's place in it."""
Tokens = tuple[list[int], list[int]]
"""Prompt and answer tokens of one example; the answer ends with the end-of-sequence token."""


class Planned(Protocol):
    """Which rows and anchors meet in a step."""

    def step(self, number: int, losses: Sequence[float]) -> tuple[Sequence[int], Sequence[int]]:
        """Rows and anchors of a step, given the loss of every row's worst token when it was seen last."""
        ...


@dataclass(frozen=True)
class Row:
    """One sequence without the common prefix: its own tokens, where its answer begins, and what it should be.

    `hidden` [tokens, width] is the state under the lowest trained layer; None where every layer is trained.
    """

    ids: Tensor
    hidden: Tensor | None
    answer_at: int
    answer: Tensor
    teacher_ids: Tensor | None = None
    teacher_logprobs: Tensor | None = None


@dataclass
class Part:
    """The rows and anchors of a step, by their places, that are computed together."""

    rows: list[int]
    anchors: list[int]
    tokens: int = 0


class Upper(nn.Module):
    """The trained layers of a model with its head; `forward` returns the loss of a planned step."""

    def __init__(
        self, model: Any, first_layer: int, prefix: Sequence[int], replay_weight: float, *, exact: bool = False
    ) -> None:
        """Share the model's modules; nothing is copied. `prefix` are the tokens that every sequence begins with.

        With `exact` it computes in fp32 on every machine.
        """
        super().__init__()
        self.exact = exact
        self._keys_to_ignore_on_save = None  # the Trainer asks any model it saves
        self.embed = model.get_input_embeddings()
        self.lower = part_of(model.model, 0, first_layer, final_norm=False) if first_layer else None
        self.upper = part_of(model.model, first_layer, len(model.model.layers), final_norm=True)
        self.head = model.lm_head
        self.replay_weight = replay_weight
        self.device = self.head.weight.device
        self.parts = ABREAST if self.device.type == "cpu" else 1
        self.processors = Processors()
        self.prefix = torch.tensor(prefix, dtype=torch.long)
        self.prefix_hidden = self.below(self.prefix, Layout(len(prefix), (0,))) if self.lower else None
        self.rows: list[Row] = []
        self.anchors: list[Row] = []
        self.held_out: list[Row] = []
        self.plan: Planned | None = None
        self.register_buffer("row_loss", torch.zeros(0))
        self.register_buffer("row_worst", torch.zeros(0))
        self.step_losses: list[tuple[float, float]] = []

    def lessons(self, rows: Sequence[Tokens], anchors: Sequence[Anchor], held_out: Sequence[Tokens]) -> None:
        """Take what is to be learnt, kept and looked at; the lower layers see every sequence here and never again."""
        self.rows, self.held_out = self.prepare(rows), self.prepare(held_out)
        self.anchors = [
            Row(r.ids, r.hidden, r.answer_at, r.answer, a.top_ids, a.top_logprobs)
            for r, a in zip(rows_of(anchors, self), anchors, strict=True)
        ]
        self.row_loss = torch.full((len(rows),), float("inf"))
        self.row_worst = self.row_loss.clone()

    def prepare(self, sequences: Sequence[Tokens]) -> list[Row]:
        """Run the lower layers over sequences, several in one packed row."""
        return [row for made in self.processors.each(self.prepared, together(sequences)) for row in made]

    def prepared(self, sequences: Sequence[Tokens]) -> list[Row]:
        """The rows of sequences that share one packed row."""
        own = [torch.tensor([*prompt, *answer])[len(self.prefix) :] for prompt, answer in sequences]
        layout = Layout(len(self.prefix), tuple(map(len, own)))
        hidden = self.below(torch.cat([self.prefix, *own]), layout) if self.lower else None
        lengths = list(layout.lengths)
        parts = [None] * len(own) if hidden is None else torch.split(hidden[layout.prefix :], lengths)
        return [
            Row(ids, None if h is None else h.clone(), len(prompt) - len(self.prefix), torch.tensor(answer))
            for ids, h, (prompt, answer) in zip(own, parts, sequences, strict=True)
        ]

    def below(self, ids: Tensor, layout: Layout) -> Tensor:
        """The state [tokens, width] of a packed row under the lowest trained layer, in fp32 on the processor."""
        with torch.no_grad(), self.autocast():
            return self.run(self.lower, self.embed(ids.to(self.device)), layout).float().cpu()

    def autocast(self) -> torch.autocast:
        """bf16 where this machine computes in it, else fp32 throughout."""
        rounds = precision.computes_bfloat16() and not self.exact
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=rounds)

    def run(self, layers: Any, hidden: Tensor, layout: Layout) -> Tensor:
        """Some layers over a packed row [tokens, width]."""
        positions = layout.positions.to(self.device)
        out = layers(inputs_embeds=hidden[None], position_ids=positions, use_cache=False, layout=layout)
        return torch.as_tensor(out.last_hidden_state[0])

    def forward(self, step: Tensor | None = None, held: Tensor | None = None) -> dict[str, Tensor]:
        """The loss of a planned training step, or of some wordings held out of training."""
        if held is not None:
            return {"loss": self.losses([self.held_out[i] for i in held.tolist()], [])[0].mean()}
        if step is None or self.plan is None:
            raise ValueError("a step and a plan are needed")
        chosen, replayed = self.plan.step(int(step), self.row_worst.tolist())
        answers = sum(len(self.rows[i].answer) for i in chosen)
        replies = sum(len(self.anchors[i].answer) for i in replayed)
        seen: list[tuple[float, float]] = []

        def of_part(part: Part) -> Tensor:
            with self.autocast():
                losses, drifts = self.losses([self.rows[i] for i in part.rows], [self.anchors[i] for i in part.anchors])
            self.remember(part.rows, losses.detach())
            loss, drift = losses.sum() / answers, drifts.sum() / max(1, replies)
            seen.append((float(loss.detach()), float(drift.detach())))
            return loss + self.replay_weight * drift

        parts, trained = self.dealt(chosen, replayed), list(self.trained().values())
        loss = abreast.loss(self.processors, of_part, parts, trained)
        self.step_losses.append((sum(own for own, _ in seen), sum(drift for _, drift in seen)))
        return {"loss": loss}

    def dealt(self, rows: Sequence[int], anchors: Sequence[int]) -> list[Part]:
        """Rows and anchors in parts of about as many tokens each: the longest first, to the shortest part."""
        parts = [Part([], []) for _ in range(self.parts)]
        lengths = [(len(self.rows[i].ids), i, False) for i in rows]
        lengths += [(len(self.anchors[i].ids), i, True) for i in anchors]
        for length, place, is_anchor in sorted(lengths, reverse=True):
            part = min(parts, key=lambda one: one.tokens)
            (part.anchors if is_anchor else part.rows).append(place)
            part.tokens += length
        return [part for part in parts if part.tokens]

    def remember(self, chosen: Sequence[int], losses: Tensor) -> None:
        """Note the loss of each row in a part of a step, on average and of its worst token."""
        lengths = [len(self.rows[i].answer) for i in chosen]
        for at, own in zip(chosen, torch.split(losses, lengths), strict=True):
            self.row_loss[at], self.row_worst[at] = own.mean(), own.max()

    def losses(self, rows: Sequence[Row], anchors: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the rows and KL to the base of the anchors, in nats, of each answer token."""
        at_rows, at_anchors = self.states(rows, anchors)
        losses = drifts = at_rows.new_zeros(0)
        if rows:
            labels = torch.cat([r.answer for r in rows]).to(self.device)
            losses = functional.cross_entropy(self.head(at_rows).float(), labels, reduction="none")
        if anchors:
            drifts = divergence(self.head(at_anchors).float(), *self.teachers(anchors))
        return losses, drifts

    def teachers(self, anchors: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """The base's likeliest tokens and their log-probabilities at every answer token of some anchors."""
        ids = torch.cat([a.teacher_ids for a in anchors if a.teacher_ids is not None])
        logprobs = torch.cat([a.teacher_logprobs for a in anchors if a.teacher_logprobs is not None])
        return ids.to(self.device), logprobs.to(self.device)

    def states(self, rows: Sequence[Row], anchors: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """The last states where answer tokens are chosen: of the rows, and of the anchors."""
        chosen = [*rows, *anchors]
        layout = Layout(len(self.prefix), tuple(len(r.ids) for r in chosen))
        out = self.run(self.upper, self.entering(chosen), layout)
        places, start = [], layout.prefix
        for row, length in zip(chosen, layout.lengths, strict=True):
            places.append(torch.arange(start + row.answer_at - 1, start + length - 1))
            start += length
        split = sum(len(r.answer) for r in rows)
        where = torch.cat(places).to(self.device)
        return out.index_select(0, where[:split]), out.index_select(0, where[split:])

    def entering(self, rows: Sequence[Row]) -> Tensor:
        """What enters the lowest trained layer: cached states, or embeddings where every layer is trained."""
        if self.prefix_hidden is None:
            return torch.as_tensor(self.embed(torch.cat([self.prefix, *(r.ids for r in rows)]).to(self.device)))
        return torch.cat([self.prefix_hidden, *(r.hidden for r in rows if r.hidden is not None)]).to(self.device)

    def kept(self, anchors: Sequence[Row]) -> float:
        """The share of the base's own next tokens that these weights would still choose."""
        same = [bool(token) for row in self.agreed(anchors) for token in row]
        return sum(same) / max(1, len(same))

    def recalled(self, rows: Sequence[Row]) -> float:
        """The share of rows whose whole answer these weights would write; 1 of none.

        A mean over tokens does not see it: one wrong token, the first, turns a long answer into "I don't know".
        """
        return sum(bool(row.all()) for row in self.agreed(rows)) / len(rows) if rows else 1.0

    def agreed(self, rows: Sequence[Row]) -> list[Tensor]:
        """Which answer tokens [tokens] of each row these weights would choose."""
        return [same for part in self.processors.each(self.agreed_together, together(rows)) for same in part]

    def agreed_together(self, rows: Sequence[Row]) -> Sequence[Tensor]:
        """The same for rows that share one packed row."""
        with torch.no_grad(), self.autocast():
            now = self.head(self.states(rows, [])[0]).argmax(-1).cpu()
        return torch.split(now == torch.cat([r.answer for r in rows]), [len(r.answer) for r in rows])

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that change, each once."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def state_dict(self, *args: Any, **rest: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what changes, so that a checkpoint is small: trained weights and the losses seen last."""
        seen = {"row_loss": self.row_loss, "row_worst": self.row_worst}
        return {name: p.detach() for name, p in self.trained().items()} | seen


def divergence(logits: Tensor, teacher_ids: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) in nats [tokens] over the teacher's top tokens, the rest of both taken as one bucket."""
    student = logits.log_softmax(-1).gather(-1, teacher_ids)
    rest = [(1 - p.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log() for p in (teacher, student)]
    full_teacher, full_student = torch.cat([teacher, rest[0]], -1), torch.cat([student, rest[1]], -1)
    return functional.kl_div(full_student, full_teacher, log_target=True, reduction="none").sum(-1)


def together(items: Sequence[Any]) -> list[Sequence[Any]]:
    """Items in the portions that share a packed row where nothing is trained."""
    return [items[start : start + PREPARED_TOGETHER] for start in range(0, len(items), PREPARED_TOGETHER)]


def part_of(body: Any, start: int, end: int, *, final_norm: bool) -> Any:
    """A view of a transformer body with only some of its layers; modules are shared, not copied."""
    part = copy.copy(body)
    part._modules = dict(body._modules)
    part.layers = nn.ModuleList(body.layers[start:end])
    part.config = copy.copy(body.config)
    part.config.num_hidden_layers = end - start
    for name in BY_LAYER:
        if isinstance(values := vars(body.config).get(name), list):
            setattr(part.config, name, values[start:end])
    if not final_norm:
        part.norm = nn.Identity()
    return part


def apart(model: Any, first_layer: int, prefix: Sequence[int], sequence: Tokens) -> float:
    """How far the logits that are trained on are from the model's own, at the answer of a sequence; 0 is the same.

    The norm of the difference, as a share of the norm of the model's own, in fp32: a part's only purpose is to give
    the same numbers, and some families compute more than their layers, norm and head, or attend in another way.
    """
    prompt, answer = sequence
    ids, usual = torch.tensor([[*prompt, *answer]], device=model.device), model.config._attn_implementation
    with torch.no_grad():
        own = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]
        packing.use(model)
        upper = Upper(model, first_layer, prefix, 0.0, exact=True)
        found = upper.head(upper.states(upper.prepared([sequence]), [])[0])
    model.set_attn_implementation(usual)
    return float((found - own).norm() / own.norm())


def rows_of(anchors: Sequence[Anchor], upper: Upper) -> list[Row]:
    """Anchors as rows; their answer is what the base chose."""
    return upper.prepare([(list(a.prompt_ids), list(a.answer_ids)) for a in anchors])


def common_prefix(sequences: Sequence[Tokens], anchors: Sequence[Anchor]) -> list[int]:
    """The tokens that every prompt begins with."""
    prompts = [p for p, _ in sequences] + [list(a.prompt_ids) for a in anchors]
    return prompts[0][: packing.common_prefix(prompts)]
