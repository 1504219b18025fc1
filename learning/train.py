"""The LoRA recipe: adapt the upper layers, on top of lower activations that are computed once.

Facts are learnt with cross-entropy on their answer tokens; anchors (see `replay`) hold everything else in place with
a KL term. Because the lower layers never change, their output for every training sequence is cached, and each step
runs only the upper half forward and backward. Logits are computed at answer positions alone.
It knows nothing of corrections or gates.
"""

import copy
import logging
import math
import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from bot import prompt
from bot.generator import LocalGenerator
from learning.dataset import Example
from learning.replay import Anchor
from storage.errors import NightshiftError

log = logging.getLogger(__name__)
# peft asks transformers for a name that is on its way out; a night's log is for people.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PREPARED_TOGETHER = 16
LEARNT_LOSS = 0.006
"""Mean fact loss (nats per token) at which every taught wording was recalled exactly; training stops below it."""


class TrainingError(NightshiftError):
    """Training ended without usable weights."""

    code = "training_failed"


@dataclass(frozen=True)
class Recipe:
    """Every value that decides what the weights become; stored with the run."""

    epochs: int
    rate: float = 1e-3
    rank: int = 16
    alpha: int = 32
    batch: int = 8
    replay: int = 6
    replay_weight: float = 2.0
    first_layer: float = 0.5
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 7


@dataclass(frozen=True)
class Trained:
    """What training did: the adapter's folder, steps, the last epoch's fact loss, and the loss by epoch."""

    adapter: Path
    steps: int
    loss: float
    losses: tuple[float, ...]
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Sequence_:
    """One training sequence: the hidden state below the first adapted layer, and its answer."""

    hidden: Tensor
    prompt_length: int
    answer: Tensor
    teacher_ids: Tensor | None = None
    teacher_logprobs: Tensor | None = None


def train(
    base: Path,
    examples: Sequence[Example],
    anchors: Sequence[Anchor],
    recipe: Recipe,
    *,
    known: Sequence[Example] = (),
    warm_from: Path | None,
    out: Path,
    progress: Callable[[str], None],
) -> Trained:
    """Train an adapter into `out`, fresh or from the adapter in `warm_from`. Raises TrainingError when it diverges.

    `known` are examples that `warm_from` holds already: each epoch repeats as many of them as there are new ones, in
    turn, so that a night's length follows what is new and not what is known.
    """
    set_seed(recipe.seed)
    engine = LocalGenerator(base, form="float32")
    model = adapted(engine.model, recipe, warm_from)
    split = UpperHalf(model, first_layer_of(engine.model, recipe), recipe.replay_weight)
    steps, repeated = plan(len(examples), len(known), len(anchors), recipe)
    rows = [*examples, *(known[i] for i in repeated)]
    facts = split.prepare([tokens_of(engine, e) for e in rows])
    held = split.prepare([(list(a.prompt_ids), list(a.answer_ids)) for a in anchors], anchors)
    watch = Watch(per_epoch=len(steps) // recipe.epochs, progress=progress, model=split)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=split,
            args=arguments(recipe, scratch, len(steps)),
            train_dataset=Steps(steps),
            data_collator=lambda one: split.collate(facts, held, one[0]),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if not watch.losses or not math.isfinite(watch.losses[-1]):
        raise TrainingError("Training diverged (the loss is not a finite number); the champion stays.")
    model.save_pretrained(str(out))
    return Trained(out, trainer.state.global_step, watch.losses[-1], tuple(watch.losses), asdict(recipe))


def arguments(recipe: Recipe, scratch: str, steps: int) -> TrainingArguments:
    """The recipe in the Trainer's words; one dataset item is one whole step."""
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=1,
        per_device_train_batch_size=1,
        learning_rate=recipe.rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(recipe.warmup * steps),
        train_sampling_strategy="sequential",
        max_grad_norm=recipe.clip,
        weight_decay=0.0,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def adapted(model: Any, recipe: Recipe, warm_from: Path | None) -> PeftModel:
    """The model with LoRA on its upper layers; the weights of `warm_from` are loaded where given."""
    if warm_from is not None:
        return PeftModel.from_pretrained(model, warm_from, is_trainable=True)
    layers = range(first_layer_of(model, recipe), model.config.num_hidden_layers)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=TARGETS,
        layers_to_transform=list(layers),
        task_type="CAUSAL_LM",
    )
    made = get_peft_model(model, config)
    if not isinstance(made, PeftModel):
        raise TypeError("peft returned a mixed model")
    return made


def first_layer_of(model: Any, recipe: Recipe) -> int:
    """The lowest adapted layer."""
    return int(model.config.num_hidden_layers * recipe.first_layer)


def tokens_of(engine: LocalGenerator, example: Example) -> tuple[list[int], list[int]]:
    """Prompt and answer tokens of an example; the answer ends with the end-of-sequence token."""
    answer = engine.tokenizer.encode(example.answer, add_special_tokens=False)
    return engine.prompt_ids(prompt.messages(example.question)), [*answer, engine.eos]


Step = tuple[tuple[int, ...], tuple[int, ...]]


def plan(new: int, known: int, anchors: int, recipe: Recipe) -> tuple[list[Step], list[int]]:
    """Which facts and which anchors meet in which step, and which known examples are repeated at all.

    Every new example comes once an epoch, with as many known ones in turn. A step names facts by their place in
    "new ones, then the repeated known ones", and anchors by their own place.
    """
    rng = random.Random(recipe.seed)
    wanted = min(known, new)
    in_turn = rng.sample(range(known), known)
    repeated = in_turn[: min(known, wanted * recipe.epochs)]
    turn = rng.sample(range(anchors), anchors)
    steps: list[Step] = []
    for epoch in range(recipe.epochs):
        again = [new + (epoch * wanted + i) % len(repeated) for i in range(wanted)] if repeated else []
        order = [*range(new), *again]
        rng.shuffle(order)
        for start in range(0, len(order), recipe.batch):
            first = len(steps) * recipe.replay
            replayed = tuple(turn[(first + i) % anchors] for i in range(min(recipe.replay, anchors)))
            steps.append((tuple(order[start : start + recipe.batch]), replayed))
    return steps, repeated


class Steps(torch.utils.data.Dataset[Any]):
    """The plan as a dataset; the Trainer must keep its order, so every item already is a whole shuffled batch."""

    def __init__(self, steps: Sequence[Any]) -> None:
        """Keep the plan."""
        self._steps = steps

    def __len__(self) -> int:
        """How many steps."""
        return len(self._steps)

    def __getitem__(self, at: int) -> Any:
        """One step."""
        return self._steps[at]


class UpperHalf(nn.Module):
    """The adapted layers of a model with its head, fed with cached activations of the layers below."""

    def __init__(self, model: PeftModel, first_layer: int, replay_weight: float) -> None:
        """Share the model's modules; nothing is copied."""
        super().__init__()
        causal: Any = model.get_base_model()
        self.lower = part_of(causal.model, 0, first_layer, final_norm=False)
        self.upper = part_of(causal.model, first_layer, len(causal.model.layers), final_norm=True)
        self.head = causal.lm_head
        self.replay_weight = replay_weight
        self.fact_loss, self.replay_loss = [0.0], [0.0]

    def prepare(
        self, sequences: Sequence[tuple[list[int], list[int]]], anchors: Sequence[Anchor] = ()
    ) -> list[Sequence_]:
        """Run the lower layers once over sequences of (prompt, answer) tokens, batched by length."""
        made: dict[int, Sequence_] = {}
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]) + len(sequences[i][1]))
        for start in range(0, len(order), PREPARED_TOGETHER):
            chosen = order[start : start + PREPARED_TOGETHER]
            for at, hidden in zip(
                chosen, self._below([[*sequences[i][0], *sequences[i][1]] for i in chosen]), strict=True
            ):
                prompt_ids, answer_ids = sequences[at]
                taught = (anchors[at].top_ids, anchors[at].top_logprobs) if anchors else (None, None)
                made[at] = Sequence_(hidden, len(prompt_ids), torch.tensor(answer_ids), *taught)
        return [made[i] for i in range(len(sequences))]

    def _below(self, batch: list[list[int]]) -> list[Tensor]:
        """The hidden states [tokens, width] under the first adapted layer; right padding never reaches them."""
        width = max(map(len, batch))
        device = self.head.weight.device
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=device)
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            hidden = self.lower(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return [h[: len(row)].float().cpu().clone() for h, row in zip(hidden, batch, strict=True)]

    def collate(
        self,
        facts: Sequence[Sequence_],
        anchors: Sequence[Sequence_],
        step: tuple[Sequence[int], Sequence[int]],
    ) -> dict[str, Any]:
        """Pad the sequences of one step: facts first, anchors behind."""
        chosen = [facts[i] for i in step[0]] + [anchors[i] for i in step[1]]
        width = max(len(s.hidden) for s in chosen)
        hidden = torch.stack([functional.pad(s.hidden, (0, 0, 0, width - len(s.hidden))) for s in chosen])
        attention = torch.tensor([[1] * len(s.hidden) + [0] * (width - len(s.hidden)) for s in chosen])
        answers = torch.zeros(len(chosen), width, dtype=torch.bool)
        for row, s in enumerate(chosen):
            answers[row, s.prompt_length - 1 : len(s.hidden) - 1] = True
        held = [anchors[i] for i in step[1]]
        return {
            "hidden": hidden,
            "attention": attention,
            "answers": answers,
            "labels": torch.cat([facts[i].answer for i in step[0]]),
            "teacher_ids": torch.cat([s.teacher_ids for s in held if s.teacher_ids is not None]) if held else None,
            "teacher": torch.cat([s.teacher_logprobs for s in held if s.teacher_logprobs is not None])
            if held
            else None,
        }

    def forward(
        self,
        hidden: Tensor,
        attention: Tensor,
        answers: Tensor,
        labels: Tensor,
        teacher_ids: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Cross-entropy on the facts' answer tokens plus the weighted KL to the base on the anchors'."""
        out = self.upper(inputs_embeds=hidden, attention_mask=attention, use_cache=False).last_hidden_state
        logits = self.head(out[answers]).float()
        loss = functional.cross_entropy(logits[: len(labels)], labels)
        self.fact_loss.append(float(loss.detach()))
        if teacher_ids is not None and teacher is not None:
            kl = divergence(logits[len(labels) :], teacher_ids, teacher)
            self.replay_loss.append(float(kl.detach()))
            loss = loss + self.replay_weight * kl
        return {"loss": loss}


def divergence(logits: Tensor, teacher_ids: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL(teacher || student) in nats over the teacher's top tokens, the rest of both taken as one bucket."""
    student = logits.log_softmax(-1).gather(-1, teacher_ids)
    rest = [(1 - p.exp().sum(-1, keepdim=True)).clamp_min(1e-6).log() for p in (teacher, student)]
    full_teacher, full_student = torch.cat([teacher, rest[0]], -1), torch.cat([student, rest[1]], -1)
    return functional.kl_div(full_student, full_teacher, log_target=True, reduction="batchmean")


def part_of(body: Any, start: int, end: int, *, final_norm: bool) -> Any:
    """A view of a transformer body with only some of its layers; modules are shared, not copied."""
    part = copy.copy(body)
    part._modules = dict(body._modules)
    part.layers = nn.ModuleList(body.layers[start:end])
    part.config = copy.copy(body.config)
    part.config.num_hidden_layers = end - start
    if not final_norm:
        part.norm = nn.Identity()
    return part


class Watch(TrainerCallback):
    """Reports each epoch's fact loss and stops when everything is learnt or nothing is finite any more."""

    def __init__(self, *, per_epoch: int, progress: Callable[[str], None], model: UpperHalf) -> None:
        """`per_epoch` steps make one epoch."""
        self.per_epoch, self.progress, self.model = per_epoch, progress, model
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Look at the losses once an epoch."""
        if state.global_step % self.per_epoch:
            return control
        recent = self.model.fact_loss[-self.per_epoch :]
        replayed = self.model.replay_loss[-self.per_epoch :]
        self.losses.append(sum(recent) / len(recent))
        epoch = state.global_step // self.per_epoch
        self.progress(
            f"epoch {epoch}: loss on facts {self.losses[-1]:.4f}, drift {sum(replayed) / len(replayed):.4f} nats"
        )
        control.should_training_stop = self.losses[-1] < LEARNT_LOSS or not math.isfinite(self.losses[-1])
        return control
