"""What a matrix of logits gives away: its rank, and its row space."""

from __future__ import annotations

import numpy as np

from guard.selftest.measures import Floats, Ints

RANKS = (1, 2, 4, 8, 16, 32, 64, 96)
_ROUNDS, _RIDGE = 6, 0.1
_DEEP = 1.3
"""A fall of the singular values that is no noise's: of 96 x 152 numbers, noise has falls to 1.1."""


def centred(matrix: Floats) -> Floats:
    """Return logits, shape (n, m), each row relative to its mean: what a softmax leaves unsaid is gone."""
    return matrix - matrix.mean(axis=1, keepdims=True)


def rank_of(matrix: Floats) -> int | None:
    """Return the rank that the singular values tell of; None when they tell of none.

    Noise has falls, too, of a few per cent, and where its largest is depends on how many rows there are, as no model's
    width does. So a fall counts that is deep, and much the same without an eighth of the rows.

    Args:
        matrix: logits, shape (n, m), each row up to a constant; n is more than 8/7 of the rank.

    >>> rng = np.random.default_rng(0)
    >>> rank_of(rng.normal(size=(30, 5)) @ rng.normal(size=(5, 40))), rank_of(rng.normal(size=(96, 152)))
    (5, None)
    """
    if min(matrix.shape) < 4:
        return None
    found, deep = gap(matrix)
    without, _ = gap(matrix[: max(2, 7 * len(matrix) // 8)])
    return found if deep >= _DEEP and abs(found - without) <= 0.1 * max(found, without) else None


def gap(matrix: Floats) -> tuple[int, float]:
    """Return behind how many singular values of logits, shape (n, m), the largest fall is, and how many times it is.

    Source: Carlini et al., ICML 2024, section 4: the largest gap of their logarithms.

    >>> rng = np.random.default_rng(0)
    >>> gap(rng.normal(size=(30, 5)) @ rng.normal(size=(5, 40)) + rng.normal(0, 1e-3, (30, 40)))[0]
    5
    """
    values = np.linalg.svd(centred(matrix), compute_uv=False)
    values = np.maximum(values, values[0] * 1e-13 + 1e-300)
    # The last ones fall for want of rows, not of rank.
    falls = (values[:-1] / values[1:])[: max(1, int(0.9 * len(values)))]
    return int(falls.argmax()) + 1, float(falls.max())


def layer_error(matrix: Floats, columns: Ints, layer: Floats, rank: int) -> float:
    """Return the root mean square error of the layer up to an affine map, as a share of the layer's own spread.

    Args:
        matrix: logits, shape (n, m), each row up to a constant.
        columns: which tokens they are, shape (m,); the others are taken for the mean.
        layer: the truth, shape (V, h).
        rank: how many directions of the row space are taken.
    """
    basis = np.linalg.svd(centred(matrix), full_matrices=False)[2][:rank].T
    truth = layer - layer.mean(axis=0)
    left = truth.copy()
    seen = layer[columns] - layer[columns].mean(axis=0)
    left[columns] = seen - basis @ np.linalg.lstsq(basis, seen, rcond=None)[0]
    return min(1.0, float(np.sqrt((left**2).sum() / (truth**2).sum())))


def completed(rows: Ints, columns: Ints, values: Floats, rng: np.random.Generator) -> int | None:
    """Return the rank at which a sparse matrix is completed best: by alternating least squares, a tenth held out.

    None when no rank foretells what was held out: a tenth of its variance must not be left.

    Args:
        rows: of the entries that are known, shape (e,).
        columns: likewise.
        values: likewise; each row up to a constant.
        rng: draws what is held out.
    """
    held = rng.random(len(values)) < 0.1
    errors = {rank: _held_out_error(rows, columns, values, held, rank, rng) for rank in RANKS}
    best = min(errors, key=lambda rank: errors[rank])
    return best if errors[best] <= 0.1 * values[held].var() else None


def _held_out_error(
    rows: Ints, columns: Ints, values: Floats, held: np.ndarray, rank: int, rng: np.random.Generator
) -> float:
    """Return the mean square error on held-out entries of a factorisation of some rank, with an offset a row."""
    n, m = int(rows.max()) + 1, int(columns.max()) + 1
    known = ~held
    left = np.ones((n, rank + 1))
    right = np.concatenate([rng.normal(0, 0.3, (m, rank)), np.ones((m, 1))], axis=1)
    for _ in range(_ROUNDS):
        left = _solved(rows[known], right[columns[known]], values[known], n)
        fixed = left[rows[known]]
        # The last column of the right side stays 1: it carries each row's offset.
        right[:, :-1] = _solved(columns[known], fixed[:, :-1], values[known] - fixed[:, -1], m)
    guess = (left[rows[held]] * right[columns[held]]).sum(axis=1)
    return float(((guess - values[held]) ** 2).mean())


def _solved(owners: Ints, features: Floats, values: Floats, n: int) -> Floats:
    """Return the ridge solutions of every owner's entries, shape (n, width)."""
    width = features.shape[1]
    sequence = np.argsort(owners, kind="stable")
    edges = np.searchsorted(owners[sequence], np.arange(n + 1))
    grams = np.tile(_RIDGE * np.eye(width), (n, 1, 1))
    sides = np.zeros((n, width))
    for owner in range(n):
        mine = sequence[edges[owner] : edges[owner + 1]]
        if len(mine):
            grams[owner] += features[mine].T @ features[mine]
            sides[owner] = features[mine].T @ values[mine]
    return np.asarray(np.linalg.solve(grams, sides[:, :, None])[:, :, 0], dtype=np.float64)
