"""Fit the weights of bot.quoting, and say how well they hold: `python -m tests.bench.quotes`.

A listwise softmax over the sentences of each question, L2-regularised, with the sentences that hold the answer as
the right ones. It is fitted on one half of the facts and counted on the other, both ways round; the weights that
ship are fitted on all. It writes nothing: the weights it prints are put into bot/quoting.py by hand.
"""

import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bot import quoting
from bot.pipeline import PASSAGES_READ
from retrieval.embedder import Embedder
from storage import company
from tests.bench import asking
from tests.bench.asking import Found

PENALTY = 2.0
HANDBOOK_WEIGHT = 2.0
"""A question about the large handbook counts double: there are few, and the company's facts have five wordings."""


@dataclass(frozen=True)
class Lesson:
    """One question's sentences as a matrix, and which of them hold the answer."""

    matrix: NDArray[np.float64]
    right: NDArray[np.bool_]
    weight: float


def half(found: Found) -> int:
    """Which half (0 or 1) a fact belongs to."""
    return zlib.crc32(found.asked.fact.encode()) % 2


def lesson(found: Found, embedder: Embedder) -> Lesson | None:
    """The sentences of one question; None when no single one holds the answer."""
    choice = quoting.candidates(found.asked.question, found.hits)
    right = np.array([company.answer_matches(c.sentence.text, found.asked.keys) for c in choice])
    if not right.any():
        return None
    rows = quoting.described(found.asked.question, found.vector, choice, embedder)
    matrix = np.array([[row[name] for name in sorted(row)] for row in rows])
    return Lesson(matrix, right, HANDBOOK_WEIGHT if found.asked.kind == "handbook" else 1.0)


def names(found: Found, embedder: Embedder) -> list[str]:
    """The names of a sentence's features, in the order of a lesson's columns."""
    choice = quoting.candidates(found.asked.question, found.hits)
    return sorted(quoting.described(found.asked.question, found.vector, choice, embedder)[0])


def fit(lessons: Sequence[Lesson]) -> NDArray[np.float64]:
    """The weights that make the right sentences likeliest."""
    scale = np.concatenate([one.matrix for one in lessons]).std(0) + 1e-9

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total, slope = PENALTY * float(w @ w), 2 * PENALTY * w
        for one in lessons:
            z = one.matrix / scale
            p = np.exp(z @ w - (z @ w).max())
            p /= p.sum()
            q = p * one.right
            total -= one.weight * float(np.log(q.sum()))
            slope = slope + one.weight * (z.T @ (p - q / q.sum()))
        return total, slope

    weights: NDArray[np.float64] = minimize(loss, np.zeros(len(scale)), jac=True, method="L-BFGS-B").x / scale
    return weights


def replies(found: Sequence[Found], embedder: Embedder, weights: Mapping[str, float]) -> Iterator[tuple[Found, bool]]:
    """Whether the quote holds the answer, for every question."""
    with patch.object(quoting, "WEIGHTS", weights):
        for one in found:
            quote = quoting.best_quote(one.asked.question, one.vector, one.hits, embedder)
            yield one, quote is not None and company.answer_matches(quote.text, one.asked.keys)


def held_out(found: Sequence[Found], embedder: Embedder) -> dict[str, list[bool]]:
    """Right or wrong by kind of question, each by weights fitted on the other half of the facts."""
    known = names(found[0], embedder)
    lessons = [(half(one), lesson(one, embedder)) for one in found if asking.given(one)]
    kinds: dict[str, list[bool]] = {}
    for side in (0, 1):
        weights = fit([made for where, made in lessons if made and where != side])
        mine = [one for one in found if half(one) == side and asking.given(one)]
        for one, right in replies(mine, embedder, dict(zip(known, weights.tolist(), strict=True))):
            kinds.setdefault(one.asked.kind, []).append(right)
    return kinds


def gather(home: Path, embedder: Embedder) -> list[Found]:
    """Every question of both handbooks (the large one only where it is there) with what was found."""
    shelf = asking.library(home / "company", embedder, company.pages())
    found = asking.find(embedder, shelf, asking.company_questions(), PASSAGES_READ)
    if asking.handbook().is_dir():
        shelf = asking.library(home / "handbook", embedder, asking.handbook())
        found += asking.find(embedder, shelf, asking.handbook_questions(), PASSAGES_READ)
    return found


@click.command()
def main() -> None:
    """Print the held-out figures and the weights fitted on everything."""
    embedder = Embedder()
    with tempfile.TemporaryDirectory() as home:
        found = gather(Path(home), embedder)
    kinds = held_out(found, embedder)
    for kind, right in kinds.items():
        click.echo(f"{kind}: {np.mean(right):.3f} of {len(right)}")
    click.echo(f"all: {np.mean([r for rights in kinds.values() for r in rights]):.3f}")
    lessons = [made for one in found if asking.given(one) and (made := lesson(one, embedder))]
    for name, weight in zip(names(found[0], embedder), fit(lessons), strict=True):
        click.echo(f'    "{name}": {weight:.2f},')


if __name__ == "__main__":
    main()
