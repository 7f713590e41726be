"""What all defences share: keeping the argmax, handing out units, refusing kinds."""

from __future__ import annotations

import numpy as np
import pytest

from guard.defences.base import Defence, apportion, has_classes, keep_top, same_columns
from guard.defences.grid import Grid
from guard.model.outputs import Outputs
from tests.support.randomness import Seeded, batch_of


def test_scores_that_agree_with_the_top_are_not_copied() -> None:
    scores = np.array([[0.2, 0.8]])
    assert keep_top(scores, np.array([1])) is scores


def test_a_greater_score_changes_places_with_the_top() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]])
    kept = keep_top(scores, np.array([2, 2]))
    assert kept.tolist() == [[0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]
    assert scores.tolist() == [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]


@pytest.mark.parametrize("value", [0.25, -3.5, 0.0, 1.0])
def test_every_tie_before_the_top_is_parted_by_a_last_bit(value: float) -> None:
    kept = keep_top(np.full((1, 4), value), np.array([2]))
    assert kept.argmax(axis=1).tolist() == [2]
    assert np.abs(kept - value).max() < 1e-15


def test_a_tie_at_zero_never_makes_a_positive_logprob_or_a_negative_probability() -> None:
    assert keep_top(np.array([[0.0, 0.0, -1.0]]), np.array([1])).max() == 0
    assert keep_top(np.array([[0.0, 0.0, 0.0]]), np.array([1])).min() == 0


def test_a_swap_that_leaves_a_tie_is_parted_too() -> None:
    assert keep_top(np.array([[0.4, 0.4, 0.2]]), np.array([2])).argmax(axis=1).tolist() == [2]


def test_units_go_to_the_largest_remainders_and_come_from_the_smallest() -> None:
    moves = apportion(np.array([[0.1, 0.4, 0.3], [-0.1, -0.4, -0.3], [0.3, -0.2, 0.0]]), np.array([2.0, -1.0, 0.0]))
    assert moves.tolist() == [[0, 1, 1], [0, -1, 0], [0, 0, 0]]


def test_equal_remainders_take_the_first_columns() -> None:
    assert apportion(np.full((1, 5), 0.2), np.array([2.0])).tolist() == [[1, 1, 0, 0, 0]]


def test_columns_agree_or_do_not() -> None:
    assert same_columns(np.array([1, 2]), np.array([1, 2]))
    assert not same_columns(np.array([1, 2]), np.array([1, 3]))


def test_values_and_embeddings_have_no_classes() -> None:
    assert has_classes("logits")
    assert not has_classes("value")
    assert not has_classes("embedding")


def test_a_refused_kind_names_the_edit() -> None:
    (problem,) = Grid().check(Outputs(kind="logits"), None)
    assert problem.path == "kind"
    assert "logits" in problem.message
    assert problem.hint


def test_a_defence_without_an_implementation_says_so() -> None:
    with pytest.raises(NotImplementedError):
        Defence(kind="none").apply(batch_of([[1.0]]), Seeded(1), b"")
