"""How sure an answer is: what the detectors of answers look at. Pure."""

from __future__ import annotations

from math import exp, isfinite

import numpy as np

from guard.model.arrays import Floats
from guard.model.outputs import Kind


def margins(kind: Kind, scores: Floats) -> Floats | None:
    """Return the top probability less the second of each row, shape (n,); rows that are not finite are left out.

    Args:
        kind: what the scores are.
        scores: shape (n, k).

    Returns:
        None where there is no such thing: another kind, or fewer than two columns.

    >>> margins("probabilities", np.array([[0.2, 0.7, 0.1], [np.nan, 1.0, 0.0]]))
    array([0.5])
    """
    if kind not in ("probabilities", "logits", "logprobs") or scores.ndim != 2 or scores.shape[1] < 2:
        return None
    if len(scores) == 1:
        return _one(scores[0].tolist(), logs=kind != "probabilities")
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        scores = scores[finite]
    if kind != "probabilities":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    top = np.partition(scores, -2, axis=1)
    return np.clip(top[:, -1] - top[:, -2], 0.0, 1.0)


def _one(row: list[float], *, logs: bool) -> Floats:
    """Return one row's margin, shape (1,), or (0,): a list costs a tenth of numpy's calls."""
    if not isfinite(sum(row)):
        return np.empty(0)
    if logs:
        most = max(row)
        powers = [exp(value - most) for value in row]
        total = sum(powers)
        row = [value / total for value in powers]
    first, second = sorted(row)[:-3:-1]
    return np.array([min(max(first - second, 0.0), 1.0)])
