"""Copies of honest clients as they might be elsewhere: shifted features, other light, other lengths of texts.

A null that knows only the clients it was made from takes the first honest stranger for a thief: without such copies
every shifted client of a digits model raised an alarm, with them one in 250. The price is power against weak attacks.

Keys are kept: a shift maps equal queries to equal ones, so what repeats still repeats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from guard.calibrate.read import ClientLog, Singles
from guard.model.arrays import Floats

Way = Literal["vector", "image", "text"]
FEW = 128
"""A feature of at most so many distinct values takes no others."""
_SHARE = 0.25
_ROWS = 50_000


class Shifts:
    """Shifts clients at random.

    Args:
        way: what the sketch is of. `vector`: a quarter of the features is stretched by .75 to 1.3, a quarter moved by
            up to .6 standard deviations, and features of few values snap to one that was seen; `image`: light by .6
            to 1.2, and noise of up to a tenth of the range; `text` (and tokens): a quarter of the n-grams stretched.
        clients: honest ones, with sketches.
        mean: of the sketch, shape (m,).
        scale: likewise.
    """

    def __init__(self, way: Way, clients: Sequence[ClientLog], mean: Floats, scale: Floats) -> None:
        self._way: Way = way
        self._mean, self._scale = mean, scale
        rows = max(1, _ROWS // max(1, len(clients)))
        some = np.concatenate([log.raw[:rows] for log in clients if log.raw is not None])
        self._low, self._high = some.min(axis=0), some.max(axis=0)
        self._seen = [np.unique(column) for column in some.T]

    def shifted(self, log: ClientLog, rng: np.random.Generator) -> ClientLog:
        """Return a client as it might be elsewhere; itself when it has no sketches."""
        if log.raw is None:
            return log
        raw = log.raw.astype(np.float64)
        match self._way:
            case "vector":
                raw = self._moved(raw, rng)
            case "image":
                raw = self._lit(raw, rng)
            case "text":
                raw = raw * _stretch(len(self._mean), rng)
        return dataclasses.replace(log, raw=raw.astype(np.float32))

    def _moved(self, raw: Floats, rng: np.random.Generator) -> Singles:
        m = len(self._mean)
        stretch = _stretch(m, rng)
        move = np.where(rng.random(m) < _SHARE, rng.uniform(-0.6, 0.6, m), 0.0)
        moved = (raw - self._mean) * stretch + move * self._scale + self._mean
        moved = moved.astype(np.float32)
        for j, seen in enumerate(self._seen):
            if len(seen) <= FEW and (stretch[j] != 1.0 or move[j] != 0.0):
                moved[:, j] = _nearest(seen, moved[:, j])
        return moved

    def _lit(self, raw: Floats, rng: np.random.Generator) -> Floats:
        # Of pixels from 0 to 16, the prototypes' digits, noise of up to 1.5.
        spread = float((self._high - self._low).max()) * 1.5 / 16
        noise = np.abs(rng.normal(0.0, rng.uniform(0.0, spread) + 1e-12, raw.shape))
        lit = np.clip(raw * rng.uniform(0.6, 1.2) + noise, self._low, self._high)
        for j, seen in enumerate(self._seen):
            if len(seen) <= FEW:
                lit[:, j] = _nearest(seen, lit[:, j].astype(np.float32))
        return lit


def _stretch(m: int, rng: np.random.Generator) -> Floats:
    return np.where(rng.random(m) < _SHARE, rng.uniform(0.75, 1.3, m), 1.0)


def _nearest(seen: Singles, values: Singles) -> Singles:
    """Return for each value the nearest of those seen, which ascend."""
    above = np.searchsorted(seen, values).clip(1, max(1, len(seen) - 1))
    if len(seen) < 2:
        return np.full_like(values, seen[0])
    low, high = seen[above - 1], seen[above]
    return np.where(values - low <= high - values, low, high)
