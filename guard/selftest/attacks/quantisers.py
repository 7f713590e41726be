"""Reading a quantiser's cells off its answers: which true scores can stand behind each released row.

The attacker knows how Guard's quantisers work and nothing of their parameters: the step of a grid, the decimals or the
levels are inferred from the values that were seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import is_label
from guard.selftest.measures import Floats

MOST_LEVELS = 8
STEPS = (*range(2, 101), 200, 250, 500, 1000, 2000, 5000, 10_000)
"""Steps per unit that are tried."""
REACH = 0.6
"""Half a cell in steps. Rounding moves a score by half a step, handing out what is missing to 1 by up to one."""


@dataclass(frozen=True)
class Cells:
    """Bounds of the true scores behind released rows.

    Args:
        low: least score, shape (n, k).
        high: greatest score, shape (n, k).
        top: the winning column, which no other exceeds, shape (n,).
    """

    low: Floats
    high: Floats
    top: NDArray[np.intp]

    def part(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Cells:
        """Return the cells of some rows."""
        return Cells(self.low[rows], self.high[rows], self.top[rows])


def cells_of(y: Floats) -> Cells | None:
    """Infer cells from scores, shape (n, k); None when they are neither quantised nor labels.

    >>> cells = cells_of(np.array([[0.0, 1.0, 0.0]] * 3))
    >>> cells.low[0].round(2).tolist(), cells.high[0].tolist()
    ([0.0, 0.33, 0.0], [0.5, 1.0, 0.5])
    """
    top = y.argmax(axis=1)
    bare = bare_labels(y)
    low, high = _label_cells(top, y.shape[1])
    graded = y[~bare]
    if not len(graded):
        return Cells(low, high, top)
    levels = _levels(graded)
    step = 0.0 if levels is not None else grid_step(graded)
    if levels is not None:
        low[~bare], high[~bare] = _level_cells(graded, levels)
    elif step:
        low[~bare], high[~bare] = _grid_cells(graded, step)
    else:
        return None
    return Cells(low, high, top)


def bare_labels(y: Floats) -> NDArray[np.bool_]:
    """Say which rows are labels, not scores that read 1: those of a tail that is too long to be scores, shape (n,).

    >>> bare_labels(np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]])).tolist()
    [False, False, False]
    """
    single = np.asarray(is_label(y), dtype=np.bool_)
    if single.all() or not single.any():
        return single
    end = len(y) - int(np.argmin(single[::-1]))
    share = (single[:end].sum() + 1) / (end + 2)
    tail = np.arange(len(y)) >= end
    return tail if share ** (len(y) - end) < 1e-3 else np.zeros(len(y), dtype=np.bool_)


def told(y: Floats) -> Floats:
    """Return scores with those that only share out evenly what the winner leaves set to 0, shape (n, k).

    >>> told(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.05, 0.9, 0.05]])).tolist()
    [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.9, 0.0]]
    """
    if y.shape[1] <= 2 or _levels(y) is None:
        return y
    return np.where(y == y.max(axis=1, keepdims=True), y, 0.0)


def grid_step(y: Floats) -> float:
    """Return the greatest step of which nearly all scores are multiples; 0 when there is none.

    >>> grid_step(np.array([[0.15, 0.85], [0.2, 0.8], [0.35, 0.65], [0.4, 0.6], [0.05, 0.95]]))
    0.05
    """
    values, counts = np.unique(y[(y > 1e-9) & (y < 1 - 1e-9)].round(12), return_counts=True)
    if counts.sum() < 10:
        return 0.0
    # Guard's grid parts a tie by .001 and renormalises: a coarse step is looked for with that much play.
    for steps, play in ((STEPS, 1e-6), (range(2, 51), 1.1e-3)):
        for m in steps:
            near = np.abs(values * m - np.rint(values * m)) < play * m
            if counts[near].sum() >= 0.9 * counts.sum():
                return 1.0 / m
    return 0.0


def _levels(y: Floats) -> Floats | None:
    """Return the few values that the top scores take, ascending, if the others say nothing; None otherwise."""
    rows, top = np.arange(len(y)), y.argmax(axis=1)
    others = y.copy()
    others[rows, top] = 0.0
    kept = others > 0
    mean = others.sum(axis=1) / np.maximum(kept.sum(axis=1), 1)
    if (np.abs(others - mean[:, None]) * kept > 1e-6).any():
        return None
    found = np.unique(y[rows, top].round(9))
    most = MOST_LEVELS if y.shape[1] > 2 else 4 * MOST_LEVELS
    return found if len(found) <= min(most, len(y) // 3 + 1) else None


def _label_cells(top: NDArray[np.intp], k: int) -> tuple[Floats, Floats]:
    low, high = np.zeros((len(top), k)), np.full((len(top), k), 0.5)
    low[np.arange(len(top)), top], high[np.arange(len(top)), top] = 1.0 / k, 1.0
    return low, high


def _level_cells(y: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """Cut halfway between the levels that were seen."""
    rows, top, k = np.arange(len(y)), y.argmax(axis=1), y.shape[1]
    edges = np.concatenate(([1.0 / k], (levels[1:] + levels[:-1]) / 2, [1.0]))
    at = np.abs(y[rows, top][:, None] - levels).argmin(axis=1)
    low = np.zeros_like(y)
    high = np.repeat(np.minimum(1.0 - edges[at], 0.5)[:, None], k, axis=1)
    low[rows, top], high[rows, top] = edges[at], np.maximum(edges[at + 1], edges[at])
    return low, high


def _grid_cells(y: Floats, step: float) -> tuple[Floats, Floats]:
    """Reach around each multiple; where scores were dropped, those that read 0 are at most the least that was kept."""
    low, high = np.clip(y - REACH * step, 0, 1), np.clip(y + REACH * step, 0, 1)
    low[y <= 1e-9] = 0.0
    dropped = (y <= 1e-9) & (y.sum(axis=1, keepdims=True) < 1 - 1e-6)
    least = np.where(y > 1e-9, y, np.inf).min(axis=1, keepdims=True) + REACH * step
    return low, np.where(dropped, np.minimum(least, 1.0), high)


def outside(q: Floats, cells: Cells) -> tuple[float, Floats]:
    """Return the summed squared distance of scores, shape (n, k), from their cells, and its gradient in the scores."""
    rows = np.arange(len(q))
    under, over = np.maximum(cells.low - q, 0), np.maximum(q - cells.high, 0)
    beyond = np.maximum(q - q[rows, cells.top][:, None], 0)
    gradient = 2 * (over - under + beyond)
    gradient[rows, cells.top] -= 2 * beyond.sum(axis=1)
    return float((under**2 + over**2 + beyond**2).sum()), gradient
