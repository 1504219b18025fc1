"""How fast training is against plain Trainer + peft, and how a night grows with what is known already.

    python -m tests.bench.training_speed            both figures, about ten minutes on two cores

`plain` is what a tutorial does: LoRA on every layer, logits at every position, padded batches of eight in random order,
bf16 autocast where the processor computes in it. Both train the same facts (with general replay: hard labels there, KL
here) to the same recall, in the same process; tokens are those of the sequences without padding. Results go to
tests/bench/learning.json.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from bot import base_model
from bot.generator import LocalGenerator
from learning import merge, replay, train
from learning.dataset import Example
from learning.recipe import ALL, Recipe
from learning.train import tokens_of
from retrieval import precision
from storage import company
from tests.bench.learning import FORM, examples, keep, matched, say, texts

STEPS = 60
FACTS = 4


def main() -> None:
    """Measure both and write them."""
    given = argparse.ArgumentParser()
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    home: Path = given.parse_args().home.resolve()
    base = base_model.folder(home, "embedded")
    anchors = replay.anchors(base, home / "cache", say)
    facts = company.facts()[:FACTS]
    rows = examples(facts, 7)
    ours, plain = packed(base, rows, anchors, home), trainer_and_peft(base, rows, anchors, home)
    for name, run in (("ours", ours), ("plain", plain)):
        engine = LocalGenerator(home / f"speed-{name}-merged", form=FORM)
        run["recall"] = matched(texts(engine, [f.question for f in facts]), facts)
    speed = {
        "ours": ours,
        "plain": plain,
        "ratio": round(ours["tokens_per_second"] / plain["tokens_per_second"], 3),
    }
    keep({"speed": speed})
    say(str(speed))


def packed(base: Path, rows: Sequence[Example], anchors: replay.Anchors, home: Path) -> dict[str, Any]:
    """The product's training, from loading to the saved adapter."""
    engine = LocalGenerator(base, form="float32")
    lengths = [len(p) + len(a) for p, a in (tokens_of(engine, row) for row in rows)]
    fact_tokens, anchor_tokens = sum(lengths) / len(lengths), mean_tokens(anchors)
    out = home / "speed-ours"
    shutil.rmtree(out, ignore_errors=True)
    epochs = -(-STEPS // -(-len(rows) // Recipe.batch))
    recipe = Recipe(epochs=epochs, learnt=0.0)
    started = time.monotonic()
    trained = train.train(base, rows, anchors.trained, recipe, warm_from=None, out=out, progress=say)
    seconds = time.monotonic() - started
    merge.merge(base, out, home / "speed-ours-merged")
    tokens = epochs * len(rows) * fact_tokens + trained.steps * recipe.replay * anchor_tokens
    return {"seconds": round(seconds, 1), "steps": trained.steps, "tokens_per_second": round(tokens / seconds, 1)}


def mean_tokens(anchors: replay.Anchors) -> float:
    """The mean length of an anchor."""
    return sum(len(a.prompt_ids) + len(a.answer_ids) for a in anchors.trained) / len(anchors.trained)


def trainer_and_peft(base: Path, rows: Sequence[Example], anchors: replay.Anchors, home: Path) -> dict[str, Any]:
    """The same rows and replay, as a tutorial would train them."""
    started = time.monotonic()
    engine = LocalGenerator(base, form="float32")
    sequences = [tokens_of(engine, row) for row in rows]
    per_row = -(-Recipe.replay * STEPS // len(anchors.trained))
    replayed = [(list(a.prompt_ids), list(a.answer_ids)) for a in anchors.trained]
    epochs = -(-STEPS // -(-len(rows) // Recipe.batch))
    data = [labelled(p, a) for p, a in (*sequences * epochs, *replayed * per_row)]
    model = get_peft_model(
        engine.model,
        LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=list(ALL), task_type="CAUSAL_LM"),
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=1,
                per_device_train_batch_size=8,
                learning_rate=1e-3,
                lr_scheduler_type="cosine",
                warmup_steps=5,
                bf16=precision.computes_bfloat16(),
                use_cpu=not torch.cuda.is_available(),
                seed=7,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=data,
            data_collator=lambda batch: padded(batch, engine.eos),
        )
        trainer.train()
    seconds = time.monotonic() - started
    merged: Any = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(home / "speed-plain-merged")
    for name in merge.TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, home / "speed-plain-merged" / name)
    tokens = sum(len(row["input_ids"]) for row in data)
    return {
        "seconds": round(seconds, 1),
        "steps": trainer.state.global_step,
        "tokens_per_second": round(tokens / seconds, 1),
    }


def labelled(prompt: Sequence[int], answer: Sequence[int]) -> dict[str, list[int]]:
    """One sequence with labels on its answer."""
    return {"input_ids": [*prompt, *answer], "labels": [*[-100] * len(prompt), *answer]}


def padded(batch: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """A padded batch."""
    width = max(len(row["input_ids"]) for row in batch)
    fill = {"input_ids": pad, "labels": -100}
    made = {
        name: torch.tensor([[*row[name], *[value] * (width - len(row[name]))] for row in batch])
        for name, value in fill.items()
    }
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch])
    return made | {"attention_mask": mask}


if __name__ == "__main__":
    main()
