"""The floor of all copying: an attacker who asks nothing, labels data of their own and trains a model on them.

No defence of answers keeps a copy further away than this one is, so the figures of other attackers are read beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np

from guard.selftest.api import one_hot
from guard.selftest.attacks.equation_solving import scale_of, unscaled
from guard.selftest.attacks.extraction import measure
from guard.selftest.attacks.fit import Linear, cross_entropy
from guard.selftest.attacks.guesses import unasked
from guard.selftest.attacks.network import fit_network
from guard.selftest.attacks.text_copy import fit_text, presence, words_of
from guard.selftest.base import Outcome, Try, Unresolved, World
from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats, exact, fidelity

RIDGES = (1e-5, 1e-4, 5e-4, 2e-3)
HIDDEN, EPOCHS = 64, 200
DEPTHS = (4, 8)

Model = Callable[[Floats], Floats]
"""Inputs, shape (n, d) -> probabilities, shape (n, k)."""


def zero_query(world: World) -> Outcome:
    """Train every kind of model on the attacker's own labels; the best counts, chosen by who measures.

    Against models of people with a sensitive answer the floor is what one guesses without asking.

    Raises:
        Unresolved: the attacker has no labels, or the model answers values.
    """
    knows = world.knows
    if "targets_x" in knows.extra:  # people, about whom one guesses: there is nothing to copy
        return unasked(world)
    if knows.own_y is None:
        raise Unresolved("the attacker has no labels of their own data")
    if knows.classes < 2:
        raise Unresolved("a copy is measured by its probabilities, and this model answers values")
    labels = one_hot(np.asarray(knows.own_y, dtype=np.float64), knows.classes)
    tries = _texts(world, labels) if knows.kind == "text" else _vectors(world, labels)
    return Outcome(tries, 0, notes=("Nothing was asked: models are trained on data that the attacker labelled.",))


def _texts(world: World, labels: Floats) -> list[Try]:
    own, test = cast("Sequence[str]", world.knows.own_x), cast("Sequence[str]", world.judge.test_x)
    words = sorted({word for text in own for word in words_of(text)})
    column = {word: i for i, word in enumerate(words)}
    features, truth = presence(own, column), world.judge.truth(test)
    tries: list[Try] = []
    for ridge in RIDGES:
        copy = fit_text(features, labels, column, ridge)
        measures = fidelity(copy.probabilities(test), truth, world.rng("bootstrap"))
        tries.append(Try(f"own labels, regression on words {ridge:g}", measures))
    return tries


def _vectors(world: World, labels: Floats) -> list[Try]:
    own, scale = cast("Floats", world.knows.own_x), scale_of(world.knows)
    tries: list[Try] = []
    for ridge in RIDGES:
        copy = cross_entropy(own / scale, labels, ridge)
        measures = measure(world, unscaled(copy, scale))
        with suppress(KeyError, Unresolved):
            measures["cosine"] = exact(_cosine(copy, world))
        tries.append(Try(f"own labels, regression {ridge:g}", measures))
    for how, model in _others(world, own, labels):
        tries.append(Try(f"own labels, {how}", measure(world, model)))
    return tries


def _others(world: World, own: Floats, labels: Floats) -> list[tuple[str, Model]]:
    """Return a network and trees by what they are."""
    std = np.maximum(world.knows.std, 1e-9)
    network = fit_network(own / std, labels, HIDDEN, EPOCHS, world.rng("network"), decay=0.02)
    found: list[tuple[str, Model]] = [("network", lambda x: network.probabilities(x / std))]
    for depth in DEPTHS:
        found.append((f"tree of depth {depth}", _tree(own, labels, depth, world.seed)))
    return found


def _tree(own: Floats, labels: Floats, depth: int, seed: int) -> Model:
    # Shares of one-hot labels in a leaf are the classes' shares, whichever classes the data have.
    regressor: Any = untyped("sklearn.tree").DecisionTreeRegressor(
        max_depth=depth, min_samples_leaf=5, random_state=seed
    )  # Any: scikit-learn estimators have no types
    tree = regressor.fit(own, labels)
    return lambda x: np.asarray(tree.predict(x), dtype=np.float64).reshape(len(x), -1)


def _cosine(copy: Linear, world: World) -> float:
    """Return the cosine between the copy's weights and the model's, for models with one vector of weights.

    Raises:
        KeyError: the model has none.
    """
    true = np.asarray(world.judge.secret("weights"), dtype=np.float64).ravel()
    if world.knows.classes != 2 or len(true) != world.knows.size:
        raise KeyError("weights")
    found = np.diff(copy.weights[:, :-1], axis=0)[0]
    length = float(np.linalg.norm(found) * np.linalg.norm(true))
    return float(found @ true) / length if length else 0.0
