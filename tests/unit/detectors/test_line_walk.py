from __future__ import annotations

import numpy as np

from guard.detectors.base import Features
from guard.detectors.line_walk import LineWalk
from guard.detectors.sketch import Sketcher
from guard.detectors.stream import Stream
from guard.model.queries import Queries
from tests.support.detecting import SALT, honest, signals


def bisection(start: np.ndarray, end: np.ndarray, n: int = 12) -> np.ndarray:
    """Return the queries of a binary search between two points."""
    low, high, rows = 0.0, 1.0, [start, end]
    for step in range(n):
        middle = (low + high) / 2
        rows.append(start + middle * (end - start))
        low, high = (middle, high) if step % 3 else (low, middle)
    return np.array(rows)


def unscaled(rows: np.ndarray) -> np.ndarray:
    found: Features = Sketcher(None, SALT).features(Queries(len(rows), rows.tolist()))
    return Stream([LineWalk().bind({}, 0, SALT)]).ask(found)


def test_a_binary_search_moves_it_and_honest_queries_do_not() -> None:
    attack = np.concatenate([bisection(honest(i)[0], honest(i)[1]) for i in range(10)])

    assert signals(LineWalk(), attack).mean() > 0.8
    assert signals(LineWalk(), honest(1)).mean() == 0


def test_without_a_scale_a_feature_of_large_numbers_hides_nothing_and_alarms_nobody() -> None:
    scale = np.array([1e5, 1, 1, 1, 1, 1, 1, 1])
    attack = np.concatenate([bisection(honest(i)[0], honest(i)[1]) for i in range(10)]) * scale

    assert unscaled(attack).mean() > 0.8
    assert unscaled(honest(1) * scale).mean() == 0


def test_standing_still_is_no_walk() -> None:
    assert signals(LineWalk(), np.repeat(honest(1)[:1], 50, axis=0)).sum() == 0


def test_one_feature_has_no_directions() -> None:
    assert signals(LineWalk(), np.arange(50.0)[:, None]).sum() == 0
    assert unscaled(np.arange(50.0)[:, None]).sum() == 0
