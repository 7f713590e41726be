"""The offset fit: against noise that is one and the same for a whole cell of queries.

Such noise cannot be averaged out by asking near-by queries, and it need not be: with few cells it is a handful of
unknown vectors, fitted together with the model's weights. Which query lies in which cell is a secret, so queries are
sorted into cells by what their answers leave over, in turn with the fit (hard expectation maximisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.selftest.attacks.fit import Linear, completed, minimise, softmax, with_bias
from guard.selftest.measures import Floats

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Offsets:
    """A copy and the noise that was found.

    Args:
        copy: the model without the noise.
        offsets: what was added in each cell, shape (cells, k).
        cell: of each query, shape (n,).
        left: median over queries of the L1 distance between the answers and what copy and noise make of them.
    """

    copy: Linear
    offsets: Floats
    cell: Numbers
    left: float


def offset_fit(
    x: Floats, y: Floats, start: Linear, cells: int, rng: np.random.Generator, *, rounds: int = 6, ridge: float = 1e-8
) -> Offsets:
    """Fit weights and the offsets of a number of cells: y = max(softmax(w x) + offset, 0), renormalised.

    Args:
        x: inputs, shape (n, d).
        y: noisy scores, shape (n, k).
        start: a copy fitted by cross-entropy.
        cells: how many there are thought to be.
        rng: draws the first centres.
        rounds: of fitting and sorting in turn.
        ridge: weight of the squared weights.
    """
    target = completed(y)
    copy = start
    offsets = _centres(target - copy.probabilities(x), cells, rng)
    cell = _sorted(copy.probabilities(x), target, offsets)
    for i in range(rounds):
        copy, offsets = _fitted(x, target, copy, offsets, cell, ridge, 60 if i < rounds - 1 else 600)
        sorted_again = _sorted(copy.probabilities(x), target, offsets)
        if i and (sorted_again == cell).all():
            break
        cell = sorted_again
    left = np.abs(released(copy.probabilities(x) + offsets[cell]) - target).sum(axis=1)
    return Offsets(copy, offsets, cell, float(np.median(left)))


def released(scores: Floats) -> Floats:
    """Return noisy scores, shape (n, k), clipped at 0 and summing to 1."""
    positive = np.maximum(scores, 0.0)
    return positive / np.maximum(positive.sum(axis=1, keepdims=True), 1e-9)


def _fitted(
    x: Floats, y: Floats, start: Linear, offsets: Floats, cell: Numbers, ridge: float, steps: int
) -> tuple[Linear, Floats]:
    """Fit weights and offsets to queries whose cells are taken as known; those that fit worst are left out."""
    error = np.abs(released(start.probabilities(x) + offsets[cell]) - y).sum(axis=1)
    # The winner changes places where noise would dethrone it, which no offset explains.
    kept = error <= max(np.quantile(error, 0.9), 1e-6)
    features, y, cell = with_bias(x)[kept], y[kept], cell[kept]
    (k, d), n = start.weights.shape, len(features)
    member = np.eye(len(offsets))[cell]

    def loss(flat: Floats) -> tuple[float, Floats]:
        w, o = flat[: k * d].reshape(k, d), flat[k * d :].reshape(-1, k)
        q = softmax(features @ w.T)
        u = q + o[cell]
        positive = np.maximum(u, 0.0)
        total = np.maximum(positive.sum(axis=1, keepdims=True), 1e-9)
        guess = positive / total
        outer = 2 * (guess - y)
        outer = (outer - (outer * guess).sum(axis=1, keepdims=True)) / total * (u > 0)
        inner = q * (outer - (outer * q).sum(axis=1, keepdims=True))
        value = ((guess - y) ** 2).sum() / n + ridge * (w * w).sum()
        gradient = np.concatenate(((inner.T @ features / n + 2 * ridge * w).ravel(), (member.T @ outer / n).ravel()))
        return float(value), gradient

    found = minimise(loss, np.concatenate((start.weights.ravel(), offsets.ravel())), steps, 1e-14)
    return Linear(found[: k * d].reshape(k, d)), found[k * d :].reshape(-1, k)


def _sorted(q: Floats, y: Floats, offsets: Floats) -> Numbers:
    """Return the cell whose offset explains each answer best, shape (n,)."""
    errors = [((released(q + offset) - y) ** 2).sum(axis=1) for offset in offsets]
    return np.argmin(errors, axis=0)


def _centres(left: Floats, cells: int, rng: np.random.Generator) -> Floats:
    """Return centres of what a first copy leaves over, shape (cells, k): k-means from spread-out rows."""
    centres = left[rng.integers(len(left), size=1)]
    for _ in range(cells - 1):
        far = ((left[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1) + 1e-12
        centres = np.concatenate((centres, left[rng.choice(len(left), size=1, p=far / far.sum())]))
    for _ in range(10):
        nearest = ((left[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.array(
            [left[nearest == c].mean(axis=0) if (nearest == c).any() else centres[c] for c in range(cells)]
        )
    return centres
