"""A label drawn by the exponential mechanism: with the odds that its epsilon says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guard.privacy.events import BoundedRange
from tests.support.mechanisms import Cryptographic, bound
from tests.support.randomness import Seeded, batch_of


def share_of_first(row: list[float], epsilon: float, quorum: int, sensitivity: float | None) -> float:
    mechanism = bound("exponential", columns=len(row), quorum=quorum, sensitivity=sensitivity, epsilon=epsilon)
    return np.count_nonzero(mechanism.apply(batch_of([row] * 40_000), Seeded(0, 1), b"").top == 0) / 40_000


@pytest.mark.parametrize(
    ("row", "epsilon", "quorum", "sensitivity", "rate"),
    [
        ([1.0, 0.0], 2.0, 1, None, 1.0),
        ([0.5, 0.3, 0.2], 0.2, 100, None, 10.0),
        ([0.5, 0.3, 0.2], 0.2, 1, 0.01, 10.0),
    ],
)
def test_a_score_weighs_by_half_epsilon_a_sensitivity(
    row: list[float], epsilon: float, quorum: int, sensitivity: float | None, rate: float
) -> None:
    weights = [math.exp(rate * score) for score in row]
    expected = weights[0] / sum(weights)
    found = share_of_first(row, epsilon, quorum, sensitivity)
    assert abs(found - expected) < 4.9 * math.sqrt(expected * (1 - expected) / 40_000)
    doubled = share_of_first(row, 2 * epsilon, quorum, sensitivity)
    assert abs(doubled - expected) > 4.9 * math.sqrt(expected * (1 - expected) / 40_000)


def test_only_the_label_leaves_and_costs_a_bounded_range() -> None:
    mechanism = bound("exponential", columns=3, epsilon=0.5)
    after = mechanism.apply(batch_of([[0.9, 0.05, 0.05]] * 300), Cryptographic(), b"")
    assert after.labels_only
    assert after.kept is not None
    assert np.array_equal(after.scores, after.kept)
    assert np.array_equal(after.top, after.scores.argmax(axis=1))
    assert set(after.top.tolist()) == {0, 1, 2}
    assert mechanism.event() == BoundedRange(0.5)
    assert mechanism.noise() == "a draw with weights e^(0.25 * score)"


def test_rounding_to_the_grid_counts_towards_the_sensitivity() -> None:
    grid = bound("exponential", quorum=3, epsilon=0.5).grid
    assert grid.fine
    # Scores a third apart that round away from each other differ by one whole step more.
    assert grid.scale >= (1 / 3) / grid.grain + 1


@pytest.mark.parametrize("epsilon", [1e-12, 1000.0])
def test_the_least_and_the_greatest_epsilon_work(epsilon: float) -> None:
    mechanism = bound("exponential", columns=3, quorum=4096, epsilon=epsilon)
    top = mechanism.apply(batch_of([[0.2, 0.5, 0.3]] * 300), Cryptographic(), b"").top
    assert (set(top.tolist()) == {1}) == (epsilon > 1)
