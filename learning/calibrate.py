"""Fit the confidence of a model version: calibrated heads from labelled rows, thresholds from the risk allowed.

Rows say which features a question had and whether the answer was right; they come from the demo company (shipped)
and from every night since. Each row has a weight, so that the set has the mix of traffic that is expected: many
re-asks and other wordings, some near-misses, some unknown questions. It knows nothing of how answers are made.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.confidence import calibration_of
from learning import classifier
from learning.reliability import Outcomes, auroc, calibration_error, outcomes
from storage.database import Row
from storage.settings import Settings

HEADS: Mapping[str, tuple[str, ...]] = {
    "same": (
        "cosine", "gap", "nearness", "lead", "word_lead", "unseen", "exact", "unknown_words", "new_words",
        "missing_words", "other_numbers", "other_codes", "missing_numbers", "negation", "length", "frame", "swapped",
        "dropped", "met", "met_midway", "unmet",
    ),
    "quoted": (
        "best_cosine", "best_bm25", "lead", "agree", "sentence_cosine", "sentence_bare", "sentence_overlap",
        "sentence_score", "sentence_share", "pair_share", "kind_told", "rank",
    ),
    "generated": ("best_cosine", "best_bm25", "lead", "agree", "mean_logprob", "lowest_logprob", "stopped"),
}  # fmt: skip
TRAFFIC: Mapping[str, float] = {"reask": 0.40, "wording": 0.40, "near_miss": 0.10, "unknown": 0.10}
"""Shares of traffic by kind of question (issue C's mix; re-asks are trained or generated wordings)."""
ABROAD: Mapping[str, float] = {"trade_wording": 0.60, "trade_near_miss": 0.40}
"""Weight of the rows of other trades (`trades.jsonl`) beside a traffic of 1.

With them the classifier knows near-misses that its own sixty facts do not show: measured in DECISIONS.md.
"""
VERIFIER = ("same", "sameness")
"""The head that asks a verifier first, and the feature that it is told.

A verifier sees how the two questions compare and nothing of how one was found, and learns from wordings and
near-misses alone: likeness to what is taught speaks for a question that is known here, and against a near-miss.
"""
FOUND_BY = frozenset({"cosine", "gap", "nearness", "lead", "word_lead", "unseen"})
"""Features of the search; an unknown question is told by them."""
VERIFIED: Mapping[str, float] = {
    "reask": 0.10, "wording": 0.40, "near_miss": 0.50, "trade_wording": 0.40, "trade_near_miss": 0.50,
}  # fmt: skip
"""Weights of what the verifier learns from."""
DOCUMENT_TRAFFIC: Mapping[str, float] = {"answerable": 0.8, "unknown": 0.2}
RELATED_RIGHT = 0.85
"""An offer as "the closest I was taught" should be the right one at least this often."""
QUOTE_RIGHT = 0.87
"""A quote is the page's own words under its own name; below the risk target it is still shown, as a possible answer.

With this share, cross-fitted, 10 % of the unknown questions were answered and 81 % of the right quotes were shown; with
0.70 it was 46 % and all of them.
"""
UNKNOWN_ANSWERED = 0.10
"""Share of the labelled unknown questions that may get a taught answer, and that may get a quote.

A third or more of them sound like the company's own; `make bench-answer` asks 180 others.
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


def targets(settings: Settings) -> dict[str, float]:
    """The shares of wrong answers that the settings allow, by the names of `fit`."""
    return {name.lower(): settings.number(name) for name in ("TARGET_WRONG", "TARGET_WRONG_DOCUMENTS")}


def fit(rows: Sequence[Row], *, target_wrong: float, target_wrong_documents: float) -> dict[str, Any]:
    """The confidence of a model version as stored JSON. Rows: head, kind, correct, features.

    Without rows of the head `generated` the model is not asked to read: it is quoted. What it writes itself must keep
    to the target; a quote is shown from QUOTE_RIGHT on.
    """
    by_head = {name: of_head(rows, name) for name in HEADS}
    same = fit_head(by_head["same"], "same", TRAFFIC, target_wrong, related=RELATED_RIGHT)
    ways = {"quoted": QUOTE_RIGHT, "generated": None} if by_head["generated"] else {"quoted": QUOTE_RIGHT}
    read = {
        name: fit_head(by_head[name], name, DOCUMENT_TRAFFIC, target_wrong_documents, related=right)
        for name, right in ways.items()
    }
    return {
        "heads": {"same": same, "memorised": "same", **read},
        "reading": "surest" if "generated" in read else "quoted",
        "targets": {"target_wrong": target_wrong, "target_wrong_documents": target_wrong_documents},
    }


def fit_head(
    rows: Sequence[Row], name: str, traffic: Mapping[str, float], target: float, *, related: float | None
) -> dict[str, Any]:
    """A classifier, a calibration map, and thresholds by risk.

    Map and thresholds come from scores that each row got from a classifier that saw no row of its fact, and from the
    traffic alone: what other companies would ask teaches the classifier and proves nothing. The map only bends the
    scale (it never changes the order), so thresholds are found on the very scale that will serve. Without a share
    that is enough for `related`, nothing less sure than `direct` is given.
    """
    own = [r for r in rows if r["kind"] in traffic]
    if len({int(r["correct"]) for r in own}) < 2:
        return dict(REFUSES)
    y, w, fold = labels(own), weights(own, traffic), folds(own)
    scores = cross_fitted(rows, own, fold, lambda others: learnt(others, name, traffic))
    curve = calibration(scores, y, w)
    said = calibrated(curve, scores)
    least = quiet(said, own, UNKNOWN_ANSWERED)
    honest = outcomes(cross_calibrated(scores, y, w, fold), y, w)
    direct = max(least, threshold(said, y, w, 1 - target, texts(own)))
    return learnt(rows, name, traffic) | {
        "direct": direct,
        "related": direct if related is None else max(least, threshold(said, y, w, related)),
        "calibration": curve,
        "measured": {"rows": len(own), "auroc": auroc(honest), "ece": calibration_error(honest)},
    }


def learnt(rows: Sequence[Row], head: str, traffic: Mapping[str, float]) -> dict[str, Any]:
    """The classifier of a head as stored JSON, with its verifier inside where it has one.

    The verifier's word on each row comes from one that saw no row of its fact, so that the head learns how far to
    trust it with strangers.
    """
    asked, feature = VERIFIER
    if head != asked or len(set(labels(verifiable(rows)))) < 2:
        return classifier.fitted(rows, HEADS[head], weights(rows, {**traffic, **ABROAD}))
    verifier, said = verifier_of(rows), cross_fitted(verifiable(rows), rows, folds(rows), verifier_of)
    told = [r | {"features": r["features"] | {feature: float(z)}} for r, z in zip(rows, said, strict=True)]
    names = (*HEADS[head], feature)
    return classifier.fitted(told, names, weights(rows, {**traffic, **ABROAD})) | {"verifier": {feature: verifier}}


def verifiable(rows: Sequence[Row]) -> list[Row]:
    """The rows that a verifier learns from."""
    return [r for r in rows if r["kind"] in VERIFIED]


def verifier_of(rows: Sequence[Row]) -> dict[str, Any]:
    """A verifier as stored JSON."""
    own = verifiable(rows)
    names = [n for n in HEADS[VERIFIER[0]] if n not in FOUND_BY]
    return classifier.fitted(own, names, weights(own, VERIFIED))


def held_out(rows: Sequence[Row], head: str) -> Outcomes:
    """What a head would have said of each of its rows without having seen its fact, weighted by the traffic."""
    traffic = TRAFFIC if head == "same" else DOCUMENT_TRAFFIC
    learned = of_head(rows, head)
    own = [r for r in learned if r["kind"] in traffic]
    y, w, fold = labels(own), weights(own, traffic), folds(own)
    scores = cross_fitted(learned, own, fold, lambda others: learnt(others, head, traffic))
    return outcomes(cross_calibrated(scores, y, w, fold), y, w)


def of_head(rows: Sequence[Row], head: str) -> list[Row]:
    """The rows of a head; one that was noted before a feature existed says nothing of it and is left out."""
    needed = set(HEADS[head])
    return [r for r in rows if r["head"] == head and needed <= r["features"].keys()]


def labels(rows: Sequence[Row]) -> Counts:
    """1 for each row whose answer was right, 0 for the others."""
    return np.array([int(r["correct"]) for r in rows])


def folds(rows: Sequence[Row]) -> Counts:
    """The fold of each row (0 to FOLDS - 1); all rows of a fact share one, whatever other facts there are."""
    return np.array([int(hashlib.sha256(str(r["fact"]).encode()).hexdigest(), 16) % FOLDS for r in rows], dtype=int)


def cross_fitted(
    rows: Sequence[Row], own: Sequence[Row], fold: Counts, learn: Callable[[Sequence[Row]], dict[str, Any]]
) -> Floats:
    """The log-odds of each row in `own` from a classifier that learnt from `rows` and saw none of its fact."""
    held = np.zeros(len(own))
    for k in range(FOLDS):
        out = [r for r, place in zip(own, fold, strict=True) if place == k]
        facts = {r["fact"] for r in out}
        others = [r for r in rows if r["fact"] not in facts]
        if out and len(set(labels(others))) == 2:
            held[fold == k] = classifier.scores(learn(others), out)
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


def weights(rows: Sequence[Row], shares: Mapping[str, float]) -> Floats:
    """Row weights that give each kind its share; those of the kinds that make up the traffic sum to their number.

    Rows of other trades come on top of that.
    """
    counts = Counter(r["kind"] for r in rows)
    home = [kind for kind in shares if counts[kind] and kind not in ABROAD]
    number, present = sum(counts[kind] for kind in home), sum(shares[kind] for kind in home)
    whole = {kind: present if kind in home else 1.0 for kind in shares}
    return np.array([number * shares[r["kind"]] / whole[r["kind"]] / counts[r["kind"]] for r in rows])


def texts(rows: Sequence[Row]) -> Counts:
    """The number of each row's text: one that is asked in homes of several sizes is one piece of evidence."""
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault((str(r["fact"]), str(r["asked"])), len(numbers)) for r in rows])


def threshold(said: Floats, y: Counts, w: Floats, right: float, evidence: Counts | None = None) -> float:
    """The least probability above which the share of right answers is at least `right`; 1.01 when none is.

    With `evidence`, the number of the text behind each row, the lower end of a Clopper-Pearson interval (90 %,
    one-sided) must reach it, on the effective number of texts (sum of weights squared over sum of squares, Kish 1965),
    so that few labels never prove anything.
    """
    best = NEVER
    for tau in sorted(set(said.tolist()), reverse=True):
        answered = said >= tau
        if share_right(y[answered], w[answered], None if evidence is None else evidence[answered]) >= right:
            best = tau
    return best


def quiet(said: Floats, rows: Sequence[Row], share: float) -> float:
    """The least probability from which on at most this share of the unknown questions is answered."""
    unknown = sorted((p for p, row in zip(said.tolist(), rows, strict=True) if row["kind"] == "unknown"), reverse=True)
    allowed = int(share * len(unknown))
    return math.nextafter(unknown[allowed], 2.0) if allowed < len(unknown) else 0.0


def share_right(y: Counts, w: Floats, evidence: Counts | None = None) -> float:
    """The weighted share of right answers, or its one-sided 90 % lower bound where the text behind each is given."""
    share = float((w * y).sum() / w.sum())
    if evidence is None:
        return share
    each = np.bincount(evidence, weights=w)
    number = float(each.sum() ** 2 / (each**2).sum())
    return at_least(share * number, number, BOUND)


def at_least(hits: float, items: float, sureness: float) -> float:
    """The lower end of a share's one-sided interval (Clopper and Pearson, 1934); 0 when nothing was hit."""
    from scipy.stats import beta

    return 0.0 if hits <= 0 else float(beta.ppf(1 - sureness, hits, items - hits + 1))
