"""All the ways in which an attacker who knows Guard's source fits a softmax regression to some answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from guard.selftest.attacks.codewords import codeword_fits
from guard.selftest.attacks.fit import Linear, cross_entropy, least_squares, softmax, with_bias
from guard.selftest.attacks.interval import interval_fit
from guard.selftest.attacks.offsets import offset_fit
from guard.selftest.attacks.quantisers import bare_labels, cells_of, told
from guard.selftest.attacks.undoing import shift_fits, sigmoid_fit
from guard.selftest.measures import Floats

PLAIN = frozenset({"equations", "cross-entropy 1e-06"})
"""Fits of an attacker who knows nothing of a policy."""
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3)
NOISY = 0.01
"""Answers further than this (median L1) from any softmax regression are taken for noisy."""
CELLS = (1, 4, 8)


def regressions(
    x: Floats, y: Floats, rng: np.random.Generator, own: tuple[Floats, Floats] | None = None
) -> Iterator[tuple[str, Linear]]:
    """Yield fitted copies by how they were fitted; whoever measures takes the best.

    Args:
        x: queries of order one, shape (n, d).
        y: whatever came back, shape (n, k).
        rng: draws what fits draw.
        own: the attacker's own inputs and their labels as one-hot scores, or None.
    """
    bare = bare_labels(y)
    for ridge in RIDGES:
        yield f"cross-entropy {ridge:g}", cross_entropy(x, y, ridge)
    if (y > 0).all():
        yield "equations", least_squares(x, y)
    if bare.any() and not bare.all():
        yield from _mixed(x, y, bare)
    graded = told(y)
    if not bare.all():
        yield from _beyond(x, y, graded, rng)
        yield from codeword_fits(x, y, own)
    if own is not None:
        for ridge in RIDGES[1:]:
            both = np.concatenate((x, own[0])), np.concatenate((graded, own[1]))
            yield f"with own labels {ridge:g}", cross_entropy(*both, ridge)


def _mixed(x: Floats, y: Floats, bare: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Iterator[tuple[str, Linear]]:
    """Fit where some answers are graded and the others labels, which pull a copy towards being too sure."""
    graded = told(y[~bare])
    if (y[~bare] > 0).all():
        yield "equations, graded answers", least_squares(x[~bare], y[~bare])
    repeats = int(bare.sum()) // int((~bare).sum())
    weighed = np.concatenate((np.repeat(x[~bare], repeats, axis=0), x[bare]))
    answers = np.concatenate((np.repeat(graded, repeats, axis=0), y[bare]))
    for ridge in RIDGES[1:]:
        yield f"graded answers {ridge:g}", cross_entropy(x[~bare], graded, ridge)
        if repeats > 1:
            yield f"graded answers weighed up {ridge:g}", cross_entropy(weighed, answers, ridge)


def _beyond(x: Floats, y: Floats, graded: Floats, rng: np.random.Generator) -> Iterator[tuple[str, Linear]]:
    """Fit to what stands behind quantised or noisy answers."""
    if (graded != y).any():
        for ridge in RIDGES[1:]:
            yield f"winners only {ridge:g}", cross_entropy(x, graded, ridge)
    start = cross_entropy(x, graded, 1e-4)
    cells = cells_of(y)
    if cells is not None:
        for ridge, tolerance, how in ((1e-8, 1e-15, ""), (1e-8, 1e-9, ", coarse"), (1e-6, 1e-15, "")):
            yield f"interval {ridge:g}{how}", interval_fit(x, cells, ridge, start, tolerance)
    elif _noisy(x, y):
        for number in CELLS:
            found = offset_fit(x, y, start, number, rng)
            yield f"offsets of {number} cell{'s' if number > 1 else ''}", found.copy
        yield from shift_fits(x, y)
        through = sigmoid_fit(x, y)
        if through is not None:
            yield "through the sigmoid", through


def _noisy(x: Floats, y: Floats) -> bool:
    """Say whether no softmax regression answers like this: even the closest one leaves something over."""
    guess = softmax(with_bias(x) @ cross_entropy(x, y, 1e-7).weights.T)
    return float(np.median(np.abs(guess - y).sum(axis=1))) > NOISY
