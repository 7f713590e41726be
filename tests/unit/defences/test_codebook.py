"""A codebook that is frozen on calibration answers."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.codebook import Codebook, cover
from guard.defences.top_k import TopK
from guard.errors import InvariantError
from guard.model.arrays import Floats
from tests.support.randomness import Seeded, batch_of

CALIBRATION = np.random.default_rng(1).dirichlet(np.full(4, 0.4), 400)
FRESH = np.random.default_rng(2).dirichlet(np.full(4, 0.4), 300)


def apply(batch: Batch, answers: Floats = CALIBRATION, epsilon: float = 0.1) -> Batch:
    return Codebook(epsilon=epsilon).calibrated(answers).apply(batch, Seeded(len(batch.scores)), b"")


def test_every_calibration_answer_is_within_epsilon_of_its_codeword() -> None:
    after = apply(batch_of(CALIBRATION)).scores
    assert np.abs(after - CALIBRATION).sum(axis=1).max() <= 0.1
    assert len(np.unique(after, axis=0)) < len(CALIBRATION)


def test_codewords_of_a_class_are_further_apart_than_epsilon() -> None:
    book = cover(CALIBRATION, 0.2)
    for label in range(4):
        words = book.of(label)
        assert (words.argmax(axis=1) == label).all()
        apart = np.abs(words[:, None] - words[None]).sum(axis=2)[~np.eye(len(words), dtype=bool)]
        assert apart.min() > 0.2


def test_answers_are_the_nearest_codeword_of_the_same_class() -> None:
    batch = batch_of(FRESH)
    after, book = apply(batch).scores, cover(CALIBRATION, 0.1)
    assert np.array_equal(after.argmax(axis=1), batch.top)
    for row, top, word in zip(FRESH, batch.top.tolist(), after, strict=True):
        far = np.abs(book.of(top) - row).sum(axis=1)
        assert np.abs(word - row).sum() == pytest.approx(far.min())


def test_what_clients_ask_teaches_it_nothing() -> None:
    spec = Codebook().calibrated(CALIBRATION)
    odd = batch_of([[0.26, 0.25, 0.245, 0.245]])
    first = spec.apply(odd, Seeded(1), b"").scores
    spec.apply(batch_of(FRESH), Seeded(300), b"")
    assert np.array_equal(spec.apply(odd, Seeded(1), b"").scores, first)
    assert first.tolist() != odd.scores.tolist()


def test_a_class_that_calibration_never_saw_is_answered_by_its_label() -> None:
    answers = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    after = apply(batch_of([[0.1, 0.2, 0.7], [0.05, 0.0, 0.95]]), answers).scores
    assert np.allclose(after, [[0.15, 0.15, 0.7]] * 2)


def test_other_widths_are_answered_by_their_label() -> None:
    # A client's top-2 list: its columns are ranks, and one class more shares the rest.
    answers = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]])
    one, other = apply(batch_of([[0.5, 0.3], [0.9, 0.05]], complete=False), answers).scores
    assert np.allclose(one, [0.7, 0.15])
    assert np.array_equal(one, other)
    assert apply(batch_of([[0.3]], complete=False), answers).scores.tolist() == [[0.7]]


def test_a_truncated_row_takes_the_codeword_nearest_in_what_was_kept() -> None:
    # Read as a 0, the dropped score would make the first codeword the nearer one.
    answers = np.array([[0.6, 0.4, 0.0], [0.45, 0.3, 0.25]])
    truncated = TopK(k=2).apply(batch_of([[0.5, 0.3, 0.2], [0.6, 0.15, 0.25]]), Seeded(2), b"")
    after = apply(truncated, answers)
    assert np.allclose(after.scores, [[0.45, 0.3, 0], [0.45, 0, 0.25]])
    assert after.kept is truncated.kept


def test_a_tie_keeps_the_model_s_label() -> None:
    answers = np.array([[0.5, 0.5, 0.0], [0.1, 0.8, 0.1]])
    after = apply(batch_of([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1]]), answers)
    assert after.scores.argmax(axis=1).tolist() == [0, 1]


def test_rows_are_answered_alone_as_in_a_batch() -> None:
    whole = apply(batch_of(FRESH)).scores
    spec = Codebook().calibrated(CALIBRATION)
    alone = [spec.apply(batch_of(FRESH[i : i + 1]), Seeded(1), b"").scores[0] for i in range(60)]
    assert np.array_equal(alone, whole[:60])


@pytest.mark.parametrize(("classes", "most"), [(2, 256), (64, 256), (1000, 16), (20_000, 1)])
def test_a_row_is_compared_with_a_bounded_number_of_codewords(classes: int, most: int) -> None:
    # All of one class, no two within epsilon.
    answers = np.zeros((300, classes))
    answers[:, 0] = np.linspace(0.51, 1, 300)
    answers[:, 1] = 1 - answers[:, 0]
    assert len(cover(answers, 1e-3).of(0)) == most


def test_large_batches_are_compared_in_parts() -> None:
    many = np.tile(FRESH, (40, 1))
    assert np.array_equal(apply(batch_of(many)).scores[-300:], apply(batch_of(FRESH)).scores)


@pytest.mark.parametrize("answers", [np.empty((0, 3)), np.empty((0, 0)), np.ones((5, 1))])
def test_without_calibration_answers_it_says_what_to_do(answers: Floats) -> None:
    with pytest.raises(ValueError, match="guard calibrate"):
        Codebook().calibrated(answers)


def test_it_does_not_run_before_it_is_calibrated() -> None:
    with pytest.raises(InvariantError):
        Codebook().apply(batch_of(FRESH), Seeded(300), b"")


@pytest.mark.parametrize("epsilon", [0, 2.1, float("nan")])
def test_an_epsilon_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(ValidationError):
        Codebook(epsilon=epsilon)
