"""What model inversion shares: prototypes of classes from a copy, and how close they come to the training data.

An attacker here owns no example of any class: of the attacker's data, inversion takes the mean image and the spread of
each pixel. Who owns labelled examples averages them and needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from guard.selftest.attacks.fit import Linear, cross_entropy, least_squares
from guard.selftest.base import Outcome, Try, Unresolved, World
from guard.selftest.measures import Floats, Measure, bootstrap

SIDE = {64: (8, 8), 784: (28, 28)}
"""Shapes of images by size, for plots."""
RIDGES = (1e-6, 1e-4, 1e-3)
MOST = 1500
"""Rows that a copy is fitted to: more take seconds and change little on 650 unknowns."""


def start(world: World) -> Floats:
    """Return the mean of the attacker's own data, shape (d,).

    Raises:
        Unresolved: there is no class whose training data are known.
    """
    try:
        world.judge.secret("class_means")
    except KeyError as error:
        raise Unresolved("model inversion is measured against class means of the training data") from error
    return cast("Floats", world.knows.own_x).mean(axis=0)


def copies(world: World, x: Floats, y: Floats) -> dict[str, Linear]:
    """Fit softmax regressions to answers, inputs divided by the features' greatest size.

    Args:
        world: gives the ranges.
        x: queries, shape (n, d).
        y: their scores, or labels, shape (n, k).
    """
    if len(x) > MOST:
        kept = world.rng("copies").choice(len(x), MOST, replace=False)
        x, y = x[kept], y[kept]
    rows, labels = x / scale(world), np.eye(y.shape[1])[y.argmax(axis=1)]
    fitted = {f"cross-entropy {ridge:g}": cross_entropy(rows, y, ridge, steps=300) for ridge in RIDGES}
    if (y > 0).all():
        fitted["equations"] = least_squares(rows, y)
    # Scores may mislead (noise, levels) where labels do not.
    return fitted | {f"labels {ridge:g}": cross_entropy(rows, labels, ridge, steps=300) for ridge in RIDGES[1:]}


def scale(world: World) -> float:
    """Return the greatest size that a feature takes."""
    return float(np.maximum(np.abs(world.knows.high), np.abs(world.knows.low)).max())


def ascend(world: World, copy: Linear, steps: int = 20, step: float = 0.05) -> Floats:
    """Return the prototypes of all classes by gradient ascent on a copy's log-confidence, shape (k, d).

    Args:
        world: gives the start and the ranges.
        copy: of inputs divided by `scale`.
        steps: how many.
        step: length of each, as a share of the features' greatest size.
    """
    size, weights = scale(world), copy.weights[:, :-1]
    x = np.tile(start(world) / size, (len(weights), 1))
    for _ in range(steps):
        gradient = weights - copy.probabilities(x) @ weights
        x = x + step * gradient / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-12)
        x = np.clip(x, world.knows.low / size, world.knows.high / size)
    return x * size


def outcome(world: World, found: Mapping[str, Floats], plain: frozenset[str]) -> Outcome:
    """Measure prototypes by how they were found: `correlation` with the class means, both without the overall mean.

    Args:
        world: holds the truth.
        found: shape (k, d) each.
        plain: which are the published attack's.
    """
    means = cast("Floats", world.judge.secret("class_means"))
    centre = cast("Floats", world.judge.secret("train_x")).mean(axis=0)
    tries: list[Try] = []
    for how, prototypes in found.items():
        tries.append(Try(how, {"correlation": _correlation(world, prototypes - centre, means - centre)}, how in plain))
    best = found[Outcome(tries, 0).best("correlation").how]
    size = means.shape[1]
    artefact = {
        "shape": list(SIDE.get(size, (1, size))),
        "recovered": best.tolist(),
        "truth": means.tolist(),
        "classes": list(range(len(means))),
    }
    return Outcome(tries, world.api.asked, artefacts={"prototypes": artefact})


def _correlation(world: World, recovered: Floats, truth: Floats) -> Measure:
    """Return the mean over classes of the correlation, the interval over classes."""
    a = recovered - recovered.mean(axis=1, keepdims=True)
    b = truth - truth.mean(axis=1, keepdims=True)
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    each = (a * b).sum(axis=1) / np.maximum(length, 1e-12)
    return bootstrap(lambda rows: float(each[rows].mean()), len(each), world.rng("bootstrap"))
