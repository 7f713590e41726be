"""Samples of calibration traffic in which every client weighs alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guard.calibrate.read import ClientLog
from guard.calibrate.windows import View
from guard.model.arrays import Floats, Ints

ROWS_A_CLIENT = 60
HELD_OUT = 512
ANSWERS = 2000
_LEAST_SCALE = 1e-6
_LEAST_OF_RANGE = 0.05


def standard(clients: Sequence[ClientLog], rng: np.random.Generator, *, alike: bool) -> tuple[Floats, Floats]:
    """Return mean and scale of the sketch, shape (m,) each; of length 0 when there are no sketches.

    The scale is the standard deviation, at least a twentieth of the range: a feature that honest clients seldom use
    must not outweigh all others when it is used.

    Args:
        clients: honest ones.
        rng: draws rows.
        alike: all numbers of the sketch have one scale, as pixels and counts of n-grams do.
    """
    parts = [_some(log.raw.astype(np.float64), ROWS_A_CLIENT, rng) for log in clients if log.raw is not None]
    if not parts:
        return np.zeros(0), np.zeros(0)
    rows = np.concatenate(parts)
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    if alike:
        scale = np.full_like(scale, np.sqrt((scale**2).mean()))
    spread = rows.max(axis=0) - rows.min(axis=0)
    scale = np.maximum(scale, _LEAST_OF_RANGE * spread)
    usual = float(np.median(scale[scale > 0])) if (scale > 0).any() else 1.0
    scale = np.where(scale > 0, scale, usual)
    return mean, np.maximum(scale, _LEAST_SCALE * scale.max())


def held_out(views: Sequence[View], clients: Sequence[ClientLog], rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Return standardised queries for the information meter, shape (h, m), and the model's labels of them.

    Args:
        views: of held-out clients.
        clients: the same.
        rng: draws rows.
    """
    vectors: list[Floats] = []
    tops: list[Ints] = []
    for view, log in zip(views, clients, strict=True):
        if view.features.vectors is not None:
            known = log.top >= 0
            vectors.append(view.features.vectors[known])
            tops.append(log.top[known])
    chosen = _balanced([len(top) for top in tops], HELD_OUT, rng)
    if not chosen:
        width = next((v.features.vectors.shape[1] for v in views if v.features.vectors is not None), 0)
        return np.zeros((0, width)), np.zeros(0, dtype=np.int64)
    return np.stack([vectors[c][i] for c, i in chosen]), np.array([tops[c][i] for c, i in chosen], dtype=np.int64)


def answers(clients: Sequence[ClientLog], rng: np.random.Generator) -> Floats:
    """Return whole distributions, shape (r, k), r <= 2,000; those of the number of classes that most have."""
    widths = [log.scores.shape[1] for log in clients if len(log.scores)]
    if not widths:
        return np.zeros((0, 0))
    width = int(np.bincount(widths).argmax())
    usable = [log.scores.astype(np.float64) for log in clients if log.scores.shape[1] == width and len(log.scores)]
    chosen = _balanced([len(scores) for scores in usable], ANSWERS, rng)
    found = np.clip(np.stack([usable[c][i] for c, i in chosen]), 0.0, 1.0)
    return found / found.sum(axis=1, keepdims=True)


def _some(rows: Floats, most: int, rng: np.random.Generator) -> Floats:
    return rows if len(rows) <= most else rows[np.sort(rng.choice(len(rows), most, replace=False))]


def _balanced(sizes: Sequence[int], most: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw (client, row) pairs without replacement, as evenly over clients as their sizes allow."""
    left = [rng.permutation(size).tolist() for size in sizes]
    chosen: list[tuple[int, int]] = []
    while len(chosen) < most and any(left):
        for client in rng.permutation(len(left)).tolist():
            if left[client] and len(chosen) < most:
                chosen.append((client, left[client].pop()))
    return chosen
