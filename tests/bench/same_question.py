"""Is it the same question? What tells a colleague's wording from a near-miss, compared on hand-written pairs.

    python -m tests.bench.same_question

Four sets, none of which a method was fitted on:

* pairs: the 300 adversarial pairs of `storage/company/pairs.jsonl`, as they were written;
* crossed: the same wordings, put beside their near-misses as if those had been taught. Here sharing few words with
  the taught question says nothing, because both sides of each comparison share equally few;
* company: the demo company's wordings and near-misses, each scored by a head that saw no row of its fact;
* trades: 170 facts of other trades, three wordings and four near-misses each (`trades.jsonl`).

It measures the decision alone: what was taught is given. It knows nothing of routes.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bot.confidence import Features, pair_features
from bot.same_question import Comparer
from learning import calibrate, wordings
from retrieval.embedder import EMBEDDED, Embedder
from retrieval.taught import UNRELATED, Match
from storage import company

HERE = Path(__file__).parent
SETS = ("pairs", "crossed", "company", "trades")
FORMER = (
    "cosine", "gap", "exact", "unknown_words", "new_words", "missing_words", "other_numbers", "missing_numbers",
    "negation", "length",
)  # fmt: skip
"""The features of the head `same` before words were compared."""
CONTRAST: Mapping[str, float] = {"wording": 0.5, "near_miss": 0.5}
"""The rows of a verifier that is told that the nearest taught question was found: nothing unknown, no re-asks."""
FALSE_ACCEPTED = 0.05
SEED = 7
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


Method = Callable[[Sequence[Pair]], Scores]


@click.command()
def main() -> None:
    """Measure every method on every set, print the table and keep it beside this file."""
    sets = {name: made(name) for name in SETS}
    described = Described(Embedder(EMBEDDED), sets)
    methods = by_features(described)
    told = {name: {key: measured(method(sets[key]), sets[key]) for key in SETS} for name, method in methods.items()}
    report = {"methods": told, "milliseconds": described.milliseconds()}
    (HERE / "same_question.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (HERE / "same_question.md").write_text(table(report), encoding="utf-8")
    click.echo(table(report))


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
    """Wordings beside the taught question, and beside each near-miss in its place."""
    same = [Pair(w, fact.question, True, fact.id) for w in fact.wordings]
    return same + [Pair(w, n, False, fact.id) for w in fact.wordings for n in fact.near_misses]


def adversarial() -> list[Taught]:
    """The adversarial pairs by taught question; they have no answers."""
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
        )
        for name, own in facts.items()
    ]


def demo() -> list[Taught]:
    """The demo company's facts."""
    return [Taught(f.id, f.question, f.wordings, f.near_misses, f.answer) for f in company.facts()]


def trades() -> list[Taught]:
    """Facts of other trades, without answers."""
    return [
        Taught(r["id"], r["question"], tuple(r["wordings"]), tuple(r["near_miss"])) for r in read(HERE / "trades.jsonl")
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


class Described:
    """The features of pairs, each beside the questions of its set and its own rule-made wordings."""

    def __init__(self, embedder: Embedder, sets: Mapping[str, Sequence[Pair]]) -> None:
        """Keep the embedder and every set's taught questions."""
        self._embedder, self._compare = embedder, Comparer(embedder)
        self._features: dict[Pair, Features] = {}
        self._spent: list[float] = []
        taught = {name: tuple(dict.fromkeys((p.fact, p.taught) for p in own)) for name, own in sets.items()}
        self._others = {pair: (taught[name], pair.fact) for name, own in sets.items() for pair in own}

    def __call__(self, pair: Pair) -> Features:
        """The features of one pair, as they would be at serving time."""
        if pair not in self._features:
            match = self._match(pair)
            started = time.perf_counter()
            compared = self._compare(pair.asked, (match.question, *match.wordings))
            self._features[pair] = pair_features(pair.asked, replace(match, compared=compared))
            self._spent.append(1000 * (time.perf_counter() - started))
        return self._features[pair]

    def milliseconds(self) -> dict[str, float]:
        """What comparing and describing a pair takes beyond finding it, the question's own vectors included."""
        return {
            "median": round(float(np.median(self._spent)), 1),
            "p95": round(float(np.quantile(self._spent, 0.95)), 1),
        }

    def _match(self, pair: Pair) -> Match:
        own = (pair.taught, *wordings.generate(pair.taught, 8, SEED))
        vector = self._embedder.encode([pair.asked])[0]
        near = self._embedder.encode(own) @ vector
        best = int(near.argmax())
        taught, fact = self._others[pair]
        others = [question for name, question in taught if name != fact]
        other = float((self._embedder.encode(others) @ vector).max())
        gap = float(near[best]) - max(UNRELATED, other)
        return Match(0, pair.taught, pair.answer, own[best], float(near[best]), gap, float(near[0]), own)


def by_features(described: Described) -> dict[str, Method]:
    """Single features, the head as it was, the head as it ships, and that head without the frame."""
    names = calibrate.HEADS["same"]
    bare = tuple(n for n in names if n not in ("cosine", "gap", "lead"))
    without = tuple(n for n in names if n not in ("frame", "frame_squared", "swapped", "dropped"))
    return {
        "cosine": single(described, "cosine", 1.0),
        "few words shared in order, alone": single(described, "frame", -1.0),
        "the former ten features": Headed(described, FORMER),
        "the same, and word vectors, without the frame": Headed(described, without),
        "shipped: ten features, frame, word vectors": Headed(described, names),
        "all without cosines, fitted on wordings against near-misses alone": Headed(described, bare, CONTRAST),
    }


def single(described: Described, name: str, sign: float) -> Method:
    """One feature as the score."""
    return lambda pairs: np.array([sign * described(p)[name] for p in pairs])


class Headed:
    """A head fitted as the night fits it; rows of the demo company are scored by one that saw no row of their fact."""

    def __init__(
        self, described: Described, names: Sequence[str], traffic: Mapping[str, float] = calibrate.TRAFFIC
    ) -> None:
        """Choose the features, and the kinds of rows with their shares."""
        self._described, self._names, self._traffic = described, tuple(names), traffic
        self._rows = [r for r in calibrate.shipped_rows() if r["head"] == "same" and r["kind"] in traffic]

    def __call__(self, pairs: Sequence[Pair]) -> Scores:
        """Log-odds of being the same."""
        scores = np.zeros(len(pairs))
        for fold in range(calibrate.FOLDS):
            own = [i for i, p in enumerate(pairs) if self._fold(p.fact) == fold]
            if own:
                score = self._fitted([r for r in self._rows if self._fold(r["fact"]) != fold])
                scores[own] = score([pairs[i] for i in own])
        return scores

    def _fold(self, fact: str) -> int:
        return int.from_bytes(fact.encode()[-4:], "big") % calibrate.FOLDS

    def _fitted(self, rows: list[dict[str, Any]]) -> Method:
        x, y, w = calibrate.arrays(rows, self._names, self._traffic)
        mean, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
        model = calibrate.regression((x - mean) / scale, y, w)

        def score(pairs: Sequence[Pair]) -> Scores:
            found = np.array([[self._described(p)[n] for n in self._names] for p in pairs])
            said: Scores = model.decision_function((found - mean) / scale)
            return said

        return score


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
