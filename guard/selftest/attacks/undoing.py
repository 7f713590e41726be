"""Undoing perturbations that are no quantisers: a bounded shift, and a reverse sigmoid.

Both are one and the same function of the score for everybody, and their parameters, which the attacker does not know,
show in the answers. Whoever knows the source undoes the first and fits a copy through the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import is_label
from guard.selftest.attacks.fit import Linear, cross_entropy, least_squares, minimise, softmax, with_bias
from guard.selftest.measures import Floats

CLEAR = 0.02
"""Lead of the top, above which no other class gave mass too: those that did are cut to within a hundredth."""
LEAST = 0.004
"""Least mass that is looked for: an even answer's smallest score would pass for less."""
EXPLAINED = 0.99
"""Share of clear answers that a shift must explain."""
FEWEST = 10
"""Answers that must be undone."""
ROUND, TRIED = 0.005, 3
"""Half of the steps in which epsilons are written, and how many such masses are tried."""
MOST = 400
"""Most answers in which a shift is looked for."""
BETAS, GAMMAS = (0.9, 0.5), (0.2, 0.5)
"""Where the search for the sigmoid's parameters starts."""
COARSE, FINE = 150, 2500
"""Most iterations from each start, and from the best of them."""
BETTER = 0.5
"""Share of what a copy without the sigmoid leaves over, above which there is none."""
CLIP = 1e-9
"""Nearer than this to 0 and 1 the curve is flat."""


@dataclass(frozen=True)
class Undone:
    """Answers of which a shift was taken back.

    Args:
        rows: which ones, shape (m,): those where only one class can have got the mass.
        scores: what they were before, shape (m, k).
        moved: the mass.
    """

    rows: NDArray[np.intp]
    scores: Floats
    moved: float


def unshifted(y: Floats) -> list[Undone]:
    """Take back a bounded shift: some mass that went from the top to the class that was the least likely.

    Args:
        y: scores, shape (n, k).

    Returns:
        What each likely mass makes of the answers, the greatest mass first; none when no mass explains them.
    """
    ordered = np.sort(y, axis=1)
    clear = np.flatnonzero((ordered[:, -1] - ordered[:, -2] > CLEAR) & ~np.asarray(is_label(y), dtype=np.bool_))
    if len(clear) < FEWEST:
        return []
    low, high = _bounds(y[clear], ordered[clear])
    undone = [_undone(y, clear, low, high, mass) for mass in _masses(low[:MOST], high[:MOST])]
    return [found for found in undone if len(found.rows) >= FEWEST]


def _undone(y: Floats, clear: NDArray[np.intp], low: Floats, high: Floats, mass: float) -> Undone:
    fits = (low <= mass + 1e-9) & (mass - 1e-9 <= high)
    single = np.flatnonzero(fits.sum(axis=1) == 1)
    rows, got = clear[single], fits[single].argmax(axis=1)
    scores, at = y[rows].copy(), np.arange(len(rows))
    scores[at, y[rows].argmax(axis=1)] += mass
    scores[at, got] = np.maximum(scores[at, got] - mass, 0.0)
    return Undone(rows, scores, mass)


def _bounds(y: Floats, ordered: Floats) -> tuple[Floats, Floats]:
    """Return between which masses each class may have got, shape (n, k): it has it now, and was the least before."""
    least = np.where(y == ordered[:, :1], ordered[:, 1:2], ordered[:, :1])
    high = y.copy()
    high[np.arange(len(y)), y.argmax(axis=1)] = -1.0  # what gave did not get
    return np.maximum(y - least, LEAST), high


def _masses(low: Floats, high: Floats) -> list[float]:
    """Return the masses that explain nearly all rows: round ones, as people write them, and the greatest of all."""
    seen = high[(high >= low) & (high >= LEAST)]
    # The true mass is below the score of every class that got it, and barely so where the model is sure.
    tried = np.union1d(seen.round(9), np.arange(ROUND, 1.0, ROUND).round(9))
    share = np.array([((low <= a + 1e-9) & (a <= high + 1e-9)).any(axis=1).mean() for a in tried])
    able = tried[share >= EXPLAINED]
    if not len(able):
        return []
    rounded = able[np.abs(able / ROUND - np.rint(able / ROUND)) < 1e-6]
    return list(dict.fromkeys([float(able[-1]), *rounded[::-1][:TRIED].tolist()]))


def shift_fits(x: Floats, y: Floats) -> Iterator[tuple[str, Linear]]:
    """Yield copies fitted to the answers of which a shift can be taken back.

    Args:
        x: inputs, shape (n, d).
        y: scores, shape (n, k).
    """
    for number, found in enumerate(unshifted(y), 1):
        yield f"undo shift, guess {number}", cross_entropy(x[found.rows], found.scores, 1e-7)
        whole = (found.scores > 1e-12).all(axis=1)
        if whole.sum() > x.shape[1]:
            yield f"undo shift, equations, guess {number}", least_squares(x[found.rows[whole]], found.scores[whole])


def sigmoid_fit(x: Floats, y: Floats) -> Linear | None:
    """Fit weights and the two parameters of a reverse sigmoid by squared error, from several starts.

    Args:
        x: inputs, shape (n, d).
        y: disturbed scores, shape (n, k).

    Returns:
        None when no sigmoid explains the answers better than none does.
    """
    k = y.shape[1]
    start = cross_entropy(x, np.eye(k)[y.argmax(axis=1)], 1e-3).weights.ravel()
    plain = float(((cross_entropy(x, y, 1e-6).probabilities(x) - y) ** 2).sum() / len(x))
    tried = [
        _through(x, y, np.concatenate((start, [np.log(beta / (1 - beta)), np.log(gamma)])), COARSE, 1e-9)
        for beta in BETAS
        for gamma in GAMMAS
    ]
    best, left = min(tried, key=lambda found: found[1])
    if left > BETTER * plain:
        return None
    return Linear(_through(x, y, best, FINE, 1e-15)[0][:-2].reshape(k, -1))


def _through(x: Floats, y: Floats, start: Floats, steps: int, tolerance: float) -> tuple[Floats, float]:
    """Return what the fit came to and its loss: weights, the logit of beta, the log of gamma, shape (k (d + 1) + 2,).

    An answer is p - beta (s - 1/2) with s the sigmoid of gamma times the logit of p, from 0 on, renormalised.
    """
    features, (n, k) = with_bias(x), y.shape

    def loss(flat: Floats) -> tuple[float, Floats]:
        beta, gamma = 1 / (1 + np.exp(-flat[-2])), np.exp(np.clip(flat[-1], -6, 2))
        q = softmax(features @ flat[:-2].reshape(k, -1).T)
        inner = np.clip(q, CLIP, 1 - CLIP)
        logit = np.log(inner / (1 - inner))
        s = 1 / (1 + np.exp(-gamma * logit))
        bent = q - beta * (s - 0.5)
        kept = bent > 0
        total = np.maximum((bent * kept).sum(axis=1, keepdims=True), CLIP)
        guess = bent * kept / total
        outer = 2 * (guess - y)
        outer = (outer - (outer * guess).sum(axis=1, keepdims=True)) / total * kept
        steep = np.where(q == inner, s * (1 - s) / (inner * (1 - inner)), 0.0)
        by_q = outer * (1 - beta * gamma * steep)
        by_w = (q * (by_q - (by_q * q).sum(axis=1, keepdims=True))).T @ features
        by_beta = -(outer * (s - 0.5)).sum() * beta * (1 - beta)
        by_gamma = -(outer * beta * s * (1 - s) * logit).sum() * gamma
        ridge = np.append(1e-8 * flat[:-2], [0.0, 0.0])
        gradient = np.concatenate((by_w.ravel(), [by_beta, by_gamma])) / n + 2 * ridge
        return float(((guess - y) ** 2).sum() / n + (ridge * flat).sum()), gradient

    found = minimise(loss, start, steps, tolerance)
    return found, loss(found)[0]
