"""Queries where honest ones are thin, whatever the shape of their distribution."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import Blind, Bound, Detector, Features, Past, Reference, Sample
from guard.detectors.reference import Surprisal, balanced, fitting, quantiles, take, vectors_of
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats

FEATURES = 256
BANDWIDTH = 0.35
"""Of the median distance between two honest queries."""
_PAIRS = 2000
_TOLERANCE = 1e-5


class KernelMean(Detector, frozen=True):
    """Measures how little a query resembles honest ones, by a kernel.

    v = -phi(x) . mean of phi over honest queries, with phi(x) = cos(x W + b): 256 random Fourier features of a
    Gaussian kernel whose bandwidth is .35 of the median distance between honest queries. `kernel_mean` is the surprisal
    of v among honest queries; `kernel_mean.extreme` says whether only one in 200 is as surprising.

    Moves it: Gaussian queries, independent marginals, uniform queries, steps into the gaps between clusters.
    Cannot see: queries from the honest distribution; in many dimensions, where all queries are far from each other,
    it has little to say about single ones. Shifted clients move it too.

    Source: Gretton et al., JMLR 2012 (the witness function of the maximum mean discrepancy); Rahimi and Recht, NIPS
    2007 (the features).

    >>> honest = Features(np.zeros((300, 9), dtype=np.uint32), np.random.default_rng(0).normal(size=(300, 2)), True)
    >>> detector = KernelMean()
    >>> bound = detector.bind(detector.learn(Sample([honest] * 40, [None] * 40, 0)), 2, b"")
    >>> asked = Features(np.zeros((2, 9), dtype=np.uint32), np.array([[0.1, -0.2], [4.0, -4.0]]), True)
    >>> bound.measure(asked, np.zeros(2, dtype=bool), np.zeros((2, 0), dtype=bool), Past())[:, 0] > [2, 2]
    array([False,  True])
    """

    tier: ClassVar[Tier] = "distribution"
    names: ClassVar[tuple[str, ...]] = ("kernel_mean", "kernel_mean.extreme")
    profiled: ClassVar[bool] = True
    scaled: ClassVar[bool] = True

    kind: Literal["kernel_mean"] = "kernel_mean"

    def learn(self, sample: Sample) -> Reference:
        """Average the features of honest queries, clients weighted alike."""
        rows = balanced(vectors_of(sample), sample.seed)
        rng = np.random.Generator(np.random.PCG64(sample.seed))
        left, right = rng.integers(len(rows), size=(2, _PAIRS))
        median = float(np.median(np.linalg.norm(rows[left] - rows[right], axis=1)))
        weights = rng.standard_normal((rows.shape[1], FEATURES)) / (BANDWIDTH * max(median, 1e-6))
        phases = rng.random(FEATURES) * 2 * np.pi
        kernel = _Kernel(weights, phases, np.zeros(FEATURES), np.zeros(1))
        # In pieces: the features of all rows at once would take 60 MB.
        mean = np.mean([kernel.features(part).mean(axis=0) for part in np.array_split(rows, 20)], axis=0)
        values = [_Kernel(weights, phases, mean, np.zeros(1)).values(part) for part in np.array_split(rows, 20)]
        return {
            "weights": weights.astype(np.float32),
            "phases": phases.astype(np.float32),
            "mean": np.asarray(mean, dtype=np.float32),
            "values": quantiles(np.concatenate(values)),
        }

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure vectors of `width` numbers."""
        del salt
        return _Kernel(
            take(reference, "weights", width, FEATURES),
            take(reference, "phases", FEATURES),
            take(reference, "mean", FEATURES),
            take(reference, "values", -1),
        )


class _Kernel(Blind):
    """In single precision: cosines take a fifth of the time, and surprisals are told apart far more coarsely."""

    def __init__(self, weights: Floats, phases: Floats, mean: Floats, values: Floats) -> None:
        self._weights = weights.astype(np.float32)
        self._phases = phases.astype(np.float32)
        self._mean = -mean.astype(np.float32)
        self._surprisal = Surprisal(values, _TOLERANCE)

    def features(self, vectors: Floats) -> np.ndarray:
        """Return phi, shape (n, m) -> (n, FEATURES), float32."""
        found = np.dot(vectors.astype(np.float32), self._weights)
        found += self._phases
        return np.cos(found, out=found)

    def values(self, vectors: Floats) -> Floats:
        """Return -phi . mean, shape (n, m) -> (n,)."""
        return np.dot(self.features(vectors), self._mean).astype(np.float64)

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del seen, hits, past
        vectors = fitting(features, len(self._weights))
        return np.zeros((len(features.keys), 2)) if vectors is None else self._surprisal.signals(self.values(vectors))
