"""A profile of simulated clients who ask for rows of numbers, where any will do."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from guard.calibrate.findings import Settings
from guard.calibrate.fit import make_profile
from guard.calibrate.read import ClientLog
from guard.detectors.profile import Profile
from guard.detectors.sketch import Sketch, Sketcher
from guard.model.arrays import Floats
from guard.model.queries import Queries


def softmax(rows: Floats, classes: int) -> Floats:
    """Return the scores of a fixed softmax regression, shape (n, classes)."""
    logits = rows @ np.random.default_rng(7).normal(size=(rows.shape[1], classes)) / np.sqrt(rows.shape[1]) * 3
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def client(rng: np.random.Generator, features: int, rows: int) -> Floats:
    """Return an honest client's rows, shape (rows, features): correlated, around a place of its own, a few repeated."""
    shared = np.random.default_rng(5).normal(size=(8, features))
    found = (rng.normal(size=8) * 0.7 + rng.normal(size=(rows, 8))) @ shared + rng.normal(size=(rows, features))
    again = np.flatnonzero(rng.random(rows) < 0.03)
    found[again] = found[np.maximum(again - 1, 0)]
    return found


@lru_cache
def profile(
    features: int,
    classes: int,
    clients: int = 60,
    rows: int = 1280,
    seed: int = 0,
    answer: Callable[[Floats, int], Floats] = softmax,
) -> Profile:
    """Return a profile of `clients` clients of `rows` rows each, whom `answer` gave their scores."""
    sketch = Sketch(size=features)
    sketcher = Sketcher(sketch, bytes(16))
    logs: list[ClientLog] = []
    for number in range(clients):
        asked = client(np.random.default_rng([seed, number]), features, rows)
        scores = answer(asked, classes)
        two = np.partition(scores, -2, axis=1)[:, -2:]
        logs.append(
            ClientLog(
                pseudonym=f"{number:016x}",
                times=np.arange(rows, dtype=np.float64),
                keys=sketcher.features(Queries(rows, asked.ravel().tolist(), width=features)).keys,
                raw=asked.astype(np.float32),
                margins=two[:, 1] - two[:, 0],
                top=scores.argmax(axis=1),
                scores=scores[::16].astype(np.float32),
            )
        )
    return make_profile("route", sketch, logs, Settings(seed=seed, poisoned="keep"))[0]
