"""Fit the confidence of a model version: calibrated heads from labelled rows, thresholds from the risk allowed.

Rows say which features a question had and whether the answer was right; they come from the demo company (shipped)
and from every night since. Each row has a weight, so that the set has the mix of traffic that is expected: many
re-asks and other wordings, some near-misses, some unknown questions. It knows nothing of how answers are made.
"""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.confidence import calibration_of
from learning.reliability import Outcomes, auroc, calibration_error, outcomes
from storage.database import Row

HEADS: Mapping[str, tuple[str, ...]] = {
    "same": (
        "cosine", "gap", "lead", "exact", "unknown_words", "new_words", "missing_words", "other_numbers",
        "missing_numbers", "negation", "length", "frame", "frame_squared", "swapped", "dropped", "met", "met_midway",
        "unmet", "keywords",
    ),
    "quoted": (
        "best_cosine", "best_bm25", "lead", "agree", "sentence_cosine", "sentence_bare", "sentence_overlap",
        "sentence_score", "sentence_share", "pair_share", "kind_told", "rank",
    ),
}  # fmt: skip
TRAFFIC: Mapping[str, float] = {"reask": 0.40, "wording": 0.40, "near_miss": 0.10, "unknown": 0.10}
"""Shares of traffic by kind of question (issue C's mix; re-asks are trained or generated wordings)."""
DOCUMENT_TRAFFIC: Mapping[str, float] = {"answerable": 0.8, "unknown": 0.2}
RELATED_RIGHT = 0.85
"""An offer as "the closest I was taught" should be the right one at least this often."""
QUOTE_RIGHT = 0.87
"""A quote is the page's own words under its own name; below the risk target it is still shown, as a possible answer.

With this share, cross-fitted, 10 % of the unknown questions were answered and 81 % of the right quotes were shown; with
0.70 it was 46 % and all of them.
"""
UNKNOWN_ANSWERED = 0.12
"""Share of the labelled unknown questions that may get a taught answer, and that may get a quote.

A third or more of them sound like the company's own. Of 180 others, one in ten may be answered by either; it was 8 %.
"""
BOUND = 0.90
NEVER = 1.01
FOLDS = 5
PLATT_BELOW = 1000
"""Rows below which isotonic regression would follow the noise (Niculescu-Mizil and Caruana, ICML 2005)."""
UNCHANGED: Mapping[str, Any] = {"kind": "platt", "slope": 1.0, "shift": 0.0}
REFUSES: Mapping[str, Any] = {
    "features": [], "mean": [], "scale": [], "weight": [], "intercept": -30.0, "direct": NEVER, "related": NEVER,
}  # fmt: skip
"""A head without labels to learn from."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def shipped_rows() -> list[Row]:
    """The labelled rows of the demo company that ship with the project."""
    text = (files("learning") / "calibration_rows.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def fit(rows: Sequence[Row], *, target_wrong: float, target_wrong_documents: float) -> dict[str, Any]:
    """The confidence of a model version as stored JSON. Rows: head, kind, correct, features."""
    by_head = {name: of_head(rows, name) for name in HEADS}
    same = fit_head(by_head["same"], "same", TRAFFIC, target_wrong, related=RELATED_RIGHT)
    quoted = fit_head(by_head["quoted"], "quoted", DOCUMENT_TRAFFIC, target_wrong_documents, related=QUOTE_RIGHT)
    return {"heads": {"same": same, "memorised": same, "quoted": quoted}, "reading": "quoted"}


def fit_head(
    rows: Sequence[Row], name: str, traffic: Mapping[str, float], target: float, *, related: float
) -> dict[str, Any]:
    """An L2 logistic regression on standardised features, a calibration map, and thresholds by risk.

    Map and thresholds come from scores that each row got from a model that saw no row of its fact. The map only
    bends the scale (it never changes the order), so thresholds are found on the very scale that will serve.
    """
    if len({int(r["correct"]) for r in rows}) < 2:
        return dict(REFUSES)
    x, y, w = arrays(rows, HEADS[name], traffic)
    mean, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
    model = regression((x - mean) / scale, y, w)
    fold = folds(rows)
    scores = cross_fitted((x - mean) / scale, y, w, fold)
    curve = calibration(scores, y, w)
    said = calibrated(curve, scores)
    least = quiet(said, rows, UNKNOWN_ANSWERED)
    honest = outcomes(cross_calibrated(scores, y, w, fold), y, w)
    return {
        "features": list(HEADS[name]),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "weight": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
        "direct": max(least, threshold(said, y, w, 1 - target, bounded=True)),
        "related": max(least, threshold(said, y, w, related, bounded=False)),
        "calibration": curve,
        "measured": {"rows": len(rows), "auroc": auroc(honest), "ece": calibration_error(honest)},
    }


def held_out(rows: Sequence[Row], head: str) -> Outcomes:
    """What a head would have said of each of its rows without having seen its fact, weighted by the traffic."""
    own = of_head(rows, head)
    x, y, w = arrays(own, HEADS[head], DOCUMENT_TRAFFIC if head == "quoted" else TRAFFIC)
    mean, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
    fold = folds(own)
    scores = cross_fitted((x - mean) / scale, y, w, fold)
    return outcomes(cross_calibrated(scores, y, w, fold), y, w)


def of_head(rows: Sequence[Row], head: str) -> list[Row]:
    """The rows of a head; one that was noted before a feature existed says nothing of it and is left out."""
    needed = set(HEADS[head])
    return [r for r in rows if r["head"] == head and needed <= r["features"].keys()]


def arrays(rows: Sequence[Row], names: Sequence[str], traffic: Mapping[str, float]) -> tuple[Floats, Counts, Floats]:
    """Features [rows, names], labels and weights."""
    x = np.array([[r["features"].get(n, 0.0) for n in names] for r in rows])
    return x, np.array([int(r["correct"]) for r in rows]), weights(rows, traffic)


def regression(z: Floats, y: Counts, w: Floats) -> Any:
    """The classifier itself."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=2000).fit(z, y, sample_weight=w)


def folds(rows: Sequence[Row]) -> Counts:
    """The fold of each row (0 to FOLDS - 1); all rows of a fact share one."""
    place = {fact: at % FOLDS for at, fact in enumerate(sorted({str(r["fact"]) for r in rows}))}
    return np.array([place[str(r["fact"])] for r in rows])


def cross_fitted(z: Floats, y: Counts, w: Floats, fold: Counts) -> Floats:
    """Each row's log-odds from a model that saw no row of its fact."""
    held = np.zeros(len(y))
    for k in range(FOLDS):
        out = fold == k
        if out.any() and len(set(y[~out])) == 2:
            held[out] = regression(z[~out], y[~out], w[~out]).decision_function(z[out])
    return held


def cross_calibrated(scores: Floats, y: Counts, w: Floats, fold: Counts) -> Floats:
    """Each row's probability by a map that saw no row of its fact either; this is what is measured."""
    said = np.zeros(len(y))
    for k in range(FOLDS):
        out = fold == k
        if out.any():
            said[out] = calibrated(calibration(scores[~out], y[~out], w[~out]), scores[out])
    return said


def calibration(scores: Floats, y: Counts, w: Floats) -> dict[str, Any]:
    """The map from log-odds to probabilities, as stored: Platt's below PLATT_BELOW rows, isotonic from there on."""
    if len(set(y)) < 2:
        return dict(UNCHANGED)
    return platt(scores, y, w) if len(y) < PLATT_BELOW else isotonic(scores, y, w)


def platt(scores: Floats, y: Counts, w: Floats) -> dict[str, Any]:
    """A logistic curve through the scores (Platt, 1999); one that would turn their order round is not used."""
    from sklearn.linear_model import LogisticRegression

    curve = LogisticRegression(C=1e3, max_iter=2000).fit(scores[:, None], y, sample_weight=w)
    slope, shift = float(curve.coef_[0][0]), float(curve.intercept_[0])
    return {"kind": "platt", "slope": slope, "shift": shift} if slope > 0 else dict(UNCHANGED)


def isotonic(scores: Floats, y: Counts, w: Floats) -> dict[str, Any]:
    """The rising steps that fit best; never surer than the rows allow (the rule of succession)."""
    from sklearn.isotonic import IsotonicRegression

    line = IsotonicRegression(out_of_bounds="clip").fit(scores, y, sample_weight=w)
    least = 1.0 / (len(y) + 2)
    return {
        "kind": "isotonic",
        "log_odds": line.X_thresholds_.tolist(),
        "probability": np.clip(line.y_thresholds_, least, 1 - least).tolist(),
    }


def calibrated(curve: Mapping[str, Any], scores: Floats) -> Floats:
    """Scores through a stored map, by the very code that serves."""
    read = calibration_of(curve)
    return np.array([read(s) for s in scores.tolist()])


def weights(rows: Sequence[Row], traffic: Mapping[str, float]) -> NDArray[np.float64]:
    """Row weights that give the set the traffic's mix; they sum to the number of rows."""
    counts = {kind: sum(r["kind"] == kind for r in rows) for kind in traffic}
    present = sum(share for kind, share in traffic.items() if counts[kind])
    return np.array([len(rows) * traffic[r["kind"]] / present / counts[r["kind"]] for r in rows])


def threshold(
    held: NDArray[np.float64], y: NDArray[np.int64], w: NDArray[np.float64], right: float, *, bounded: bool
) -> float:
    """The least probability above which the share of right answers is at least `right`; 1.01 when none is.

    With `bounded`, the lower end of a Clopper-Pearson interval (90 %, one-sided) must reach it, on the effective
    number of rows (sum of weights squared over sum of squares, Kish 1965), so that few labels never prove anything.
    """
    best = NEVER
    for tau in sorted(set(held.tolist()), reverse=True):
        answered = held >= tau
        if share_right(y[answered], w[answered], bounded=bounded) >= right:
            best = tau
    return best


def quiet(said: Floats, rows: Sequence[Row], share: float) -> float:
    """The least probability from which on at most this share of the unknown questions is answered."""
    unknown = sorted((p for p, row in zip(said.tolist(), rows, strict=True) if row["kind"] == "unknown"), reverse=True)
    allowed = int(share * len(unknown))
    return math.nextafter(unknown[allowed], 2.0) if allowed < len(unknown) else 0.0


def share_right(y: NDArray[np.int64], w: NDArray[np.float64], *, bounded: bool) -> float:
    """The weighted share of right answers, or its one-sided 90 % lower bound."""
    share = float((w * y).sum() / w.sum())
    if not bounded:
        return share
    rows = float(w.sum() ** 2 / (w**2).sum())
    return at_least(share * rows, rows, BOUND)


def at_least(hits: float, items: float, sureness: float) -> float:
    """The lower end of a share's one-sided interval (Clopper and Pearson, 1934); 0 when nothing was hit."""
    from scipy.stats import beta

    return 0.0 if hits <= 0 else float(beta.ppf(1 - sureness, hits, items - hits + 1))
