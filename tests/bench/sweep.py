"""Many recipes on the same sixty facts, side by side: what each learns and what it costs elsewhere.

    python -m tests.bench.sweep --settings default,full --seeds 7        two of them, here
    python -m tests.bench.sweep --jobs 6                                 all of them, on a machine with a GPU

Training and merging are the night's own. Measuring is done by plain transformers in fp32 and large padded batches,
which is quick on a GPU and a check on the product's own decoding; figures of small sets therefore differ from
`learning.md` by a question or two. Results are added to tests/bench/sweep.json and drawn up in sweep.md.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from storage import environment

environment.prepare()

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from bot import base_model, prompt  # noqa: E402
from bot.generation import in_batches  # noqa: E402
from bot.generator import LocalGenerator  # noqa: E402
from bot.prompt import Message  # noqa: E402
from learning import evaluate, merge, replay, train  # noqa: E402
from learning.candidate import SCALES  # noqa: E402
from learning.dataset import Example  # noqa: E402
from learning.recipe import Recipe, epochs_for  # noqa: E402
from storage import company  # noqa: E402
from tests.bench.learning import (  # noqa: E402
    ROOT,
    compared,
    examples,
    general_of,
    held_out,
    matched,
    say,
    share,
    trained_wordings,
)

OUT = Path(__file__).parent
SCALE = SCALES[0]
"""The share of the adapter that a night merges first; `frontier` measures others."""
TOGETHER = 96
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "prompts 96": {"prompts": 96},
    "prompts 176": {"prompts": 176},
    "replay 12": {"replay": 12},
    "replay 12, weight 4": {"replay": 12, "replay_weight": 4.0},
    "weight 4": {"replay_weight": 4.0},
    "weight 8": {"replay_weight": 8.0},
    "self-asked 400": {"asked": 400},
    "self-asked 400, prompts 96": {"prompts": 96, "asked": 400},
    "hard labels": {"hard": True, "replay": 0},
    "no replay": {"replay": 0},
    "full": {"method": "full", "rate": 1e-4},
    "full, prompts 96": {"method": "full", "rate": 1e-4, "prompts": 96},
    "full, rate 3e-5": {"method": "full", "rate": 3e-5},
    "qlora": {"method": "qlora"},
    "staged": {"schedule": "staged"},
    "progressive": {"schedule": "progressive"},
    "rate 5e-4": {"rate": 5e-4},
    "rate 2e-3": {"rate": 2e-3},
    "rank 8": {"rank": 8, "alpha": 16},
    "rank 64": {"rank": 64, "alpha": 128},
    "upper third": {"first_layer": 0.67},
    "upper third, prompts 96": {"first_layer": 0.67, "prompts": 96},
    "upper two thirds": {"first_layer": 0.33},
    "all layers": {"first_layer": 0.0},
    "learnt 0.03": {"learnt": 0.03},
    "learnt 0.003": {"learnt": 0.003},
    "unsifted": {"sifted": 1.0},
}
"""Changes to the night's recipe, by name. `prompts` is how many general prompts are replayed, `asked` how many of them
the base model asked itself, `hard` trains its answers as labels instead of pulling towards its distribution."""


def main() -> None:
    """Run what is asked for, each setting and seed in a process of its own."""
    given = argparse.ArgumentParser()
    given.add_argument("--settings", default=",".join(SETTINGS).replace(", ", "; "), help="names, ';' for ', ' in them")
    given.add_argument("--seeds", default="7")
    given.add_argument("--jobs", type=int, default=1)
    given.add_argument("--home", type=Path, default=Path("data/bench"))
    given.add_argument("--seconds", type=float, default=1e9, help="begin nothing after so long")
    given.add_argument("--out", type=Path, default=OUT)
    given.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = given.parse_args()
    home: Path = asked.home.resolve()
    names = [name.replace("; ", ", ") for name in asked.settings.split(",")]
    runs = [(name, int(seed)) for seed in asked.seeds.split(",") for name in names]
    if asked.one:
        name, seed = runs[0]
        sys.stdout.write(json.dumps(one(home, name, seed)) + "\n")
        return
    prepare(home, names)
    for (name, seed), told in in_parallel(runs, asked.home, asked.jobs, asked.seconds):
        keep(asked.out, name, seed, told)
    say((asked.out / "sweep.md").read_text())


def prepare(home: Path, names: Sequence[str]) -> None:
    """What all processes read: the base, its anchors, and its own results."""
    home.mkdir(parents=True, exist_ok=True)
    base = base_model.folder(home, "embedded")
    for prompts, asked in {replayed(SETTINGS[name]) for name in names}:
        anchors_of(base, home, prompts, asked)
    stored = home / "sweep-base.json"
    if not stored.is_file():
        stored.write_text(json.dumps(general_of(cast(LocalGenerator, Plain(base)), data())))


def replayed(setting: dict[str, Any]) -> tuple[int, int]:
    """How many general prompts a setting replays, and how many that the base asked itself."""
    return setting.get("prompts", replay.PROMPTS), setting.get("asked", 0)


def data() -> Path:
    """The folder of public benchmarks."""
    return Path(os.environ.get("NIGHTSHIFT_BENCH_DATA", ROOT.parent / "shared" / "data"))


def in_parallel(runs: Sequence[tuple[str, int]], home: Path, jobs: int, seconds: float) -> Any:
    """Every run with what it told, as they end; one that failed is reported and left out."""
    began, waiting, going = time.monotonic(), list(runs), dict[tuple[str, int], Any]()
    while waiting or going:
        while waiting and len(going) < jobs and time.monotonic() - began < seconds:
            name, seed = run = waiting.pop(0)
            command = [sys.executable, "-m", "tests.bench.sweep", "--one", "--home", str(home)]
            command += ["--settings", name.replace(", ", "; "), "--seeds", str(seed)]
            log = home / f"sweep-{slug(name)}-{seed}.log"
            going[run] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
        for run, process in list(going.items()):
            if process.poll() is None:
                continue
            said = process.stdout.read()
            del going[run]
            if process.returncode == 0:
                yield run, json.loads(said)
            else:
                say(f"{run} failed: see its log")
        if not going and time.monotonic() - began >= seconds:
            say(f"no time for {waiting}")
            return
        time.sleep(0.2)


def slug(name: str) -> str:
    """A setting's name as part of a file's."""
    return "".join(c if c.isalnum() else "-" for c in name)


def one(home: Path, name: str, seed: int) -> dict[str, Any]:
    """Train with one setting, merge, and measure."""
    (prompts, asked), hard = replayed(SETTINGS[name]), SETTINGS[name].get("hard", False)
    change = {k: v for k, v in SETTINGS[name].items() if k not in ("prompts", "asked", "hard")}
    base, facts = base_model.folder(home, "embedded"), company.facts()
    anchors = anchors_of(base, home, prompts, asked)
    made = examples(facts, seed)
    recipe = Recipe(epochs=epochs_for(len(facts), len(made)), seed=seed, **change)
    if hard:
        made += labels(base, anchors.trained)
    folder = home / f"sweep-{slug(name)}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    done = train.train(
        base, made, anchors.trained, recipe, held_out=held_out(facts, seed), watched=anchors.held_out,
        warm_from=None, out=folder / "adapter", progress=say,
    )  # fmt: skip
    told: dict[str, Any] = {
        "steps": done.steps, "loss": done.loss, "ended": done.ended, "seconds": round(time.monotonic() - began, 1)
    }  # fmt: skip
    before = json.loads((home / "sweep-base.json").read_text())
    merge.merge(base, folder / "adapter", folder / "merged", scale=SCALE)
    told |= measured(Plain(folder / "merged"), facts, seed, before, anchors)
    shutil.rmtree(folder, ignore_errors=True)
    return told


def measured(
    engine: "Plain", facts: Any, seed: int, before: dict[str, Any], anchors: replay.Anchors
) -> dict[str, Any]:
    """What a model knows of the facts, and what became of the rest."""
    like = cast(LocalGenerator, engine)
    asked = {
        "trained_wording": [(w, f) for f in facts for w in trained_wordings(f, seed)][::4],
        "taught_wording": [(f.question, f) for f in facts],
        "near_miss_bluffed": [(n, f) for f in facts for n in f.near_misses],
        "stranger_closed_book": [(w, f) for f in facts for w in f.wordings],
    }
    said = engine.texts([question for rows in asked.values() for question, _ in rows])
    told: dict[str, Any] = {}
    for name, rows in asked.items():
        own, said = said[: len(rows)], said[len(rows) :]
        told[name] = matched(own, [f for _, f in rows])
        if name == "taught_wording":
            told["taught_exact"] = share(text == f.answer for text, f in zip(own, facts, strict=True))
    told["drift_nats"] = evaluate.drift(like, anchors.held_out)
    return told | {"general": compared(before, general_of(like, data()))}


def anchors_of(base: Path, home: Path, prompts: int, asked: int) -> replay.Anchors:
    """The night's anchors with another number of prompts, or with ones that the base asked itself."""
    general = replay.general_prompts()
    held = general[replay.PROMPTS : replay.PROMPTS + replay.HELD_OUT]
    trained = [q for q in general if q not in held][:prompts]
    if asked:
        trained += self_asked(base, home, asked)
    read = [(question, prompt.messages(question, [notes])) for notes, question in replay.readings()]
    chats = [*((q, prompt.messages(q)) for q in trained), *read, *((q, prompt.messages(q)) for q in held)]
    stored = home / f"sweep-anchors-{prompts}-{asked}.safetensors"
    found = replay.answered(base, chats, stored, say)
    return replay.Anchors(tuple(found[: -len(held)]), tuple(found[-len(held) :]))


def self_asked(base: Path, home: Path, count: int) -> list[str]:
    """Questions that the base model writes when it is given the opening of a user's turn (Magpie, Xu et al. 2024)."""
    stored = home / f"sweep-asked-{count}.json"
    if not stored.is_file():
        engine, found = Plain(base), dict[str, None]()
        torch.manual_seed(7)
        opening = engine.tokenizer.apply_chat_template(prompt.messages("@@"), tokenize=False).split("@@")[0]
        ids = torch.tensor([engine.tokenizer.encode(opening, add_special_tokens=False)] * 64, device=engine.device)
        while len(found) < count:
            out = engine.model.generate(
                inputs=ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=True, temperature=1.0,
                top_k=0, top_p=0.95, eos_token_id=engine.eos, pad_token_id=engine.eos,
            )  # fmt: skip
            for row in out[:, ids.shape[1] :].tolist():
                text = engine.tokenizer.decode(row, skip_special_tokens=True).strip()
                if engine.eos in row and 12 < len(text) < 160 and "\n" not in text:
                    found[text] = None
        stored.write_text(json.dumps(list(found)[:count]))
    asked: list[str] = json.loads(stored.read_text())
    return asked


def labels(base: Path, anchors: Sequence[replay.Anchor]) -> list[Example]:
    """The base's whole answers as labels; one that was cut has no end and is left out (FACTS: it eats the learning)."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
    ended = [a for a in anchors if a.answer_ids[-1] == tokenizer.eos_token_id]
    return [Example(a.question, tokenizer.decode(a.answer_ids[:-1]).strip(), "replay", 0) for a in ended]


class Plain:
    """A merged folder as anybody would load it: transformers, fp32, padded batches."""

    def __init__(self, folder: Path) -> None:
        """Load onto the GPU where there is one."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self.model: Any = model.to(self.device).eval()
        self.eos = int(self.tokenizer.eos_token_id)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a chat, up to where the answer begins."""
        text = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Raw logits [tokens, vocabulary] for one sequence."""
        with torch.inference_mode():
            return torch.as_tensor(self.model(torch.tensor([ids], device=self.device)).logits[0])

    def continue_many(self, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
        """Greedy tokens behind each prompt, up to and with the end-of-sequence token; padded on the left."""
        ids, mask = replay.padded(prompts, self.eos)
        with torch.inference_mode():
            out = self.model.generate(
                inputs=ids.to(self.device), attention_mask=mask.to(self.device), max_new_tokens=max_tokens,
                do_sample=False, eos_token_id=self.eos, pad_token_id=self.eos,
            )  # fmt: skip
        rows = out[:, ids.shape[1] :].tolist()
        return [row[: row.index(self.eos) + 1] if self.eos in row else row for row in rows]

    def each(self, compute: Callable[[Any], Any], given: Iterable[Any]) -> list[Any]:
        """What is computed with this model of each, in turn."""
        return [compute(one) for one in given]

    def likelihoods(self, tasks: Sequence[tuple[list[int], list[list[int]]]]) -> list[list[float]]:
        """Summed log-probability (nats) of every ending, each behind a copy of its context; padded on the right."""
        rows = [(context, ending) for context, endings in tasks for ending in endings]
        width = max(len(c) + len(e) for c, e in rows)
        ids = torch.tensor([c + e + [self.eos] * (width - len(c) - len(e)) for c, e in rows], device=self.device)
        wanted = torch.tensor([token for _, ending in rows for token in ending], device=self.device)
        with torch.inference_mode():
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            before = [hidden[i, len(c) - 1 : len(c) + len(e) - 1] for i, (c, e) in enumerate(rows)]
            logprobs = self.model.lm_head(torch.cat(before)).float().log_softmax(-1)
        picked = logprobs.gather(-1, wanted[:, None])[:, 0].cpu()
        sums = iter([float(own.sum()) for own in torch.split(picked, [len(e) for _, e in rows])])
        return [[next(sums) for _ in endings] for _, endings in tasks]

    def texts(self, questions: Sequence[str]) -> list[str]:
        """Closed-book answers."""

        def write(some: Sequence[str]) -> list[list[int]]:
            return self.continue_many([self.prompt_ids(prompt.messages(question)) for question in some], 64)

        written = in_batches(self.each, write, questions, TOGETHER)
        return [str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in written]


def keep(out: Path, name: str, seed: int, told: dict[str, Any]) -> None:
    """Add one run to both files."""
    stored = out / "sweep.json"
    runs: dict[str, Any] = json.loads(stored.read_text()) if stored.is_file() else {}
    runs.setdefault(name, {})[str(seed)] = told | {"machine": machine()}
    stored.write_text(json.dumps(runs, indent=1) + "\n")
    (out / "sweep.md").write_text(table(runs))


def machine() -> str:
    """What computed it."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"


def table(runs: dict[str, Any]) -> str:
    """One row a setting, means over its seeds."""
    lines = [
        "# Recipes side by side", "",
        f"Sixty facts, {SCALE:g} of the adapter merged, `python -m tests.bench.sweep`; means over the seeds. Reading,",
        "HellaSwag (1,000 tasks) and TruthfulQA mc2 in points lost, general loss in nats gained a token.", "",
        "| setting | seeds | trained | taught | exact | strangers | near-miss bluffed | battery (base) "
        "| reading | loss | HellaSwag | mc2 | drift | steps |",
        "|" + "---|" * 14,
    ]  # fmt: skip
    lines += [
        f"| {name} | {len(by_seed)} | " + " | ".join(cells(list(by_seed.values()))) + " |"
        for name, by_seed in runs.items()
    ]
    return "\n".join(lines) + "\n"


def cells(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The figures of one setting."""

    def mean(name: str, digits: int = 3) -> str:
        found = [r[name] for r in rows if name in r]
        return f"{statistics.mean(found):.{digits}f}" if found else "-"

    def lost(name: str, digits: int = 1, times: float = 100) -> str:
        found = [r["general"][name]["drop"] for r in rows if name in r["general"]]
        return f"{times * statistics.mean(found):.{digits}f}" if found else "-"

    battery = rows[0]["general"]["battery"]
    right = statistics.mean(r["general"]["battery"]["tuned"] * battery["items"] for r in rows)
    return [
        mean("trained_wording"), mean("taught_wording"), mean("taught_exact"), mean("stranger_closed_book"),
        mean("near_miss_bluffed"), f"{right:.1f} ({battery['base'] * battery['items']:.0f})", lost("reading"),
        lost("general_loss", 3, 1), lost("hellaswag"), lost("truthfulqa_mc2"), mean("drift_nats"), mean("steps", 0),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
