"""Queries far from what the same client asked before."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import Blind, Bound, Detector, Features, Past, Reference, Sample
from guard.detectors.mahalanobis import lengths
from guard.detectors.reference import Surprisal, balanced, fitting, quantiles, take, vectors_of, whitening
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats

WEIGHT = 16.0
"""Queries that everybody's mean counts for beside a client's own."""
_ROWS, _LAST = 200, 60


class OffPast(Detector, frozen=True):
    """Measures the surprisal of a query's distance from the mean of the same client's earlier queries.

    v = |L'(x - c)|^2 with c = (sum of past + 16 mu)/(n + 16): a client's own mean, shrunk towards everybody's; L L' the
    inverse covariance of such differences, shrunk by 10%. The signal is the surprisal of v among honest clients'
    differences after they have asked some queries.

    Moves it: a client of narrow interests who begins to ask all over the domain, an account that changes hands.
    Cannot see: attacks that stay near a client's own past, such as searches around its own queries; a new client's
    attack looks as it does to `mahalanobis`. Honest clients who change what they do move it too, so it is held against
    all clients' past and never against a threshold of its own.

    Source: James and Stein, 1961, for the shrunken mean; Mahalanobis, 1936.

    >>> honest = Features(np.zeros((300, 9), dtype=np.uint32), np.random.default_rng(0).normal(size=(300, 2)), True)
    >>> detector = OffPast()
    >>> bound = detector.bind(detector.learn(Sample([honest] * 40, [None] * 40, 0)), 2, b"")
    >>> asked = Features(np.zeros((2, 9), dtype=np.uint32), np.array([[3.1, 3.0], [-3.0, -3.0]]), True)
    >>> past = Past(1000, np.array([3000.0, 3000.0]))
    >>> bound.measure(asked, np.zeros(2, dtype=bool), np.zeros((2, 0), dtype=bool), past).ravel() > [1, 5]
    array([False,  True])
    """

    tier: ClassVar[Tier] = "distribution"
    names: ClassVar[tuple[str, ...]] = ("off_past",)
    profiled: ClassVar[bool] = True
    scaled: ClassVar[bool] = True

    kind: Literal["off_past"] = "off_past"

    def learn(self, sample: Sample) -> Reference:
        """Estimate the covariance of honest differences, from the last 60 of each client's first 200 queries."""
        clients = vectors_of(sample)
        mean = balanced(clients, sample.seed).mean(axis=0)
        start = mean * WEIGHT
        away = balanced(
            [(rows[:_ROWS] - _centres(rows[:_ROWS], Past(), start))[-_LAST:] for rows in clients], sample.seed
        )
        factor = whitening(away)
        return {"mean": mean, "factor": factor, "values": quantiles(lengths(away @ factor))}

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure vectors of `width` numbers."""
        del salt
        mean, factor = take(reference, "mean", width), take(reference, "factor", width, width)
        return _Away(mean, factor, take(reference, "values", -1))


class _Away(Blind):
    def __init__(self, mean: Floats, factor: Floats, values: Floats) -> None:
        self._start = mean * WEIGHT
        self._factor = factor
        self._surprisal = Surprisal(values)

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del seen, hits
        vectors = fitting(features, len(self._start))
        if vectors is None:
            return np.zeros((len(features.keys), 1))
        found = np.dot(vectors - _centres(vectors, past, self._start), self._factor)
        return self._surprisal.signal(lengths(found))


def _centres(vectors: Floats, past: Past, start: Floats) -> Floats:
    """Return each row's shrunken mean of the queries before it, shape (n, m); `start` is 16 mu, shape (m,)."""
    total, seen = start, 0
    if past.total.size == start.size:
        total, seen = total + past.total, past.seen
    if len(vectors) == 1:
        return total[None] / (seen + WEIGHT)
    sums = np.empty_like(vectors)
    sums[0] = total
    sums[1:] = vectors[:-1]
    return sums.cumsum(axis=0) / (np.arange(len(vectors))[:, None] + (seen + WEIGHT))
