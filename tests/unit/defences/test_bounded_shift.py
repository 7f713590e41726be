"""A bounded mass that moves from the likeliest classes to the least likely."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.bounded_shift import BoundedShift
from guard.defences.top_k import TopK
from tests.support.randomness import Seeded, batch_of

SCORES = np.random.default_rng(3).dirichlet(np.full(6, 0.4), 300)


def apply(batch: Batch, epsilon: float = 0.2) -> Batch:
    return BoundedShift(epsilon=epsilon).apply(batch, Seeded(len(batch.scores)), b"")


def test_half_of_epsilon_moves_from_the_top_to_the_least_likely() -> None:
    after = apply(batch_of([[0.05, 0.8, 0.15], [0.7, 0.2, 0.1]])).scores
    assert np.allclose(after, [[0.15, 0.7, 0.15], [0.6, 0.2, 0.2]])


def test_where_the_top_would_fall_to_the_second_both_give() -> None:
    after = apply(batch_of([[0.5, 0.46, 0.04]])).scores[0]
    assert np.allclose(after, [0.43, 0.43, 0.14], atol=1e-3)
    assert after[0] > after[1]


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5, 1, 2])
def test_the_distance_is_bounded_and_the_top_is_kept(epsilon: float) -> None:
    batch = batch_of(np.concatenate((SCORES, np.eye(6), np.full((1, 6), 1 / 6))))
    after = apply(batch, epsilon).scores
    moved = np.abs(after - batch.scores).sum(axis=1)
    assert moved.max() <= epsilon * (1 + 1e-9)
    assert np.array_equal(after.argmax(axis=1), batch.top)
    assert np.allclose(after.sum(axis=1), 1)
    assert after.min() >= 0


def test_as_much_moves_as_may_where_there_is_room() -> None:
    after = apply(batch_of(np.eye(4)), 0.3).scores
    assert np.allclose(np.abs(after - np.eye(4)).sum(axis=1), 0.3)


def test_two_classes_stop_before_they_change_places() -> None:
    after = apply(batch_of([[0.55, 0.45]]), 1.0).scores
    assert np.allclose(after, [[0.5, 0.5]], atol=1e-3)
    assert after[0, 0] > after[0, 1]


def test_an_even_row_stays() -> None:
    even = [[0.25, 0.25, 0.25, 0.25]]
    assert np.allclose(apply(batch_of(even)).scores, even)


def test_dropped_scores_neither_give_nor_get() -> None:
    truncated = TopK(k=3).apply(batch_of(SCORES), Seeded(300), b"")
    after = apply(truncated)
    assert truncated.kept is not None
    assert not after.scores[~truncated.kept].any()
    assert np.allclose(after.scores.sum(axis=1), truncated.scores.sum(axis=1))
    single = apply(TopK(k=1).apply(batch_of(SCORES), Seeded(300), b""))
    assert np.allclose(single.scores.max(axis=1), SCORES.max(axis=1))


def test_a_single_score_stays() -> None:
    batch = batch_of([[0.6]], complete=False)
    assert apply(batch) is batch


@pytest.mark.parametrize("epsilon", [0, -0.1, 2.1, float("nan")])
def test_an_epsilon_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(ValidationError):
        BoundedShift(epsilon=epsilon)
