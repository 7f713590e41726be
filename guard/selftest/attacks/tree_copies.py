"""The plain attack beside every clever one on trees: ask about likely rows, and train a tree on the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from guard.selftest.attacks.extraction import tried
from guard.selftest.attacks.harvest import harvest
from guard.selftest.base import Knowledge, Refused, Try, World
from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats

Predict = Callable[[Floats], Floats]


def crossed(knows: Knowledge, n: int, rng: np.random.Generator) -> Floats:
    """Return rows, shape (n, d), that mix the attacker's own two by two: each feature from either of two rows."""
    own = cast("Floats", knows.own_x)
    one, other = own[rng.integers(len(own), size=n)], own[rng.integers(len(own), size=n)]
    return np.where(rng.random(one.shape) < 0.5, one, other)


def tree_on(x: Floats, y: Floats, seed: int) -> Predict:
    """Train a tree on questions, shape (n, d), and answers, shape (n, k); returns its scores."""
    model: Any = untyped("sklearn.tree").DecisionTreeRegressor(random_state=seed)  # Any: scikit-learn has no types
    model.fit(x, y)
    return lambda z: np.asarray(model.predict(z), dtype=np.float64)


def with_outcomes(knows: Knowledge, copy: Predict, seed: int) -> Predict | None:
    """Return a copy's decisions with probabilities that the attacker's own labelled rows teach a forest.

    Where answers are labels, a copy knows decisions and no probabilities; the attacker's own data know some. Where the
    forest would decide otherwise, the copy's class is raised to just above the forest's.

    Args:
        knows: the attacker's data.
        copy: a copy.
        seed: of the forest.

    Returns:
        None when the attacker has no labels, or has not seen every class.
    """
    labels = knows.own_y
    if labels is None or len(np.unique(labels)) < knows.classes:
        return None
    own = cast("Floats", knows.own_x)
    model: Any = untyped("sklearn.ensemble").RandomForestClassifier(  # Any: scikit-learn has no types
        100, min_samples_leaf=5, random_state=seed
    )
    model.fit(np.concatenate((own, copy(own)), axis=1), labels)

    def probabilities(z: Floats) -> Floats:
        said = copy(z)
        found = np.asarray(model.predict_proba(np.concatenate((z, said), axis=1)), dtype=np.float64)
        rows, top = np.arange(len(z)), said.argmax(axis=1)
        found[rows, top] = np.where(found.argmax(axis=1) == top, found[rows, top], found.max(axis=1) + 1e-6)
        return found / found.sum(axis=1, keepdims=True)

    return probabilities


def retrained(world: World, queries: int) -> list[Try]:
    """Return what an attacker gets who retrains, with an account and as many queries of its own; empty when refused."""
    apart = replace(world, api=world.account(1))
    try:
        asked, y = harvest(apart.api, crossed(world.knows, queries, world.rng("crossed")), world.knows.classes)
    except Refused:
        return []
    copy = tree_on(cast("Floats", asked), y, world.seed)
    copies = {"retrained on crossed rows": copy}
    if (other := with_outcomes(world.knows, copy, world.seed)) is not None:
        copies["retrained on crossed rows, with outcomes of its own"] = other
    return tried(apart, copies, set())
