"""The codeword fit: against a codebook, which answers the nearest of a few distributions that are somebody's answers.

Such codewords lie on no lattice, so the interval fit sees nothing. They are read off the answers: queries that differ
are answered alike, which no score of a model's own is. Each answer then says that the score is nearer to this codeword
than to any other of its class that was seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import is_label
from guard.selftest.attacks.fit import Linear, cross_entropy, minimise, softmax, with_bias
from guard.selftest.attacks.quantisers import grid_step
from guard.selftest.measures import Floats

ALIKE = 0.5
"""Share of answers that another query got too, from which on answers are taken for codewords."""
STEPS = 500
RIDGE = 1e-11
"""Scores that lie in their cells cost nothing, so that a ridge alone would rule."""
STARTS = (1e-4, 1e-3)
"""Ridges of the copies from which the fit starts: it stays near them where answers are few."""


@dataclass(frozen=True)
class Codewords:
    """What was answered.

    Args:
        words: the distinct answers, shape (m, k).
        word: which one each query got, shape (n,).
        graded: whether it says more than a label, shape (n,).
    """

    words: Floats
    word: NDArray[np.intp]
    graded: NDArray[np.bool_]


def codewords_of(y: Floats) -> Codewords | None:
    """Return the codewords behind scores of different queries, shape (n, k); None when they look like none.

    >>> found = codewords_of(np.array([[0.61, 0.39], [0.27, 0.73], [0.61, 0.39], [0.27, 0.73]]))
    >>> found.words.tolist(), found.word.tolist()
    ([[0.27, 0.73], [0.61, 0.39]], [1, 0, 1, 0])
    """
    graded = ~np.asarray(is_label(y), dtype=np.bool_)
    if not graded.any() or grid_step(y[graded]):
        return None
    words, word, counts = np.unique(y.round(9), axis=0, return_inverse=True, return_counts=True)
    word = word.ravel()
    if float((counts[word[graded]] > 1).mean()) < ALIKE:
        return None
    return Codewords(words, word, graded)


def codeword_fit(x: Floats, seen: Codewords, start: Linear, ridge: float = RIDGE, tolerance: float = 1e-12) -> Linear:
    """Minimise by how much the copy's scores are nearer (L2) to another codeword of the class, and exceed the winner.

    Args:
        x: inputs, shape (n, d).
        seen: their answers.
        start: a copy fitted by cross-entropy.
        ridge: weight of the squared weights.
        tolerance: what a step must gain.

    The codebook compares in L1, whose cells have corners; L2 bounds nearly the same and has a gradient everywhere.
    """
    features, words, rows = with_bias(x), seen.words, np.arange(len(x))
    k, d = start.weights.shape
    top = words.argmax(axis=1)
    rivals = (top[seen.word][:, None] == top[None]) & seen.graded[:, None] & ~np.asarray(is_label(words))[None]
    rivals[rows, seen.word] = False
    lengths, own, winner = (words**2).sum(axis=1), words[seen.word], top[seen.word]

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(k, d)
        q = softmax(features @ w.T)
        far = lengths[None] - 2 * q @ words.T
        nearer = np.maximum(far[rows, seen.word][:, None] - far, 0) * rivals
        beyond = np.maximum(q - q[rows, winner][:, None], 0)
        outer = 4 * (nearer @ words - nearer.sum(axis=1, keepdims=True) * own) + 2 * beyond
        outer[rows, winner] -= 2 * beyond.sum(axis=1)
        gradient = (q * (outer - (outer * q).sum(axis=1, keepdims=True))).T @ features / len(x) + 2 * ridge * w
        value = ((nearer**2).sum() + (beyond**2).sum()) / len(x) + ridge * (w * w).sum()
        return float(value), gradient.ravel()

    return Linear(minimise(loss, start.weights.ravel(), STEPS, tolerance).reshape(k, d))


def codeword_fits(x: Floats, y: Floats, own: tuple[Floats, Floats] | None = None) -> Iterator[tuple[str, Linear]]:
    """Yield copies fitted inside the cells of the codewords that were seen; none where answers look like none.

    Args:
        x: inputs, shape (n, d).
        y: scores, shape (n, k).
        own: the attacker's own inputs and their labels as one-hot scores, or None.
    """
    seen = codewords_of(y)
    if seen is None:
        return
    for ridge in STARTS:
        yield f"codeword cells {ridge:g}", codeword_fit(x, seen, cross_entropy(x, y, ridge))
    if own is None:
        return
    both = np.concatenate((x, own[0])), np.concatenate((y, own[1]))
    with_labels = codewords_of(both[1])
    if with_labels is not None:
        start = cross_entropy(*both, STARTS[0])
        yield "codeword cells, own labels", codeword_fit(both[0], with_labels, start)
