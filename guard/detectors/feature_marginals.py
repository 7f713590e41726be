"""Features whose values honest clients seldom send."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import Blind, Bound, Detector, Features, Past, Reference, Sample
from guard.detectors.reference import Surprisal, balanced, fitting, quantiles, take, vectors_of
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats, Ints

BINS = 32
"""Between the quantiles .001 and .999 of a feature; one more on either side."""
_MARGIN = 1e-6
_FIRST, _LAST = np.array(0.0), np.array(BINS + 1.0)


class FeatureMarginals(Detector, frozen=True):
    """Measures how surprising a query's features are, each by itself.

    v = sum over features of -ln p_j(bin of x_j), over 32 bins and one outside on either side, with half a count added
    to each. `feature_marginals` is the surprisal of v among honest queries; `feature_marginals.extreme` says whether
    only one in 200 is as surprising.

    Moves it: uniform or Gaussian queries, equation solving, boundary searches that leave the data, path finding in
    trees. Cannot see: queries whose features are each drawn as honest ones are, whatever their dependence
    (`mahalanobis` and `kernel_mean` are for that), and queries from the honest distribution itself. Shifted clients
    move it too, so it may degrade and never deny.

    Source: a naive Bayes density with histograms (Goldstein and Dengel, KI 2012, HBOS).

    >>> honest = Features(np.zeros((300, 9), dtype=np.uint32), np.random.default_rng(0).normal(size=(300, 2)), True)
    >>> detector = FeatureMarginals()
    >>> bound = detector.bind(detector.learn(Sample([honest] * 40, [None] * 40, 0)), 2, b"")
    >>> asked = Features(np.zeros((2, 9), dtype=np.uint32), np.array([[0.1, -0.2], [9.0, 9.0]]), True)
    >>> bound.measure(asked, np.zeros(2, dtype=bool), np.zeros((2, 0), dtype=bool), Past())[:, 1]
    array([0., 1.])
    """

    tier: ClassVar[Tier] = "distribution"
    names: ClassVar[tuple[str, ...]] = ("feature_marginals", "feature_marginals.extreme")
    profiled: ClassVar[bool] = True
    scaled: ClassVar[bool] = True

    kind: Literal["feature_marginals"] = "feature_marginals"

    def learn(self, sample: Sample) -> Reference:
        """Count bins of each feature, clients weighted alike."""
        rows = balanced(vectors_of(sample), sample.seed)
        low, high = np.quantile(rows, (0.001, 0.999), axis=0)
        # A margin keeps the honest value of a constant feature inside.
        low, high = low - _MARGIN, high + _MARGIN
        bins = _bins(rows, BINS / (high - low), 1 - low * BINS / (high - low))
        counts = np.stack([np.bincount(column, minlength=BINS + 2) for column in bins.T]) + 0.5
        costs = -np.log(counts / counts.sum(axis=1, keepdims=True))
        values = _Marginals(low, high, costs, np.zeros(1)).values(rows)
        return {"low": low, "high": high, "costs": costs, "values": quantiles(values)}

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure vectors of `width` numbers."""
        del salt
        low, high = take(reference, "low", width), take(reference, "high", width)
        if (low >= high).any():
            raise ValueError("low must be below high")
        return _Marginals(low, high, take(reference, "costs", width, BINS + 2), take(reference, "values", -1))


class _Marginals(Blind):
    def __init__(self, low: Floats, high: Floats, costs: Floats, values: Floats) -> None:
        self._factor = BINS / (high - low)
        self._offset = 1 - low * self._factor
        self._costs = costs.ravel()
        self._first: Ints = np.arange(len(low)) * (BINS + 2)
        self._surprisal = Surprisal(values)

    def values(self, vectors: Floats) -> Floats:
        """Return -ln of the product of the marginals, shape (n, m) -> (n,)."""
        bins = _bins(vectors, self._factor, self._offset)
        bins += self._first
        return np.add.reduce(self._costs[bins], axis=1)

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del seen, hits, past
        vectors = fitting(features, len(self._first))
        return np.zeros((len(features.keys), 2)) if vectors is None else self._surprisal.signals(self.values(vectors))


def _bins(vectors: Floats, factor: Floats, offset: Floats) -> Ints:
    """Return each number's bin, 0 to BINS + 1."""
    places = vectors * factor
    places += offset
    np.maximum(places, _FIRST, out=places)
    np.minimum(places, _LAST, out=places)
    return places.astype(np.int64)
