"""Train an adapter (or all weights) on a snapshot's examples, held in place by anchors.

The Trainer runs the steps; `recipe` says what they are, `plan` which examples meet in them, `upper` what a step
computes, and `watch` what is looked at after every epoch. The best epoch's weights are kept, and a run that was killed
goes on from its last epoch. It knows nothing of corrections or gates.
"""

import ctypes
import json
import logging
import math
import platform
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments, set_seed

from bot import prompt
from bot.generator import LocalGenerator
from learning import deltas, packing
from learning.dataset import Example
from learning.plan import Plan, taught_questions
from learning.recipe import Recipe, Stage, stages
from learning.replay import Anchor
from learning.upper import Tokens, Upper, apart, common_prefix, rows_of
from learning.watch import ASKED, Seen, Watch, seen_at
from retrieval import precision
from storage.errors import NightshiftError

log = logging.getLogger(__name__)
# peft asks transformers for a name that is on its way out; a night's log is for people.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)

NEVER = 10**9
SAME = 1e-3
"""The most that the logits trained on may differ from the model's own, as a share of them. In fp32 the shipped base
differs by 1e-6; the least of what training could miss, a wrong rotation in half of a small model's layers, by 1e-2."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""


class TrainingError(NightshiftError):
    """Training ended without usable weights."""

    code = "training_failed"


@dataclass(frozen=True)
class Trained:
    """What training did: the adapter's folder, steps, the last mean fact loss, the loss by epoch, and why it ended."""

    adapter: Path
    steps: int
    loss: float
    losses: tuple[float, ...]
    recipe: dict[str, Any]
    held_out: tuple[float, ...] = ()
    ended: str = ""


def train(
    base: Path,
    examples: Sequence[Example],
    anchors: Sequence[Anchor],
    recipe: Recipe,
    *,
    known: Sequence[Example] = (),
    held_out: Sequence[Example] = (),
    watched: Sequence[Anchor] = (),
    warm_from: Path | None,
    out: Path,
    progress: Callable[[str], None],
    checkpoints: Path | None = None,
) -> Trained:
    """Train an adapter into `out`, fresh or from the adapter in `warm_from`.

    Raises TrainingError when it diverges, and before the first step for a base that training cannot follow.

    `known` are examples that `warm_from` holds already: each epoch repeats as many of them as there are new ones, in
    turn, so that a night's length follows what is new and not what is known. `held_out` wordings choose the best
    epoch; `watched` anchors, never trained, stop a run that forgets. A run with the same `checkpoints` folder goes on
    where the last one was cut short.
    """
    set_seed(recipe.seed)
    keep_freed_memory()
    engine = LocalGenerator(base, form="float32")
    lessons = Lessons.of(engine, examples, known, held_out, anchors, watched)
    check_base(engine.model, lessons, recipe)
    model = to_train(engine, base, recipe, warm_from)
    packing.use(model.get_base_model() if isinstance(model, PeftModel) else model)
    done: list[Seen] = []
    for number, stage in enumerate(stages(recipe)):
        folder = (checkpoints or out.parent / f"{out.name}.checkpoints") / f"stage-{number}"
        done.append(run_stage(model, lessons, recipe, stage, folder, progress))
        if done[-1].ended.startswith("forgot"):
            break
    save(model, base, out)
    shutil.rmtree(folder.parent, ignore_errors=True)
    losses = [loss for seen in done for loss in seen.losses]
    return Trained(
        out,
        sum(seen.steps for seen in done),
        losses[-1],
        tuple(losses),
        asdict(recipe),
        tuple(loss for seen in done for loss in seen.held_out),
        done[-1].ended,
    )


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed: asking the system for them anew costs a tenth of each step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def check_base(model: Any, lessons: "Lessons", recipe: Recipe) -> None:
    """See that every stage would train on the base's own numbers, at the longest sequence. Raises TrainingError."""
    longest, layers = lessons.longest, len(model.model.layers)
    for first in {int(layers * stage.first_layer) for stage in stages(recipe)}:
        # A difference that is not a number is one, too.
        if not apart(model, first, lessons.prefix, longest) <= SAME:
            raise TrainingError(
                f"A {model.config.model_type} model computes something that training does not (seen over "
                f"{sum(map(len, longest))} tokens), so choose another base; the champion stays."
            )


def run_stage(
    model: Any, lessons: "Lessons", recipe: Recipe, stage: Stage, folder: Path, progress: Callable[[str], None]
) -> Seen:
    """One stage: free its weights, run its steps, load its best epoch back. Raises TrainingError when it diverges.

    Of a stage that an earlier run finished only the best epoch is loaded.
    """
    body: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    first = int(len(body.model.layers) * stage.first_layer)
    free(body, recipe, stage, first)
    upper = Upper(body, first, lessons.prefix, recipe.replay_weight)
    sizes = (len(lessons.examples), len(lessons.known), len(lessons.anchors))
    plan = Plan(*sizes, recipe, stage.epochs, lessons.taught)
    last = last_checkpoint(folder)
    seen = seen_at(last) if last else Seen()
    if last and (seen.ended or seen.steps == plan.steps):
        take(upper, best_checkpoint(last))
        return seen
    rows = [*lessons.examples, *(lessons.known[i] for i in plan.repeated)]
    upper.lessons(rows, lessons.anchors, lessons.held_out)
    upper.plan = plan
    asked = [upper.rows[i] for i in lessons.taught[:ASKED]]
    watch = Watch(seen, plan, recipe, upper, rows_of(lessons.watched, upper), asked, progress)
    trainer = Trainer(
        model=upper,
        args=arguments(recipe, stage, folder, plan.steps, best=bool(lessons.held_out)),
        train_dataset=Numbers("step", plan.steps),
        eval_dataset=Numbers("held", len(lessons.held_out)),
        data_collator=collate,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if not seen.losses or not math.isfinite(seen.losses[-1]):
        raise TrainingError("Training diverged (the loss is not a finite number); the champion stays.")
    return seen


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a stage; one that was cut short while it was written is removed."""
    whole = []
    for found in folder.glob("checkpoint-*"):
        try:
            seen_at(found)
            whole.append(found)
        except (OSError, ValueError, KeyError):
            shutil.rmtree(found)
    return max(whole, key=lambda p: int(p.name.split("-")[1])) if whole else None


def best_checkpoint(last: Path) -> Path:
    """The checkpoint of a stage's best epoch, as its last one names it."""
    best = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["best_model_checkpoint"]
    return last.parent / Path(best).name if best else last


def take(upper: Upper, checkpoint: Path) -> None:
    """Load what a stage trained from a checkpoint."""
    weights = load_file(checkpoint / "model.safetensors")
    upper.load_state_dict({name: weights[name] for name in upper.trained()}, strict=False)


def arguments(recipe: Recipe, stage: Stage, folder: Path, steps: int, *, best: bool) -> TrainingArguments:
    """The recipe in the Trainer's words; one dataset item is one whole step, and `Watch` says when to look and save."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=8,
        learning_rate=recipe.rate * stage.rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(recipe.warmup * steps),
        train_sampling_strategy="sequential",
        max_grad_norm=recipe.clip,
        weight_decay=0.0,
        bf16=precision.computes_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        eval_strategy="steps" if best else "no",
        eval_steps=NEVER,
        save_strategy="steps",
        save_steps=NEVER,
        save_total_limit=2,
        load_best_model_at_end=best,
        metric_for_best_model="loss",
        label_names=["held"],
        prediction_loss_only=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def to_train(engine: LocalGenerator, base: Path, recipe: Recipe, warm_from: Path | None) -> Any:
    """The model to train, made from the base's engine; warm where an adapter is given."""
    if recipe.method == "full":
        if warm_from is not None:
            deltas.add(engine.model, warm_from, 1.0)
        return engine.model
    model = in_four_bits(base) if recipe.method == "qlora" else engine.model
    return halved(adapted(model, recipe, warm_from))


def in_four_bits(base: Path) -> Any:
    """The base in 4-bit NF4 (QLoRA, Dettmers et al. 2023). Raises TrainingError where that cannot be had."""
    try:
        import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        raise TrainingError("The method qlora needs bitsandbytes: pip install 'nightshift[qlora]'.") from None
    if not torch.cuda.is_available():
        raise TrainingError("The method qlora needs a CUDA device; lora runs everywhere.")
    from peft import prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, local_files_only=True, device_map={"": 0}
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]


def adapted(model: Any, recipe: Recipe, warm_from: Path | None) -> PeftModel:
    """The model with LoRA on the layers that any stage trains; the weights of `warm_from` are loaded where given."""
    if warm_from is not None:
        return PeftModel.from_pretrained(model, warm_from, is_trainable=True)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=sorted(modules(recipe)),
        layers_to_transform=touched(recipe, model.config.num_hidden_layers),
        task_type="CAUSAL_LM",
    )
    made = get_peft_model(model, config)
    if not isinstance(made, PeftModel):
        raise TypeError("peft returned a mixed model")
    return made


def halved(model: PeftModel) -> PeftModel:
    """Keep frozen matrices in bf16, as autocast would cast them in every step; merging starts from the disk.

    Where training computes in fp32 they stay as they are.
    """
    if not precision.computes_bfloat16():
        return model
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.ndim == 2 and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(torch.bfloat16)
    return model


def free(body: Any, recipe: Recipe, stage: Stage, first: int) -> None:
    """Let only the weights of a stage change: LoRA's in its layers and modules, or the weights themselves."""
    for parameter in body.parameters():
        parameter.requires_grad_(False)
    for layer in body.model.layers[first:]:
        for name, parameter in layer.named_parameters():
            theirs = any(f"{module}." in name for module in stage.modules)
            whole_layer = recipe.method == "full" and stage.first_layer == 0.0
            parameter.requires_grad_("lora_" in name and theirs if recipe.method != "full" else theirs or whole_layer)
    if recipe.method == "full" and stage.first_layer == 0.0:
        for part in (body.get_input_embeddings(), body.model.norm, body.lm_head):
            part.requires_grad_(True)


def save(model: Any, base: Path, out: Path) -> None:
    """Leave the adapter in `out`, or the difference to the base where all weights were trained."""
    if isinstance(model, PeftModel):
        model.save_pretrained(str(out))
    else:
        deltas.save(model, base, out)


def goes_on(adapter: Path, recipe: Recipe, layers: int) -> bool:
    """Whether training with a recipe can go on from an adapter: same method, rank and layers (of `layers` in all)."""
    if deltas.is_in(adapter) or recipe.method == "full":
        return deltas.is_in(adapter) and recipe.method == "full"
    told = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return (told["r"], told["lora_alpha"], sorted(told["layers_to_transform"]), sorted(told["target_modules"])) == (
        recipe.rank, recipe.alpha, touched(recipe, layers), sorted(modules(recipe))
    )  # fmt: skip


def touched(recipe: Recipe, layers: int) -> list[int]:
    """The layers that any stage of a recipe trains."""
    return list(range(min(int(layers * stage.first_layer) for stage in stages(recipe)), layers))


def modules(recipe: Recipe) -> set[str]:
    """The modules that any stage of a recipe trains."""
    return {name for stage in stages(recipe) for name in stage.modules}


@dataclass(frozen=True)
class Lessons:
    """Everything that is learnt from and looked at, as tokens."""

    examples: list[Tokens]
    known: list[Tokens]
    held_out: list[Tokens]
    anchors: Sequence[Anchor]
    watched: Sequence[Anchor]
    prefix: list[int]
    taught: list[int]

    @property
    def longest(self) -> Tokens:
        """The longest sequence: what reaches beyond a window that slides, say, shows in it."""
        replayed = [(list(a.prompt_ids), list(a.answer_ids)) for a in (*self.anchors, *self.watched)]
        return max([*self.examples, *self.known, *self.held_out, *replayed], key=lambda one: sum(map(len, one)))

    @classmethod
    def of(
        cls,
        engine: LocalGenerator,
        examples: Sequence[Example],
        known: Sequence[Example],
        held_out: Sequence[Example],
        anchors: Sequence[Anchor],
        watched: Sequence[Anchor],
    ) -> "Lessons":
        """Tokenise everything."""
        new, old, held = ([tokens_of(engine, e) for e in part] for part in (examples, known, held_out))
        prefix = common_prefix([*new, *old, *held], [*anchors, *watched])
        return cls(new, old, held, anchors, watched, prefix, taught_questions(examples))


def tokens_of(engine: LocalGenerator, example: Example) -> Tokens:
    """Prompt and answer tokens of an example; the answer ends with the end-of-sequence token."""
    answer = engine.tokenizer.encode(example.answer, add_special_tokens=False)
    return engine.prompt_ids(prompt.messages(example.question, example.passages)), [*answer, engine.eos]


class Numbers(Dataset[dict[str, int]]):
    """The numbers of steps (or of held-out rows) as a dataset; the model looks up what they stand for."""

    def __init__(self, name: str, count: int) -> None:
        """`count` items under one name."""
        self._name, self._count = name, count

    def __len__(self) -> int:
        """How many."""
        return self._count

    def __getitem__(self, at: int) -> dict[str, int]:
        """One of them."""
        return {self._name: at}


def collate(items: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    """Some numbers under their name."""
    (name,) = items[0]
    return {name: torch.tensor([item[name] for item in items])}
