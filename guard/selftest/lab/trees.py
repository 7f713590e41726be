"""Decision trees to copy, which also answer queries with features left out, as BigML's did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from guard.selftest.base import Rows
from guard.selftest.lab import data
from guard.selftest.lab.classifiers import classifier
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of, trained
from guard.selftest.measures import Floats, Ints


def affairs(seed: int) -> Victim:
    """A tree of depth 8 on Fair's survey: was an affair had? A feature left out is NaN."""
    x, y, _ = data.affairs()
    estimator: Any = untyped("sklearn.tree").DecisionTreeClassifier(
        max_depth=8, min_samples_leaf=5, random_state=seed
    )  # Any: scikit-learn estimators have no types
    inside, _, _ = data.thirds(len(x), seed)
    tree = trained(estimator, x[inside], y[inside]).tree_
    whole = classifier("affairs", estimator, x, y, seed)

    def fit(rows: Ints) -> Predict:
        chosen = inside[rows]
        return classifier_of(estimator, x[chosen], y[chosen], 2, lambda fitted: partial(fitted.tree_))

    secrets = {**whole.secrets, "leaves": int(tree.n_leaves)}
    return replace(whole, predict=partial(tree), partial=True, secrets=secrets, training=Training(inside, fit))


def partial(tree: Any) -> Callable[[Rows], Floats]:  # Any: scikit-learn's `Tree`
    """Return a function that walks rows down a tree, and answers the class shares of the node where each ends.

    A row ends at a leaf, or earlier: at the first node that splits on a feature that the row leaves out (NaN).
    Source: Tramer et al., USENIX Security 2016, section 4.2, on BigML's trees.

    Args:
        tree: a fitted classifier's `tree_`.
    """
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    threshold = tree.threshold
    shares = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)

    def predict(rows: Rows) -> Floats:
        x = np.asarray(cast("Floats", rows), dtype=np.float32)  # as scikit-learn compares
        node = np.zeros(len(x), dtype=np.int64)
        going = np.arange(len(x))
        while len(going):
            here = node[going]
            value = x[going, np.maximum(feature[here], 0)]
            further = (left[here] != right[here]) & ~np.isnan(value)
            going, here, value = going[further], here[further], value[further]
            node[going] = np.where(value <= threshold[here], left[here], right[here])
        return np.asarray(shares[node], dtype=np.float64)

    return predict


RECIPES: dict[str, Callable[[int], Victim]] = {"affairs": affairs}
