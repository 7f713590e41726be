"""The reverse sigmoid."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.reverse_sigmoid import ReverseSigmoid
from guard.defences.top_k import TopK
from tests.support.randomness import Seeded, batch_of

SCORES = np.random.default_rng(3).dirichlet(np.full(5, 0.3), 200)


def apply(batch: Batch, beta: float = 0.9, gamma: float = 0.2) -> Batch:
    return ReverseSigmoid(beta=beta, gamma=gamma).apply(batch, Seeded(len(batch.scores)), b"")


def test_two_classes_follow_the_formula() -> None:
    p = np.array([0.9, 0.1])
    taken = 0.9 * (1 / (1 + np.exp(-0.2 * np.log(p / (1 - p)))) - 0.5)
    assert np.allclose(apply(batch_of([p])).scores, [(p - taken) / (p - taken).sum()])


def test_one_answer_stands_for_two_scores() -> None:
    # The curve falls from 0 to its least value and rises again.
    p = np.linspace(0.5, 1 - 1e-9, 2001)
    released = apply(batch_of(np.stack((p, 1 - p), axis=1))).scores[:, 0]
    assert np.diff(released).min() < 0 < np.diff(released).max()


def test_a_class_that_would_overtake_changes_places_with_the_top() -> None:
    # With three certain classes in ten thousandths the curve lifts the least likely most.
    batch = batch_of(SCORES)
    after = apply(batch, beta=1.0, gamma=1.0)
    assert after.scores.argmax(axis=1).tolist() == batch.top.tolist()
    assert np.allclose(after.scores.sum(axis=1), 1)


def test_certain_and_even_rows_stay_distributions() -> None:
    after = apply(batch_of([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5]])).scores
    assert np.allclose(after.sum(axis=1), 1)
    assert after.argmax(axis=1).tolist() == [0, 0, 1]
    assert np.allclose(after[1], 1 / 3)


def test_dropped_scores_stay_dropped() -> None:
    truncated = TopK(k=2).apply(batch_of(SCORES), Seeded(200), b"")
    after = apply(truncated)
    assert truncated.kept is not None
    assert not after.scores[~truncated.kept].any()
    assert after.scores.max() <= 1
    assert after.kept is truncated.kept


@pytest.mark.parametrize(("beta", "gamma"), [(0, 0.2), (1.1, 0.2), (0.9, 0), (0.9, float("nan"))])
def test_parameters_out_of_range_are_refused(beta: float, gamma: float) -> None:
    with pytest.raises(ValidationError):
        ReverseSigmoid(beta=beta, gamma=gamma)
