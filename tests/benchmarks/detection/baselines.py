"""Two detectors from the literature as references, on the same streams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from guard.evidence.values import WINDOW
from guard.model.arrays import Floats, Ints
from guard.selftest.lab.data import untyped

DELTAS = (0.90, 0.95)
FEWEST = 100
MOST = 1024
"""PRADA keeps and compares all that a client asked; it is run on so many queries."""


def prada(z: Floats, labels: Ints) -> dict[float, int | None]:
    """Run PRADA: are the distances of a client's queries to its earlier ones of the same class normal?

    Args:
        z: queries, shape (n, d).
        labels: the model's labels of them.

    Returns:
        For each threshold of `DELTAS`, the query at which it first alarms, counted from 1; None for never.
    Source: Juuti, Szyller, Marchal and Asokan, "PRADA", IEEE EuroS&P 2019, algorithm 3. Differs: the Shapiro-Wilk
        statistic is looked at every 16 queries.
    """
    z, labels = z[:MOST], labels[:MOST]
    shapiro = untyped("scipy.stats").shapiro
    square = (z * z).sum(axis=1)
    apart = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * z @ z.T, 0))
    kept: dict[int, list[int]] = {}
    grown: dict[int, list[float]] = {}
    limits: dict[int, float] = {}
    nearest = np.zeros(len(z))
    first: dict[float, int | None] = dict.fromkeys(DELTAS)
    for i, label in enumerate(labels.tolist()):
        members = kept.setdefault(label, [])
        distance = float(apart[i, members].min()) if members else 0.0
        nearest[i] = distance
        if not members or distance > limits[label]:
            members.append(i)
            values = grown.setdefault(label, [])
            values.append(distance)
            limits[label] = max(limits.get(label, 0.0), float(np.mean(values) - np.std(values)))
        if i + 1 >= FEWEST and (i + 1) % WINDOW == 0:
            seen = nearest[: i + 1]
            near = seen[np.abs(seen - seen.mean()) <= 3 * seen.std()]
            statistic = float(shapiro(near)[0]) if np.ptp(near) > 0 else 0.0
            for delta in DELTAS:
                if first[delta] is None and statistic < delta:
                    first[delta] = i + 1
    return first


class Mahalanobis(NamedTuple):
    """Distances to honest traffic, averaged over windows of 16 queries, held against one threshold.

    Args:
        mean: shape (d,).
        whitening: shape (d, d).
    """

    mean: Floats
    whitening: Floats

    @classmethod
    def fit(cls, honest: list[Floats], seed: int) -> Mahalanobis:
        """Fit to at most 60 queries a client, with a tenth of shrinkage."""
        rng = np.random.default_rng([seed, 11])
        pooled = np.concatenate([z[rng.integers(len(z), size=60)] for z in honest])
        covariance: Floats = np.atleast_2d(np.cov(pooled.T))
        width = len(covariance)
        shrunken: Floats = 0.9 * covariance + 0.1 * np.eye(width) * np.trace(covariance) / width
        return cls(pooled.mean(axis=0), np.asarray(np.linalg.cholesky(np.linalg.inv(shrunken)), dtype=np.float64))

    def windows(self, z: Floats) -> Floats:
        """Return the mean squared distance of each window, shape (n // 16,)."""
        white = (z - self.mean) @ self.whitening
        squares = (white * white).sum(axis=1)[: len(z) // WINDOW * WINDOW]
        return squares.reshape(-1, WINDOW).mean(axis=1)
