"""Rounding that keeps the argmax and, where it can, the sum."""

from __future__ import annotations

import numpy as np

from guard.defences.base import Batch
from guard.defences.round import Round
from guard.model.outputs import Kind
from tests.support.randomness import Seeded, batch_of


def apply(decimals: int, batch: Batch) -> Batch:
    return Round(decimals=decimals).apply(batch, Seeded(len(batch.scores)), b"")


def rounded(decimals: int, scores: object, kind: Kind = "probabilities", *, complete: bool = True) -> list[list[float]]:
    return apply(decimals, batch_of(scores, kind, complete=complete)).scores.tolist()


def test_nearest_when_the_sum_holds() -> None:
    assert rounded(2, [[0.121, 0.239, 0.640]]) == [[0.12, 0.24, 0.64]]
    assert rounded(1, [[0.21, 0.49, 0.30]]) == [[0.2, 0.5, 0.3]]


def test_a_missing_unit_goes_to_the_largest_residual() -> None:
    assert rounded(2, [[0.334, 0.333, 0.333]]) == [[0.34, 0.33, 0.33]]
    assert rounded(2, [[0.123, 0.234, 0.643]]) == [[0.12, 0.24, 0.64]]


def test_a_unit_too_many_comes_from_the_entry_rounded_up_most() -> None:
    assert rounded(1, [[0.46, 0.37, 0.17]]) == [[0.4, 0.4, 0.2]]


def test_rows_of_one_batch_are_repaired_each_by_itself() -> None:
    result = np.array(rounded(2, [[0.335, 0.332, 0.333], [0.25, 0.5, 0.25], [0.126, 0.436, 0.438]]))
    assert np.allclose(result.sum(axis=1), 1)
    assert result[1].tolist() == [0.25, 0.5, 0.25]


def test_a_tie_with_a_class_before_the_top_moves_one_unit() -> None:
    assert rounded(2, [[0.3996, 0.4004, 0.2]]) == [[0.39, 0.41, 0.2]]


def test_a_tie_with_a_class_behind_the_top_stays() -> None:
    assert rounded(2, [[0.4004, 0.3996, 0.2]]) == [[0.4, 0.4, 0.2]]


def test_a_repair_that_would_overtake_the_top_changes_places() -> None:
    # Nearest gives .3, .3, .4; in units 3.4, 3.2 and 3.4: column 0 has as large a residual as the top and comes first.
    assert rounded(1, [[0.34, 0.32, 0.34 + 1e-17]]) == [[0.4, 0.3, 0.3]]
    result = np.array(rounded(1, [[0.3399999, 0.32, 0.3400001]]))
    assert result.tolist() == [[0.3, 0.3, 0.4]]


def test_the_top_of_many_small_classes_keeps_at_least_one_unit() -> None:
    scores = np.full((1, 1000), 1e-3)
    scores[0, 700] += 1e-6
    for complete in (True, False):
        result = apply(2, batch_of(scores, complete=complete)).scores
        assert result.argmax(axis=1).tolist() == [700]
    assert np.isclose(apply(2, batch_of(scores)).scores.sum(), 1)


def test_scores_of_several_labels_never_leave_the_unit_interval() -> None:
    assert rounded(1, [[0.97, 0.98, 0.2]], complete=False) == [[0.9, 1.0, 0.2]]
    assert rounded(0, [[0.9, 0.95]], complete=False) == [[0.0, 1.0]]


def test_no_decimals_is_one_hot() -> None:
    assert rounded(0, [[0.3, 0.36, 0.34]]) == [[0, 1, 0]]


def test_a_truncated_row_is_rounded_plainly() -> None:
    assert rounded(1, [[0.46, 0.36, 0.0]], complete=False) == [[0.5, 0.4, 0.0]]


def test_other_kinds_are_rounded_plainly_without_a_negative_zero() -> None:
    result = rounded(1, [[-0.04, 12.36]], "value")
    assert result == [[0.0, 12.4]]
    assert not np.signbit(result[0][0])
    assert rounded(0, [[0.4, 0.45]], "embedding") == [[0, 0]]


def test_logits_keep_their_argmax_beside_masked_classes() -> None:
    assert rounded(1, [[-3.4e38, -1.02, -0.98]], "logits") == [[-3.4e38, -1.0, -0.9]]


def test_numbers_too_large_for_decimals_stay() -> None:
    assert rounded(15, [[1e300, 12.25]], "value") == [[1e300, 12.25]]
    assert rounded(15, [[1e17, 2e17]], "logits") == [[1e17, 2e17]]


def test_logprobs_stay_at_most_zero() -> None:
    assert rounded(0, [[-0.45, -0.44]], "logprobs", complete=False) == [[-1.0, 0.0]]
