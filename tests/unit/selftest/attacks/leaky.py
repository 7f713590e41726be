"""A model for membership tests that learns its members' labels by heart: nothing to train, so tests stay fast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from guard.selftest.base import Knowledge, Rows, World
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import Defend, ModelApi, world

N, SIZE, CLASSES, SHADOWS = 240, 6, 3, 6
RNG = np.random.default_rng(1)
X = np.clip(RNG.normal(size=(N, SIZE)), -3, 3)
WEIGHTS = RNG.normal(size=(SIZE, CLASSES))
Y = np.where(RNG.random(N) < 0.5, RNG.integers(CLASSES, size=N), (X @ WEIGHTS).argmax(axis=1))
MEMBERS = RNG.permutation(N) < N // 2
INSIDE = RNG.random((SHADOWS, N)).argsort(axis=0).argsort(axis=0) < SHADOWS // 2


def model(members: np.ndarray, seed: int = 0) -> Callable[[Rows], Floats]:
    """Return a softmax regression that is surer of its members' recorded labels, and of what lies near them."""
    noise = np.random.default_rng(seed).normal(0, 0.3, WEIGHTS.shape)

    def predict(x: Rows) -> Floats:
        rows = np.asarray(x, dtype=np.float64)
        near = np.exp(-((rows[:, None, :] - X[members][None]) ** 2).sum(axis=2) / 1.0)
        z = 0.7 * rows @ (WEIGHTS + noise) + near @ np.eye(CLASSES)[Y[members]] * 6.0
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    return predict


def victim(**extra: object) -> Victim:
    """Return the model, its candidates known without their membership."""
    known: dict[str, object] = {"candidates_x": X, "candidates_y": Y}
    known |= {"shadows": tuple(f"leaky.shadow{i}" for i in range(SHADOWS)), "shadow_members": INSIDE}
    low, high = np.full(SIZE, -3.0), np.full(SIZE, 3.0)
    knows = Knowledge("leaky", "vector", SIZE, CLASSES, low, high, np.ones(SIZE), X, Y, known | extra)
    return Victim(model(MEMBERS), "probabilities", knows, X, Y, {"members": MEMBERS})


def leaky(defend: Defend | None = None, *, limit: int | None = None, graded: int | None = None) -> World:
    """Return the world around it; the shadows answer through the same defence, without limits."""

    def shadow(name: str) -> ModelApi:
        number = int(name.removeprefix("leaky.shadow"))
        return ModelApi(model(INSIDE[number], number + 1), defend)

    return world(victim(), defend, limit=limit, graded=graded, shadow=shadow)


def labels(x: Rows, scores: Floats) -> Floats:
    """Answer labels."""
    del x
    return np.eye(scores.shape[1])[scores.argmax(axis=1)]


def top(x: Rows, scores: Floats) -> Floats:
    """Answer the winner's score alone, rounded."""
    del x
    return np.where(scores == scores.max(axis=1, keepdims=True), np.round(scores, 1), 0.0)
