"""What detectors learn of honest traffic, and how they hold a query against it.

Clients count alike, however much they ask: rows are drawn from each in equal number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import cast

import numpy as np

from guard.detectors.base import Features, Reference, Sample
from guard.model.arrays import Floats

ROWS = 60
"""Rows drawn from a client."""
MOST_ROWS = 60_000
"""Rows drawn in all: of more than 1,000 clients fewer rows each are drawn."""
MOST_VALUES = 2000
"""Values of a statistic that are kept to compare with."""
EXTREME = float(np.log(200))
"""A surprisal above this is extreme: one honest query in 200 is."""


def balanced(clients: Sequence[Floats], seed: int) -> Floats:
    """Draw as many rows from each client, with replacement.

    Args:
        clients: each client's rows, shape (n, ...), n >= 1.
        seed: for the draw.

    Raises:
        ValueError: there is no client.
    """
    if not clients:
        raise ValueError("no client has queries to learn from")
    rng = np.random.Generator(np.random.PCG64(seed))
    each = max(1, min(ROWS, MOST_ROWS // len(clients)))
    return np.concatenate([rows[rng.integers(len(rows), size=each)] for rows in clients])


def vectors_of(sample: Sample) -> list[Floats]:
    """Return the vectors of each client that has any, shape (n, m).

    Raises:
        ValueError: they are not all of one width.
    """
    found = [each.vectors for each in sample.features if each.vectors is not None and len(each.vectors)]
    if len({rows.shape[1] for rows in found}) > 1:
        raise ValueError("clients' vectors differ in width")
    return found


def fitting(features: Features, width: int) -> Floats | None:
    """Return the vectors if they have the width that a detector was bound to."""
    vectors = features.vectors
    return vectors if vectors is not None and vectors.shape[1] == width else None


def quantiles(values: Floats) -> Floats:
    """Return at most `MOST_VALUES` evenly spaced order statistics of values, ascending."""
    ordered = np.sort(values)
    if len(ordered) <= MOST_VALUES:
        return ordered
    places = (np.arange(MOST_VALUES) + 0.5) * len(ordered) / MOST_VALUES
    return ordered[places.astype(np.int64)]


def take(reference: Reference, name: str, *shape: int) -> Floats:
    """Return an array of a reference.

    Args:
        reference: what a detector learnt.
        name: of the array.
        shape: what it must be; -1 fits any length of at least 1.

    Raises:
        ValueError: it is missing, of another shape, or not finite.
    """
    found = reference.get(name)
    if found is None:
        raise ValueError(f"has no {name}: it was made without this detector")
    if found.ndim != len(shape) or any(
        have != want and not (want == -1 and have) for have, want in zip(found.shape, shape, strict=True)
    ):
        raise ValueError(f"{name} has shape {found.shape}, and must have {tuple(shape)}")
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite numbers")
    return found.astype(np.float64)


def whitening(rows: Floats) -> Floats:
    """Return L with L L' the inverse covariance of rows, shape (m, m), shrunk by 10% towards its mean variance."""
    width = rows.shape[1]
    covariance = np.cov(rows.T).reshape(width, width)
    level = float(np.trace(covariance)) / width
    shrunk = 0.9 * covariance + 0.1 * max(level, 1e-12) * np.eye(width)
    # From the covariance's own factor, C = K K': the inverse is (K')^-1 K^-1, and L = (K')^-1.
    factor = cast("Floats", np.linalg.cholesky(shrunk))
    return cast("Floats", np.linalg.solve(factor.T, np.eye(width)))


class Surprisal:
    """How surprising a value is: s(x) = -ln[(1 + #{reference >= x})/(n + 1)], between 0 and ln(n + 1).

    Args:
        values: the reference, ascending, shape (n,).
        tolerance: by how much a value may fall short of a reference value and still count as that: sums of many numbers
            differ in their last digits with the size of the batch, and discrete data have many equal values.

    >>> Surprisal(np.arange(999.0))(np.array([-1.0, 900.0, 998.0, 2000.0])).round(2)
    array([0.  , 2.3 , 6.21, 6.91])
    """

    __slots__ = ("_costs", "_list", "_table", "_values")

    def __init__(self, values: Floats, tolerance: float = 1e-6) -> None:
        n = len(values)
        self._values = values + tolerance * (1 + np.abs(values))
        self._list: list[float] = self._values.tolist()
        self._table: Floats = -np.log((1 + n - np.arange(n + 1)) / (n + 1)) + 0.0
        self._costs: list[float] = self._table.tolist()

    def __call__(self, values: Floats) -> Floats:
        """Return surprisals, shape (n,) -> (n,)."""
        return self._table[self._values.searchsorted(values)]

    def signal(self, values: Floats) -> Floats:
        """Return surprisals as one signal, shape (n,) -> (n, 1)."""
        if len(values) == 1:
            return np.array(((self._one(float(values[0])),),))
        return self(values)[:, None]

    def _one(self, value: float) -> float:
        # Bisecting a list takes an eighth of numpy's time for one value.
        return self._costs[bisect_left(self._list, value)]

    def signals(self, values: Floats) -> Floats:
        """Return surprisals and whether they are extreme, shape (n,) -> (n, 2)."""
        if len(values) == 1:
            s = self._one(float(values[0]))
            return np.array(((s, 1.0 if s > EXTREME else 0.0),))
        found = self(values)
        return np.stack([found, (found > EXTREME).astype(float)], axis=1)
