"""Truncation."""

from __future__ import annotations

from guard.defences.base import Batch
from guard.defences.noise import Noise
from guard.defences.renormalise import Renormalise
from guard.defences.round import Round
from guard.defences.temperature import Temperature
from guard.defences.top_k import TopK
from tests.support.randomness import Seeded, batch_of


def apply(k: int, batch: Batch) -> Batch:
    return TopK(k=k).apply(batch, Seeded(len(batch.scores)), b"")


def test_the_rest_reads_zero_and_is_not_kept() -> None:
    after = apply(2, batch_of([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]))
    assert after.scores.tolist() == [[0, 0.6, 0.3], [0.5, 0, 0.3]]
    assert after.kept is not None
    assert after.kept.tolist() == [[False, True, True], [True, False, True]]
    assert not after.complete


def test_rows_no_longer_than_k_are_left_alone() -> None:
    batch = batch_of([[0.4, 0.6]])
    assert apply(2, batch) is batch
    assert apply(5, batch) is batch


def test_equal_scores_at_the_border_keep_exactly_k_the_first_ones() -> None:
    after = apply(2, batch_of([[0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.2, 0.5]]))
    assert after.kept is not None
    assert after.kept.tolist() == [[True, True, False, False], [False, True, False, True]]


def test_the_top_stays_among_equal_scores() -> None:
    after = apply(1, batch_of([[0.2, 0.4, 0.4]]))
    assert after.scores.tolist() == [[0, 0.4, 0]]


def test_a_second_truncation_never_brings_scores_back() -> None:
    once = apply(1, batch_of([[0.2, 0.5, 0.3]]))
    twice = apply(2, once)
    assert twice.kept is not None
    assert twice.kept.tolist() == [[False, True, False]]


def test_a_dropped_logprob_is_the_least_there_can_be() -> None:
    after = apply(1, batch_of([[-2.0, -0.3, -1.5]], "logprobs"))
    assert after.scores.tolist() == [[-9999.0, -0.3, -9999.0]]
    assert after.scores.argmax(axis=1).tolist() == [1]


def test_steps_behind_it_keep_dropped_logprobs_where_they_are() -> None:
    cut = apply(2, batch_of([[-2.0, -0.3, -1.5, -4.0]], "logprobs"))
    for spec in (Noise(scale=0.5), Round(decimals=1), Temperature(t=2.0), Renormalise()):
        after = spec.apply(cut, Seeded(1), b"")
        assert after.scores[0, [0, 3]].tolist() == [-9999.0, -9999.0]
        assert after.scores.argmax(axis=1).tolist() == [1]
