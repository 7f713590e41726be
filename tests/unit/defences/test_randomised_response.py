"""A label that is told or another: with the odds that its epsilon says, whatever else is declared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guard.privacy.events import Pure
from tests.support.mechanisms import Cryptographic, bound
from tests.support.randomness import Seeded, batch_of


@pytest.mark.parametrize("columns", [2, 3, 100])
@pytest.mark.parametrize("epsilon", [0.5, 3.0])
def test_the_label_is_kept_with_its_probability_and_all_others_are_alike(columns: int, epsilon: float) -> None:
    row = np.full(columns, 0.5 / columns)
    row[1] += 0.5
    top = (
        bound("randomised_response", columns=columns, epsilon=epsilon)
        .apply(batch_of([row] * 40_000), Seeded(0, columns), b"")
        .top
    )
    kept = math.exp(epsilon) / (math.exp(epsilon) + columns - 1)
    for column, expected in ((1, kept), (0, (1 - kept) / (columns - 1))):
        found = np.count_nonzero(top == column) / 40_000
        assert abs(found - expected) < 4.9 * math.sqrt(expected * (1 - expected) / 40_000)
    doubled = math.exp(2 * epsilon) / (math.exp(2 * epsilon) + columns - 1)
    assert abs(np.count_nonzero(top == 1) / 40_000 - doubled) > 4.9 * math.sqrt(doubled * (1 - doubled) / 40_000)


def test_only_the_label_leaves() -> None:
    after = bound("randomised_response", columns=3, epsilon=0.5).apply(
        batch_of([[0.9, 0.05, 0.05]] * 300), Cryptographic(), b""
    )
    assert after.labels_only
    assert after.kept is not None
    assert np.array_equal(after.scores, after.kept)
    assert np.array_equal(after.top, after.scores.argmax(axis=1))


def test_neither_quorum_nor_a_declared_sensitivity_makes_a_label_cheaper() -> None:
    scores = batch_of([[0.9, 0.05, 0.05]] * 500)
    plain, many, declared = (
        bound("randomised_response", columns=3, quorum=quorum, sensitivity=sensitivity, epsilon=2.0)
        for quorum, sensitivity in ((1, None), (100, None), (1, 1e-6))
    )
    for mechanism in (many, declared):
        assert mechanism.event() == Pure(2.0)
        assert np.array_equal(mechanism.apply(scores, Seeded(0), b"").top, plain.apply(scores, Seeded(0), b"").top)


def test_words_say_how_often_the_label_is_kept() -> None:
    assert bound("randomised_response", columns=10, epsilon=2.0).noise() == (
        "the label with probability 0.450853, else any other alike"
    )
