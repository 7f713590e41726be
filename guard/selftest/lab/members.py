"""Models that overfit, for membership inference: a forest and a network on digits, a fifth of the labels drawn anew.

900 images are candidates: half of them, drawn at random, are the training data. An attacker knows all candidates with
the labels as they are recorded, noise and all, and not which half. Labels that are wrong can only be learnt by heart,
which is what makes such a model leak. The other images are split between the attacker and held-out data.

Shadows are the same recipe on other random halves of the candidates, drawn so that each candidate is in half of them:
the attacker trains them, so that their members are known to the attacker (`shadow_members`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab import data
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of
from guard.selftest.measures import Floats, Ints

CLASSES = 10
CANDIDATES = 900
NOISE = 0.2
SHADOWS = {"digits_forest": 12, "digits_overfit_mlp": 8}


class Flat:
    """A fitted forest as arrays, so that a few rows are answered in a fraction of a millisecond.

    Args:
        forest: a fitted `RandomForestClassifier`. Its own `predict_proba` gives the same numbers.
    """

    def __init__(self, forest: Any) -> None:  # Any: scikit-learn estimators have no types
        trees = [estimator.tree_ for estimator in forest.estimators_]
        starts = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        self.roots = starts
        # A leaf's children are the leaf itself, so that all paths are walked for as long as the deepest.
        placed = list(zip(trees, starts, strict=True))
        self.left = np.concatenate([_children(tree.children_left, start) for tree, start in placed])
        self.right = np.concatenate([_children(tree.children_right, start) for tree, start in placed])
        self.feature = np.maximum(np.concatenate([tree.feature for tree in trees]), 0)
        self.threshold = np.concatenate([tree.threshold for tree in trees])
        values = np.concatenate([tree.value[:, 0, :] for tree in trees])
        self.values = values / values.sum(axis=1, keepdims=True)
        self.depth = max(tree.max_depth for tree in trees)

    def probabilities(self, x: Floats) -> Floats:
        """Return the mean of the trees' leaves, shape (n, k)."""
        single = x.astype(np.float32)
        rows = np.arange(len(x))[:, None]
        nodes = np.tile(self.roots, (len(x), 1))
        for _ in range(self.depth):
            below = single[rows, self.feature[nodes]] <= self.threshold[nodes]
            nodes = np.where(below, self.left[nodes], self.right[nodes])
        return self.values[nodes].mean(axis=1)


def _children(children: Ints, start: int) -> Ints:
    return np.where(children < 0, np.arange(len(children)), children) + start


@lru_cache(maxsize=8)
def records(seed: int) -> tuple[Floats, Ints, Ints, Ints]:
    """Return all images, their recorded labels, their true ones, and their order: the first 900 are candidates."""
    x, y = data.digits()
    rng = np.random.default_rng([seed, 6])
    noisy = np.where(rng.random(len(y)) < NOISE, rng.integers(10, size=len(y)), y)
    return x, noisy, y, rng.permutation(len(y))


def members(seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Say which candidates are the model's training data: a random half. Known to the owner alone."""
    chosen = np.zeros(CANDIDATES, dtype=bool)
    chosen[np.random.default_rng([seed, 7]).permutation(CANDIDATES)[: CANDIDATES // 2]] = True
    return chosen


def shadow_members(seed: int, shadows: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Say which candidates train each of the attacker's models: each candidate trains half of them, shape (s, n)."""
    drawn = np.random.default_rng([seed, 8]).random((shadows, CANDIDATES))
    return drawn.argsort(axis=0).argsort(axis=0) < shadows // 2


def build(name: str, seed: int, shadow: int | None = None) -> Victim:
    """Return a victim, or one of the attacker's own models of the same recipe.

    Args:
        name: `digits_forest` or `digits_overfit_mlp`.
        seed: of everything.
        shadow: the number of the attacker's model.

    Raises:
        KeyError: there is no such shadow.
    """
    if shadow is not None and not 0 <= shadow < SHADOWS[name]:
        raise KeyError(f"{name}.shadow{shadow}")
    x, recorded, true, order = records(seed)
    candidates, rest = order[:CANDIDATES], order[CANDIDATES:]
    own, held = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    masks = shadow_members(seed, SHADOWS[name])
    secret = members(seed) if shadow is None else masks[shadow]
    inside = candidates[secret]
    number = seed if shadow is None else 1000 * (seed + 1) + shadow
    training = Training(inside, lambda rows: FITS[name](x[inside[rows]], recorded[inside[rows]], number))
    knows = Knowledge(
        name, "vector", 64, 10, x.min(axis=0), x.max(axis=0), x[own].std(axis=0), x[own], true[own],
        {
            "candidates_x": x[candidates],
            "candidates_y": recorded[candidates],
            "shadows": tuple(f"{name}.shadow{i}" for i in range(SHADOWS[name])),
            "shadow_members": masks,
        },
    )  # fmt: skip
    secrets = {"members": secret, "train_x": x[inside], "train_y": recorded[inside]}
    return Victim(training.whole(), "probabilities", knows, x[held], true[held], secrets, training=training)


def _forest(x: Floats, y: Ints, number: int) -> Predict:
    model = untyped("sklearn.ensemble").RandomForestClassifier(60, random_state=number, n_jobs=1)
    return classifier_of(model, x, y, CLASSES, lambda fitted: Flat(fitted).probabilities)


def _network(x: Floats, y: Ints, number: int) -> Predict:
    # About 600 epochs, until the wrong labels are learnt by heart too; the limit is never reached.
    model = untyped("sklearn.neural_network").MLPClassifier(
        (128,), alpha=1e-6, learning_rate_init=3e-3, max_iter=2000, random_state=number
    )
    predict = classifier_of(model, x / 16.0, y, CLASSES)
    return lambda rows: predict(np.asarray(rows) / 16.0)


FITS: dict[str, Callable[[Floats, Ints, int], Predict]] = {"digits_forest": _forest, "digits_overfit_mlp": _network}


def _recipe(name: str) -> Callable[[int], Victim]:
    return lambda seed: build(name, seed)


def _variant(name: str) -> Callable[[int, str], Victim]:
    def variant(seed: int, suffix: str) -> Victim:
        number = suffix.removeprefix("shadow")
        if number == suffix or not number.isdigit():
            raise KeyError(f"{name}.{suffix}")
        return build(name, seed, int(number))

    return variant


RECIPES: dict[str, Callable[[int], Victim]] = {name: _recipe(name) for name in SHADOWS}
VARIANTS: dict[str, Callable[[int, str], Victim]] = {name: _variant(name) for name in SHADOWS}
