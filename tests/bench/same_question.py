"""Is it the same question? What tells a colleague's wording from a near-miss, compared on hand-written pairs.

    python -m tests.bench.same_question

Four sets; no pair is scored by a head that saw a row of its fact:

* pairs: the 300 adversarial pairs of `storage/company/pairs.jsonl`, as they were written;
* crossed: the same wordings, put beside their near-misses as if those had been taught. Here sharing few words with
  the taught question says nothing, because both sides of each comparison share equally few;
* company: the demo company's wordings and near-misses, each scored by a head that saw no row of its fact;
* trades: 170 facts of other trades, three wordings and four near-misses each (`learning/trades.jsonl`), likewise.

It measures the decision alone: which taught question to compare with is given. It knows nothing of routes.
"""

import json
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bot.confidence import Features, pair_features
from bot.same_question import Comparer
from learning import calibrate, classifier, ship
from retrieval.embedder import EMBEDDED, Embedder
from retrieval.taught import Match, TaughtQuestions, Vectors
from storage import company
from storage.database import Database
from storage.errors import NotFoundError

HERE = Path(__file__).parent
SETS = ("pairs", "crossed", "company", "trades")
FORMER = (
    "cosine", "gap", "exact", "unknown_words", "new_words", "missing_words", "other_numbers", "missing_numbers",
    "negation", "length",
)  # fmt: skip
"""The features of the head `same` before words were compared."""
FALSE_ACCEPTED = 0.05
SHIPPED = "shipped: a head that is told what the verifier says"
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Taught:
    """A question to compare with, how colleagues ask it, and what is another question."""

    id: str
    question: str
    wordings: tuple[str, ...]
    near_misses: tuple[str, ...]
    answer: str = ""


@dataclass(frozen=True)
class Pair:
    """Two questions, and whether they are the same."""

    asked: str
    taught: str
    same: bool
    fact: str
    answer: str = ""


NAMES = calibrate.HEADS["same"]
EVERYONE = frozenset({*calibrate.TRAFFIC, *calibrate.ABROAD})
Learn = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
Method = Callable[[Sequence[Pair]], Scores]


@click.command()
def main() -> None:
    """Measure and print the table."""
    click.echo(table(compared()))


def compared() -> dict[str, Any]:
    """Every method on every set; the report and its table are kept beside this file."""
    sets = {name: made(name) for name in SETS}
    with tempfile.TemporaryDirectory() as home:
        described = Described(Embedder(EMBEDDED), sets, Path(home))
        methods = by_features(described)
        told = {name: {key: measured(method(sets[key]), sets[key]) for key in SETS} for name, method in methods.items()}
    report = {"methods": told, "milliseconds": described.milliseconds()}
    (HERE / "same_question.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (HERE / "same_question.md").write_text(table(report), encoding="utf-8")
    return report


def made(name: str) -> list[Pair]:
    """The pairs of a set."""
    if name in ("pairs", "crossed"):
        facts = adversarial()
        return [p for fact in facts for p in (straight(fact) if name == "pairs" else crossed(fact))]
    return [p for fact in (demo() if name == "company" else trades()) for p in straight(fact)]


def straight(fact: Taught) -> list[Pair]:
    """Wordings and near-misses beside the taught question."""
    same = [Pair(w, fact.question, True, fact.id, fact.answer) for w in fact.wordings]
    return same + [Pair(n, fact.question, False, fact.id, fact.answer) for n in fact.near_misses]


def crossed(fact: Taught) -> list[Pair]:
    """Wordings beside the taught question, and beside each near-miss in its place, all with the same answer."""
    same = [Pair(w, fact.question, True, fact.id, fact.answer) for w in fact.wordings]
    return same + [Pair(w, n, False, fact.id, fact.answer) for w in fact.wordings for n in fact.near_misses]


def adversarial() -> list[Taught]:
    """The adversarial pairs by taught question."""
    rows = read(Path(company.HERE) / "pairs.jsonl")
    facts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        facts.setdefault(row["fact"], []).append(row)
    return [
        Taught(
            name,
            own[0]["taught"],
            tuple(r["asked"] for r in own if r["same"]),
            tuple(r["asked"] for r in own if not r["same"]),
            own[0]["answer"],
        )
        for name, own in facts.items()
    ]


def demo() -> list[Taught]:
    """The demo company's facts."""
    return [Taught(f.id, f.question, f.wordings, f.near_misses, f.answer) for f in company.facts()]


def trades() -> list[Taught]:
    """Facts of other trades."""
    return [
        Taught(r["id"], r["question"], tuple(r["wordings"]), tuple(r["near_miss"]), r["answer"]) for r in ship.trades()
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


class Described:
    """The features of pairs, each beside its taught question in a home where every question of its set is taught."""

    def __init__(self, embedder: Embedder, sets: Mapping[str, Sequence[Pair]], home: Path) -> None:
        """Teach every set in a folder of its own."""
        self._embedder = embedder
        self._features: dict[Pair, Features] = {}
        self._spent: list[float] = []
        self._homes = {pair: name for name, own in sets.items() for pair in own}
        self._taught: dict[str, TaughtQuestions] = {}
        self._ids: dict[str, dict[tuple[str, str], int]] = {}
        for name, own in sets.items():
            database = Database(home / name)
            items = {(p.fact, p.taught): p.answer for p in own}
            self._ids[name] = {key: ship.teach(database, key[1], answer) for key, answer in items.items()}
            self._taught[name] = TaughtQuestions(database, embedder, Comparer(embedder))

    def __call__(self, pair: Pair) -> Features:
        """The features of one pair, as they would be at serving time."""
        if pair not in self._features:
            vector = self._embedder.encode([pair.asked])[0]
            started = time.perf_counter()
            self._features[pair] = pair_features(pair.asked, self._match(pair, vector))
            self._spent.append(1000 * (time.perf_counter() - started))
        return self._features[pair]

    def milliseconds(self) -> dict[str, float]:
        """What finding, comparing and describing a pair takes beyond the question's own sentence vector."""
        return {
            "median": round(float(np.median(self._spent)), 1),
            "p95": round(float(np.quantile(self._spent, 0.95)), 1),
        }

    def _match(self, pair: Pair, vector: Vectors) -> Match:
        name = self._homes[pair]
        own = self._ids[name][pair.fact, pair.taught]
        rivals = {number for (fact, _), number in self._ids[name].items() if fact == pair.fact and number != own}
        match = self._taught[name].beside(pair.asked, vector, own, without=rivals)
        if match is None:
            raise NotFoundError(f"{pair.taught!r} is not taught.")
        return match


def by_features(described: Described) -> dict[str, Method]:
    """Single features, and heads: on fewer features, without trees, without other trades, and as it ships."""
    at_home = frozenset(calibrate.TRAFFIC)
    return {
        "cosine": single(described, "cosine", 1.0),
        "few words shared in order, alone": single(described, "frame", -1.0),
        "ten features, a regression, the company alone": Headed(described, plainly(FORMER), at_home, trees=False),
        "all features, a regression, the company alone": Headed(described, plainly(NAMES), at_home, trees=False),
        "the same, and a forest": Headed(described, plainly(NAMES), at_home),
        "the same, other trades too": Headed(described, plainly(NAMES)),
        "the verifier alone": Headed(described, calibrate.verifier_of),
        SHIPPED: Headed(described, shipped),
    }


def plainly(names: Sequence[str]) -> Learn:
    """A classifier on some features, with no verifier."""
    shares = {**calibrate.TRAFFIC, **calibrate.ABROAD}
    return lambda rows: classifier.fitted(rows, names, calibrate.weights(rows, shares))


def shipped(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The head as a night fits it."""
    return calibrate.learnt(rows, "same", calibrate.TRAFFIC)


def single(described: Described, name: str, sign: float) -> Method:
    """One feature as the score."""
    return lambda pairs: np.array([sign * described(p)[name] for p in pairs])


class Headed:
    """A head fitted for each fold of the facts on the rows of the others."""

    def __init__(self, described: Described, learn: Learn, kinds: Collection[str] = EVERYONE, *, trees: bool = True):
        """Choose how it is fitted, on what kinds of rows, and whether trees help the regression."""
        self._described, self._learn, self._trees = described, learn, trees
        self._rows = [r for r in calibrate.shipped_rows() if r["head"] == "same" and r["kind"] in kinds]

    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        """Log-odds of being the same."""
        scores = np.zeros(len(pairs))
        for fold in range(calibrate.FOLDS):
            own = [i for i, p in enumerate(pairs) if self._fold(p.fact) == fold]
            if own:
                learned = [r for r in self._rows if self._fold(r["fact"]) != fold]
                scores[own] = classifier.scores(
                    self._fitted(learned), [{"features": self._described(pairs[i])} for i in own]
                )
        return scores

    def _fitted(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        told = self._learn(rows)
        return told if self._trees else told | {"forest": []}

    def _fold(self, fact: str) -> int:
        return int.from_bytes(fact.encode()[-4:], "big") % calibrate.FOLDS


def measured(scores: Scores, pairs: Sequence[Pair]) -> dict[str, float]:
    """AUROC, and the share of wordings accepted where one near-miss in twenty is."""
    same = np.array([p.same for p in pairs])
    return {"auroc": round(auroc(scores, same), 3), "accepted": round(accepted(scores, same), 3)}


def auroc(scores: Scores, same: NDArray[np.bool_]) -> float:
    """The probability that a wording is scored above a near-miss; half for equals."""
    right, wrong = scores[same][:, None], scores[~same][None, :]
    return float(((right > wrong) + 0.5 * (right == wrong)).mean())


def accepted(scores: Scores, same: NDArray[np.bool_]) -> float:
    """The share of wordings above the least threshold that at most one near-miss in twenty passes."""
    wrong = np.sort(scores[~same])[::-1]
    return float((scores[same] > wrong[int(FALSE_ACCEPTED * len(wrong))]).mean())


def table(report: Mapping[str, Any]) -> str:
    """The results as Markdown: AUROC / wordings accepted at 5 % of near-misses."""
    lines = ["# Same question?", "", "AUROC / wordings accepted while at most 5 % of near-misses are.", ""]
    lines += ["| method | " + " | ".join(SETS) + " |", "|---|" + "---|" * len(SETS)]
    for name, by_set in report["methods"].items():
        cells = [f"{by_set[k]['auroc']:.3f} / {by_set[k]['accepted']:.0%}" for k in SETS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    spent = report["milliseconds"]
    lines += [
        "",
        f"Comparing takes {spent['median']} ms a pair at the median, {spent['p95']} ms at the 95th percentile.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
