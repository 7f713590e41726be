"""Models that add noise themselves, in the three ways that do not hold: what the averaging attack has to see through.

Gaussian noise of .05 on every score, clipped and renormalised, the top class kept. `fresh` draws it anew for every
answer; `exact` draws it from the query's bytes, so that repeats agree; `feature_cell` from the query's cell in a grid
of .25 standard deviations a feature, so that nearby queries agree until one feature crosses into the next cell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from guard.selftest.lab import classifiers
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim
from guard.selftest.measures import Floats

KINDS = ("fresh", "exact", "feature_cell")
_SCALE = 0.05
_CELL = 0.25
_LEAST = 1e-6


def noisy(model: Victim, kind: str, seed: int) -> Victim:
    """Return a model that answers as another does, with noise.

    Args:
        model: the other one.
        kind: one of `KINDS`.
        seed: of the noise.

    Raises:
        KeyError: no such kind.
    """
    if kind not in KINDS:
        raise KeyError(kind)
    noise = Noise(kind, model.knows.std, seed)

    def noised(predict: Predict) -> Predict:
        return lambda rows: noise(cast("Floats", rows), predict(rows))

    clean, knows = model.training, replace(model.knows, name=f"{model.knows.name}.{kind}")
    training = None if clean is None else Training(clean.ids, lambda rows: noised(clean.fit(rows)))
    return replace(model, predict=noised(model.predict), knows=knows, training=training)


class Noise:
    """Adds noise to scores.

    Args:
        kind: one of `KINDS`.
        std: of each feature, shape (d,).
        seed: of the noise.
    """

    def __init__(self, kind: str, std: Floats, seed: int) -> None:
        self._kind = kind
        self._rng = np.random.default_rng([seed, 3])
        self._secret = self._rng.bytes(16)
        self._width = _CELL * np.maximum(std, 1e-9)
        self._offset = self._rng.random(len(std))

    def __call__(self, x: Floats, scores: Floats) -> Floats:
        """Return the scores of rows `x`, shape (n, k), with noise."""
        noise = untyped("scipy.special").ndtri(self._uniform(np.asarray(x, dtype=np.float64), scores.shape))
        found = np.clip(scores + _SCALE * noise, _LEAST, None)
        rows, top = np.arange(len(scores)), scores.argmax(axis=1)
        first = found.argmax(axis=1)
        found[rows, first], found[rows, top] = found[rows, top], found[rows, first]
        return np.asarray(found / found.sum(axis=1, keepdims=True), dtype=np.float64)

    def _uniform(self, x: Floats, shape: tuple[int, ...]) -> Floats:
        if self._kind == "fresh":
            return self._rng.random(shape) * (1 - 2e-12) + 1e-12
        keys = x if self._kind == "exact" else np.floor(x / self._width + self._offset)
        words = [hashlib.shake_256(self._secret + row.tobytes()).digest(8 * shape[1]) for row in keys]
        return (np.frombuffer(b"".join(words), dtype="<u8").reshape(shape) + 0.5) / 2.0**64


def _variant(name: str) -> Callable[[int, str], Victim]:
    return lambda seed, kind: noisy(classifiers.RECIPES[name](seed), kind, seed)


RECIPES: dict[str, Callable[[int], Victim]] = {}
VARIANTS: dict[str, Callable[[int, str], Victim]] = {name: _variant(name) for name in classifiers.RECIPES}
