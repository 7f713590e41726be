"""Queries far from where honest ones lie, in units of how those spread."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import Blind, Bound, Detector, Features, Past, Reference, Sample
from guard.detectors.reference import Surprisal, balanced, fitting, quantiles, take, vectors_of, whitening
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats


class Mahalanobis(Detector, frozen=True):
    """Measures the surprisal of a query's distance from honest queries' mean.

    v = |L'(x - mu)|^2, with L L' the inverse of the covariance, shrunk by 10% towards its mean variance; the signal
    is the surprisal of v among honest queries.

    Moves it: uniform and large random queries, features that break honest correlations, adversarial noise in directions
    honest data do not use. Cannot see: queries at ordinary distances, such as those near the mean or from the honest
    distribution; small steps around honest queries.

    Source: Mahalanobis, 1936; shrinkage of Ledoit and Wolf, 2004, with a fixed share in place of an estimated one.

    >>> honest = Features(np.zeros((300, 9), dtype=np.uint32), np.random.default_rng(0).normal(size=(300, 2)), True)
    >>> detector = Mahalanobis()
    >>> bound = detector.bind(detector.learn(Sample([honest] * 40, [None] * 40, 0)), 2, b"")
    >>> asked = Features(np.zeros((2, 9), dtype=np.uint32), np.array([[0.1, -0.2], [9.0, 9.0]]), True)
    >>> bound.measure(asked, np.zeros(2, dtype=bool), np.zeros((2, 0), dtype=bool), Past()).ravel() > [2, 5]
    array([False,  True])
    """

    tier: ClassVar[Tier] = "distribution"
    names: ClassVar[tuple[str, ...]] = ("mahalanobis",)
    profiled: ClassVar[bool] = True
    scaled: ClassVar[bool] = True

    kind: Literal["mahalanobis"] = "mahalanobis"

    def learn(self, sample: Sample) -> Reference:
        """Estimate mean and covariance, clients weighted alike."""
        rows = balanced(vectors_of(sample), sample.seed)
        mean, factor = rows.mean(axis=0), whitening(rows)
        return {"mean": mean, "factor": factor, "values": quantiles(lengths((rows - mean) @ factor))}

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure vectors of `width` numbers."""
        del salt
        mean, factor = take(reference, "mean", width), take(reference, "factor", width, width)
        return _Distance(mean, factor, take(reference, "values", -1))


class _Distance(Blind):
    def __init__(self, mean: Floats, factor: Floats, values: Floats) -> None:
        self._factor = factor
        self._offset = mean @ factor
        self._surprisal = Surprisal(values)

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del seen, hits, past
        vectors = fitting(features, len(self._offset))
        if vectors is None:
            return np.zeros((len(features.keys), 1))
        found = np.dot(vectors, self._factor)
        found -= self._offset
        return self._surprisal.signal(lengths(found))


def lengths(rows: Floats) -> Floats:
    """Return squared lengths of rows, shape (n, m) -> (n,)."""
    if len(rows) == 1:
        return np.array((np.dot(rows[0], rows[0]),))
    return np.einsum("ij,ij->i", rows, rows)
