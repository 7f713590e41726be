"""Queries close to an earlier one."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar, Literal

import numpy as np
from numpy import typing as npt

from guard.detectors.base import HORIZON, Blind, Bound, Detector, Features, Keys, Past, Reference, Sample
from guard.detectors.index import Index
from guard.detectors.reference import fitting, take
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats

TABLES, PROJECTIONS = 4, 6
TARGETS = (0.03, 0.003)
"""Shares of honest queries that hit, coarse and fine."""
_CLIENTS, _ROWS, _HALVINGS = 60, HORIZON, 14
_LEAST, _MOST = 1e-3, 50.0
_DEFAULT = (0.1, 0.02)
"""Widths without a profile, in standard deviations of the declared domain, times the square root of m."""


class NearDuplicates(Detector, frozen=True):
    """Measures whether a query lies close to one of the client's last 512 without repeating it: 1 or 0, twice.

    Locality-sensitive hashing: 4 tables; in each, 6 salted Gaussian projections cut into cells of width w. A hit is an
    earlier query in the same cell in at least 2 of 4 tables, in a row that is no repeat. Widths are set so that 3%
    (`near_duplicates`) and .3% (`near_duplicates.fine`) of pooled honest queries hit. Without a profile, on a declared
    domain, they are .1 and .02 standard deviations of a uniform feature, times the square root of their number.

    Moves it: HopSkipJump, NES, Square and other searches near a point, finite differences, JBDA, jittered membership
    tests. Cannot see: queries drawn afresh, steps larger than honest queries are apart, neighbours more than 512
    queries apart, rows without vectors. Clients whose queries are alike by nature move it too.

    Source: Datar et al., SCG 2004 (the hash); Chen, Carlini and Wagner, 2019, stateful detection (nearness to past
    queries). Differs: hashes in place of distances to the nearest neighbours.

    >>> rows = Features(np.zeros((2, 9), dtype=np.uint32), np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.001]]), True)
    >>> bound = NearDuplicates().bind({}, 3, b"salt")
    >>> close = Index(bound.columns).look(bound.keys(rows))
    >>> bound.measure(rows, np.zeros(2, dtype=bool), close, Past())
    array([[0., 0.],
           [1., 1.]])
    """

    tier: ClassVar[Tier] = "structure"
    names: ClassVar[tuple[str, ...]] = ("near_duplicates", "near_duplicates.fine")
    scaled: ClassVar[bool] = True

    kind: Literal["near_duplicates"] = "near_duplicates"

    def learn(self, sample: Sample) -> Reference:
        """Find the widths by halving, over the first 512 queries of at most 60 clients; no client weighs more."""
        clients = [each for each in sample.features if each.vectors is not None and len(each.vectors)]
        if not clients:
            raise ValueError("no client has vectors to learn from")
        rng = np.random.Generator(np.random.PCG64(sample.seed))
        chosen = rng.permutation(len(clients))[:_CLIENTS]
        streams = [_Stream(clients[int(i)], rng.bytes(16)) for i in chosen]
        return {"widths": np.array([_width(streams, target) for target in TARGETS])}

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure vectors of `width` numbers."""
        if not reference:
            return _Near(np.array(_DEFAULT) * np.sqrt(max(width, 1)), width, salt)
        widths = take(reference, "widths", 2)
        if (widths <= 0).any():
            raise ValueError("widths must be above 0")
        return _Near(widths, width, salt)


class _Near(Blind):
    columns = 2 * TABLES

    def __init__(self, widths: Floats, width: int, salt: bytes) -> None:
        seed = int.from_bytes(blake2b(salt, digest_size=16, person=b"guard near dups").digest(), "big")
        rng = np.random.Generator(np.random.PCG64(seed))
        each = TABLES * PROJECTIONS
        self._factors: Floats = rng.standard_normal((width, 2 * each)) / np.repeat(widths, each)
        self._offsets: Floats = rng.random(2 * each)
        # Each table's key is the upper half of a sum of factors times cells, as in `guard.detectors.keys`.
        self._mix: npt.NDArray[np.uint64] = np.zeros((2 * each, self.columns), dtype=np.uint64)
        drawn = rng.integers(0, 2**64 - 1, size=2 * each, dtype=np.uint64, endpoint=True) | np.uint64(1)
        self._mix[np.arange(2 * each), np.arange(2 * each) // PROJECTIONS] = drawn
        self._width = width

    def keys(self, features: Features) -> Keys:
        vectors = fitting(features, self._width)
        if vectors is None:
            return np.zeros((len(features.keys), self.columns), dtype=np.uint32)
        cells = np.dot(vectors, self._factors)
        cells += self._offsets
        whole = np.floor(cells, out=cells).astype(np.int64).view(np.uint64)
        return (np.dot(whole, self._mix) >> np.uint64(32)).astype(np.uint32)

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del past
        n = len(hits)
        if fitting(features, self._width) is None:
            return np.zeros((n, 2))
        if n == 1:
            if seen[0]:
                return np.zeros((1, 2))
            found = hits[0].tolist()
            return np.array(((float(sum(found[:TABLES]) >= 2), float(sum(found[TABLES:]) >= 2)),))
        return ((hits.reshape(n, 2, TABLES).sum(axis=2) >= 2) & ~seen[:, None]).astype(float)


class _Stream:
    """One client's queries, projected once; hits for any width."""

    def __init__(self, features: Features, salt: bytes) -> None:
        self._features = Features(features.keys[:_ROWS], np.asarray(features.vectors)[:_ROWS], features.scaled)
        self._salt = salt
        self._seen = Index(1).look(self._features.keys[:, :1])[:, 0]
        self.rows = len(self._seen)

    def hits(self, width: float) -> float:
        """Return how many rows hit with cells of this width."""
        vectors = np.asarray(self._features.vectors)
        bound = _Near(np.array([width, width]), vectors.shape[1], self._salt)
        hits = Index(bound.columns).look(bound.keys(self._features))
        return float(bound.measure(self._features, self._seen, hits, Past()).sum()) / 2


def _width(streams: list[_Stream], target: float) -> float:
    """Return the greatest width, of a geometric halving, at which no more than this share of rows hits."""
    rows = sum(stream.rows for stream in streams)
    low, high = _LEAST, _MOST
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        if sum(stream.hits(middle) for stream in streams) > target * rows:
            high = middle
        else:
            low = middle
    return low
