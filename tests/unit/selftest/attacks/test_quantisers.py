"""What stands behind quantised answers is inferred from the answers alone, and holds the true scores."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.api import one_hot
from guard.selftest.attacks.quantisers import Cells, bare_labels, cells_of, grid_step, outside, told
from guard.selftest.measures import Floats

SURE = np.random.default_rng(0).dirichlet(np.full(4, 0.6), 300)


def rounded(p: Floats, step: float) -> Floats:
    return np.rint(p / step) * step


def whole(p: Floats, step: float) -> Floats:
    """Round to a grid and hand what is left of 1 to the largest remainders."""
    units = np.floor(p / step + 1e-9)
    order = np.argsort(units - p / step, axis=1)
    rank = order.argsort(axis=1)
    left = np.rint(1 / step - units.sum(axis=1, keepdims=True))
    return (units + (rank < left)) * step


def inside(cells: Cells) -> float:
    """Return the share of true scores that lie in their cells."""
    return float(((cells.low <= SURE + 1e-9) & (cells.high >= SURE - 1e-9)).mean())


def levelled(p: Floats) -> Floats:
    levels = np.array([0.55, 0.75, 0.9, 0.99])
    top, rows = p.argmax(axis=1), np.arange(len(p))
    level = levels[np.abs(p[rows, top][:, None] - levels).argmin(axis=1)]
    answer = np.repeat(((1 - level) / 3)[:, None], 4, axis=1)
    answer[rows, top] = level
    return answer


@pytest.mark.parametrize("step", [0.1, 0.05, 0.02, 0.01, 0.001])
def test_a_step_is_found(step: float) -> None:
    assert grid_step(rounded(SURE, step)) == pytest.approx(step)


def test_a_step_is_found_where_ties_were_parted() -> None:
    answers = whole(SURE, 0.05)
    answers[::4, 0] += 1e-3
    answers /= answers.sum(axis=1, keepdims=True)
    assert grid_step(answers) == pytest.approx(0.05)


def test_exact_scores_have_no_cells() -> None:
    assert grid_step(SURE) == 0.0
    assert cells_of(SURE) is None


@pytest.mark.parametrize("step", [0.1, 0.02])
def test_cells_of_rounded_scores_hold_the_true_ones(step: float) -> None:
    cells = cells_of(whole(SURE, step))
    assert cells is not None
    assert inside(cells) > 0.97
    assert (cells.high - cells.low).max() < 1.3 * step


def test_cells_of_levels_hold_the_true_scores() -> None:
    answers = levelled(SURE)
    cells = cells_of(answers)
    assert cells is not None
    assert inside(cells) == 1.0
    assert (told(answers) > 0).sum() == len(answers)


def test_truncated_scores_bound_the_dropped_ones_by_the_least_that_was_kept() -> None:
    answers = rounded(SURE, 0.05)
    answers[answers < np.sort(answers, axis=1)[:, -2:-1]] = 0.0
    cells = cells_of(answers)
    assert cells is not None
    assert inside(cells) > 0.97


def test_a_tail_of_labels_is_no_scores_that_read_one() -> None:
    labels = one_hot(SURE.argmax(axis=1).astype(np.float64), 4)
    scores = rounded(SURE, 0.05)
    mixed = np.concatenate((scores[:200], labels[200:]))
    last = 1 + int(np.flatnonzero((scores[:200] < 1).all(axis=1))[-1])
    assert bare_labels(mixed).sum() == 300 - last
    assert not bare_labels(scores).any()
    assert bare_labels(labels).all()


def test_nothing_is_outside_of_its_own_cells() -> None:
    cells = Cells(SURE - 0.01, SURE + 0.01, SURE.argmax(axis=1))
    assert outside(SURE, cells)[0] == 0.0
    start = np.clip(SURE[:, ::-1], 0.01, 0.9)
    value, gradient = outside(start, cells)
    step = 1e-6 * np.random.default_rng(1).normal(size=SURE.shape)
    change = outside(start + step, cells)[0] - outside(start - step, cells)[0]
    assert value > 1
    assert change == pytest.approx(2 * (gradient * step).sum(), rel=1e-2)
