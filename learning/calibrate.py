"""Fit the confidence of a model version: logistic heads from labelled rows, thresholds from the risk allowed.

Rows say which features a question had and whether the answer was right; they come from the demo company (shipped)
and from every night since. Each row has a weight, so that the set has the mix of traffic that is expected: many
re-asks and other wordings, some near-misses, some unknown questions. It knows nothing of how answers are made.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.database import Row

HEADS: Mapping[str, tuple[str, ...]] = {
    "same": (
        "cosine", "gap", "exact", "unknown_words", "new_words", "missing_words", "other_numbers", "missing_numbers",
        "negation", "length",
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
BOUND = 0.90
NEVER = 1.01


def shipped_rows() -> list[Row]:
    """The labelled rows of the demo company that ship with the project."""
    text = (files("learning") / "calibration_rows.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def fit(rows: Sequence[Row], *, target_wrong: float, target_wrong_documents: float) -> dict[str, Any]:
    """The confidence of a model version as stored JSON. Rows: head, kind, correct, features."""
    by_head = {name: [r for r in rows if r["head"] == name] for name in HEADS}
    same = fit_head(by_head["same"], HEADS["same"], TRAFFIC, target_wrong, related=RELATED_RIGHT)
    quoted = fit_head(by_head["quoted"], HEADS["quoted"], DOCUMENT_TRAFFIC, target_wrong_documents, related=QUOTE_RIGHT)
    return {"heads": {"same": same, "memorised": same, "quoted": quoted}, "reading": "quoted"}


def fit_head(
    rows: Sequence[Row],
    names: Sequence[str],
    traffic: Mapping[str, float],
    target: float,
    *,
    related: float | None = None,
) -> dict[str, Any]:
    """An L2 logistic regression on standardised features, with thresholds found on cross-fitted probabilities."""
    from sklearn.linear_model import LogisticRegression

    x = np.array([[r["features"].get(n, 0.0) for n in names] for r in rows])
    y = np.array([int(r["correct"]) for r in rows])
    w = weights(rows, traffic)
    mean, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
    z = (x - mean) / scale
    model = LogisticRegression(C=1.0, max_iter=2000).fit(z, y, sample_weight=w)
    held = cross_fitted(z, y, w, [str(r["fact"]) for r in rows])
    return {
        "features": list(names),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "weight": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
        "direct": threshold(held, y, w, 1 - target, bounded=True),
        "related": threshold(held, y, w, related, bounded=False) if related else NEVER,
    }


def cross_fitted(
    z: NDArray[np.float64], y: NDArray[np.int64], w: NDArray[np.float64], facts: Sequence[str], folds: int = 5
) -> NDArray[np.float64]:
    """Each row's probability from a model that saw no row of its fact."""
    from sklearn.linear_model import LogisticRegression

    names = sorted(set(facts))
    fold = np.array([names.index(f) % folds for f in facts])
    held = np.zeros(len(y))
    for k in range(folds):
        out = fold == k
        if out.any() and len(set(y[~out])) == 2:
            model = LogisticRegression(C=1.0, max_iter=2000).fit(z[~out], y[~out], sample_weight=w[~out])
            held[out] = model.predict_proba(z[out])[:, 1]
    return held


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
