"""The classifier inside a head: a logistic regression and a small forest of extremely randomised trees, half each.

A regression adds its features up; whether "a word was exchanged" speaks against sameness depends on how much of the
sentence still stands, which trees can say (Geurts and others, 2006). Of the two together the regression keeps the
forest from following few labels too closely, and the forest sees what belongs together; both were worse alone
(DECISIONS.md). Scores are given by the very code that serves. It knows nothing of thresholds and of traffic.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bot.confidence import head_of
from storage.database import Row

TREES = 50
LEAVES = 100
"""At most, in one tree."""
LEAST_IN_LEAF = 2
SEED = 7
DIGITS = 6
"""Kept of thresholds and shares, so that a stored forest has the size of a photograph."""

Floats = NDArray[np.float64]


def fitted(rows: Sequence[Row], names: Sequence[str], weights: Floats) -> dict[str, Any]:
    """A classifier as stored JSON, from rows with features and `correct`, each with its weight."""
    from sklearn.linear_model import LogisticRegression

    x = np.array([[r["features"].get(n, 0.0) for n in names] for r in rows])
    y = np.array([int(r["correct"]) for r in rows])
    mean, scale = x.mean(0), np.where(x.std(0) > 1e-9, x.std(0), 1.0)
    line = LogisticRegression(C=1.0, max_iter=2000).fit((x - mean) / scale, y, sample_weight=weights)
    return {
        "features": list(names),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "weight": line.coef_[0].tolist(),
        "intercept": float(line.intercept_[0]),
        "forest": forest(x, y, weights),
    }


def forest(x: Floats, y: NDArray[np.int64], weights: Floats) -> list[Any]:
    """Trees over features [rows, names] as nested lists, see `bot.confidence.Tree`."""
    from sklearn.ensemble import ExtraTreesClassifier

    grown = ExtraTreesClassifier(
        TREES, max_leaf_nodes=LEAVES, min_samples_leaf=LEAST_IN_LEAF, random_state=SEED, n_jobs=1
    ).fit(x, y, sample_weight=weights)
    return [branch(one.tree_, 0, list(one.classes_).index(1)) for one in grown.estimators_]


def branch(tree: Any, node: int, right: int) -> Any:
    """A node of a tree with all below it; `right` is the place of the class of right answers."""
    if tree.children_left[node] < 0:
        shares = tree.value[node][0]
        return round(float(shares[right] / shares.sum()), DIGITS)
    below, above = (branch(tree, int(child[node]), right) for child in (tree.children_left, tree.children_right))
    return [int(tree.feature[node]), round(float(tree.threshold[node]), DIGITS), below, above]


def scores(told: dict[str, Any], rows: Sequence[Row]) -> Floats:
    """The log-odds that a stored classifier gives to rows."""
    head = head_of(told)
    return np.array([head.log_odds(r["features"]) for r in rows])
