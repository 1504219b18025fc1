"""Public benchmarks by their standard scoring: HellaSwag and TruthfulQA (mc1, mc2).

They are read from a folder outside the project and never copied into it. An ending is scored by its log-likelihood
given the context, for HellaSwag divided by its length in characters (Zellers et al. 2019; the "acc_norm" of common
harnesses); TruthfulQA as in Lin et al. 2022, but with no example questions in front. It knows nothing of gates.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.generation import in_batches
from bot.generator import LocalGenerator
from storage.errors import NotFoundError
from storage.settings import Settings

TOGETHER = 8
"""Tasks scored at once, some thirty to sixty endings."""


@dataclass(frozen=True)
class Choice:
    """One task: a context and its endings; `right` says which endings are true."""

    context: str
    endings: tuple[str, ...]
    right: tuple[bool, ...]


def folder(settings: Settings) -> Path:
    """Where the data lies. Raises NotFoundError when no setting says so."""
    if not settings.text("BENCH_DATA"):
        raise NotFoundError(
            "NIGHTSHIFT_BENCH_DATA names no folder with hellaswag/dev.jsonl and truthfulqa/mc_task.json."
        )
    return Path(settings.text("BENCH_DATA")).expanduser()


def hellaswag(folder: Path, count: int) -> list[Choice]:
    """The first `count` tasks. Raises NotFoundError when the folder does not hold them."""
    lines = read(folder / "hellaswag" / "dev.jsonl").splitlines()[:count]
    rows = [json.loads(line) for line in lines]
    return [
        Choice(
            r["context"], tuple(f" {e}" for e in r["endings"]), tuple(i == r["label"] for i in range(len(r["endings"])))
        )
        for r in rows
    ]


def truthfulqa(folder: Path, count: int, targets: str) -> list[Choice]:
    """The first `count` questions with their mc1 or mc2 answers."""
    rows = json.loads(read(folder / "truthfulqa" / "mc_task.json"))[:count]
    return [
        Choice(
            f"Q: {r['question']}\nA:",
            tuple(f" {e}" for e in r[f"{targets}_targets"]),
            tuple(bool(v) for v in r[f"{targets}_targets"].values()),
        )
        for r in rows
    ]


def read(path: Path) -> str:
    """A data file. Raises NotFoundError with where it should be."""
    if not path.is_file():
        raise NotFoundError(f"The benchmark data {path} is not here; set NIGHTSHIFT_BENCH_DATA to its folder.")
    return path.read_text(encoding="utf-8")


def by_length(engine: LocalGenerator, tasks: Sequence[Choice]) -> list[bool]:
    """Whether the likeliest ending, per character, is the right one."""
    likelihoods = score(engine, tasks)
    return [
        task.right[max(range(len(task.endings)), key=lambda i: logs[i] / len(task.endings[i].strip()))]
        for task, logs in zip(tasks, likelihoods, strict=True)
    ]


def truthful(
    engine: LocalGenerator, one: Sequence[Choice], two: Sequence[Choice]
) -> tuple[list[bool], list[float]]:
    """TruthfulQA by question: whether the likeliest ending is right (mc1), and the probability on right ones (mc2).

    The endings of mc1 stand among those of mc2, so each is read once. Raises ValueError where one does not.
    """
    likelihoods = score(engine, two)
    first = [
        first_right(t, [logs[of.endings.index(ending)] for ending in t.endings])
        for t, of, logs in zip(one, two, likelihoods, strict=True)
    ]
    return first, [share(logs, t.right) for t, logs in zip(two, likelihoods, strict=True)]


def first_right(task: Choice, logs: Sequence[float]) -> bool:
    """Whether the likeliest ending is a right one."""
    return task.right[max(range(len(logs)), key=logs.__getitem__)]


def share(logs: Sequence[float], right: Sequence[bool]) -> float:
    """The normalised probability of the right endings."""
    top = max(logs)
    weights = [math.exp(x - top) for x in logs]
    return sum(w for w, r in zip(weights, right, strict=True) if r) / sum(weights)


def score(engine: LocalGenerator, tasks: Sequence[Choice]) -> list[list[float]]:
    """Log-likelihood (nats) of every ending of every task, several tasks of like length at once."""
    contexts = [engine.tokenizer.encode(t.context, add_special_tokens=False) for t in tasks]
    endings = [[engine.tokenizer.encode(e, add_special_tokens=False) for e in t.endings] for t in tasks]
    tokens = list(zip(contexts, endings, strict=True))
    return in_batches(engine.each, engine.likelihoods, tokens, TOGETHER, lambda t: len(t[0]) + max(map(len, t[1])))
