"""Anomaly detectors: an isolation forest that was shown zeros only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab import data
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of, prior_of, trained
from guard.selftest.measures import Floats, Ints

TREES = 64
NORMAL = 0
"""The digit that is normal; all others are foreign."""


def anomalies(seed: int) -> Victim:
    """Isolation forest on handwritten zeros; other digits are anomalies, class 1. About 98% of them are caught.

    Half of the data is the owner's: its zeros train the forest, all of it calibrates the forest's score to a
    probability (Platt: a logistic regression on the score, both classes weighing the same, which keeps the score's
    order). A quarter is the attacker's, a quarter is held out.
    """
    x, digit = data.digits()
    y = (digit != NORMAL).astype(np.int64)
    inside, own, held = data.thirds(len(x), seed)

    def fit(rows: Ints) -> Predict:
        return _calibrated(x[inside[rows]], y[inside[rows]], seed)

    training = Training(inside, fit)
    knows = Knowledge(
        "anomalies", "vector", x.shape[1], 2, x.min(axis=0), x.max(axis=0), x[own].std(axis=0), x[own], y[own]
    )
    secrets = {"train_x": x[inside], "train_y": y[inside]}
    return Victim(training.whole(), "probabilities", knows, x[held], y[held], secrets, training=training)


def _calibrated(x: Floats, y: Ints, seed: int) -> Predict:
    """Return a forest on the normal rows, and its scores as probabilities; two normal rows are the fewest."""
    if (y == 0).sum() < 2:
        return prior_of(y, 2)
    forest: Any = untyped("sklearn.ensemble").IsolationForest(n_estimators=TREES, random_state=seed)
    fitted = trained(forest, x[y == 0])
    trees = [(estimator.tree_, lengths(estimator.tree_)) for estimator in fitted.estimators_]

    def score(rows: Floats) -> Floats:
        # What `-score_samples` gives, without its checks of every tree: a single row takes 1 ms instead of 8.
        single = np.ascontiguousarray(rows, dtype=np.float32)
        total = sum(length[tree.apply(single)] for tree, length in trees)
        mean = total / (len(trees) * expected_length(np.array([fitted.max_samples_]))[0])
        return np.exp2(-mean)[:, None]

    platt: Any = untyped("sklearn.linear_model").LogisticRegression(C=1e4, class_weight="balanced")
    calibrated = classifier_of(platt, score(x), y, 2)
    return lambda rows: calibrated(score(np.asarray(rows, dtype=np.float64)))


def lengths(tree: Any) -> Floats:  # Any: a scikit-learn tree
    """Return for each node how many questions isolate a row that ends there, with those that were not asked."""
    return np.asarray(tree.compute_node_depths() - 1.0 + expected_length(np.asarray(tree.n_node_samples)))


def expected_length(n: Floats | Ints) -> Floats:
    """Return how many random questions isolate one of `n` rows on average.

    Source: Liu, Ting, Zhou, "Isolation Forest", ICDM 2008, equation 1.
    """
    rows = np.maximum(np.asarray(n, dtype=np.float64), 2.0)
    many = 2.0 * (np.log(np.maximum(rows - 1.0, 1.0)) + np.euler_gamma) - 2.0 * (rows - 1.0) / rows
    return np.where(np.asarray(n) <= 1, 0.0, np.where(rows == 2, 1.0, many))


RECIPES: dict[str, Callable[[int], Victim]] = {"anomalies": anomalies}
