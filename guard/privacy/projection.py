"""Noisy scores back in their domain: post-processing of what is on the grid already, which costs nothing.

Nothing here sees a model's score, so rounding errors of this arithmetic are functions of the released noise alone.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

from guard.model.arrays import Floats
from guard.privacy.measurement import Bounds


def project(points: Floats, bounds: Bounds) -> Floats:
    """Return each row's nearest point of the domain, shape (n, k): nearer to the truth than the row was.

    >>> project(np.array([[7.0], [1.5]]), Bounds("value", 0.0, 5.0))
    array([[5. ],
           [1.5]])
    """
    match bounds.kind:
        case "probabilities":
            return onto_simplex(points)
        case "value":
            return np.clip(points, bounds.low, bounds.high)
        case "embedding":
            lengths = np.sqrt(np.square(points).sum(axis=1, keepdims=True))
            norm = np.inf if bounds.norm is None else bounds.norm
            return points * np.minimum(1.0, norm / np.maximum(lengths, 1e-300))
        case "logits" | "logprobs" | "labels":
            return points
        case _:
            assert_never(bounds.kind)


def onto_simplex(points: Floats) -> Floats:
    """Return each row's nearest probability vector: max(row - t, 0) for the one t that makes it sum to 1.

    Args:
        points: shape (n, k), k >= 1.

    Returns:
        Shape (n, k); rows are at least 0, sum to 1 and keep their order.

    Sources: Duchi, Shalev-Shwartz, Singer and Chandra, ICML 2008, figure 1; Wang and Carreira-Perpinan, 2013,
    algorithm 1. Differs: the greatest is moved to 0 first and what is more than 1 below it to -1, which changes nothing
    (t is at least the greatest less 1) and keeps sums exact to 1e-15 however far out the row is.

    >>> onto_simplex(np.array([[0.5, 0.75, -3.0], [1e9, 0.0, 0.0]]))
    array([[0.375, 0.625, 0.   ],
           [1.   , 0.   , 0.   ]])
    """
    near = np.maximum(points - points.max(axis=1, keepdims=True), -1.0)
    descending = -np.sort(-near, axis=1)
    counts = np.arange(1, points.shape[1] + 1, dtype=np.float64)
    thresholds = np.divide(np.cumsum(descending, axis=1) - 1.0, counts, dtype=np.float64)
    positive = np.count_nonzero(np.greater(descending, thresholds), axis=1)
    return np.maximum(near - thresholds[np.arange(len(points)), positive - 1][:, None], 0.0)
