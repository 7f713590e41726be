"""Flattening and sharpening."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.temperature import Temperature
from tests.support.randomness import Seeded, batch_of


def apply(t: float, batch: Batch) -> Batch:
    return Temperature(t=t).apply(batch, Seeded(len(batch.scores)), b"")


def test_probabilities_are_raised_to_a_power_and_renormalised() -> None:
    after = apply(2, batch_of([[0.8, 0.2]]))
    assert np.allclose(after.scores, [[2 / 3, 1 / 3]])


def test_logits_are_divided() -> None:
    assert apply(2, batch_of([[3.0, -1.0]], "logits")).scores.tolist() == [[1.5, -0.5]]


def test_logprobs_agree_with_probabilities() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]])
    after = apply(3, batch_of(np.log(scores), "logprobs"))
    assert np.allclose(np.exp(after.scores), apply(3, batch_of(scores)).scores)


def test_a_truncated_row_keeps_its_mass() -> None:
    assert np.isclose(apply(2, batch_of([[0.5, 0.2, 0.0]], complete=False)).scores.sum(), 0.7)
    after = apply(2, batch_of(np.log([[0.5, 0.2]]), "logprobs", complete=False))
    assert np.isclose(np.exp(after.scores).sum(), 0.7)


def test_a_row_of_zeros_stays() -> None:
    assert apply(2, batch_of([[0.0, 0.0]], complete=False)).scores.tolist() == [[0.0, 0.0]]


def test_extreme_temperatures_neither_underflow_nor_lose_the_top() -> None:
    cold = apply(1e-3, batch_of([[1e-9, 1 - 2e-9, 1e-9]]))
    assert cold.scores.tolist() == [[0, 1, 0]]
    third = 1 / 3
    hot = apply(1e3, batch_of([[third, np.nextafter(third, 1), np.nextafter(third, 0)]]))
    assert hot.scores.argmax(axis=1).tolist() == [1]
    assert apply(1e3, batch_of([[-3.4e38, 1.0, 1.0 + 1e-16]], "logits")).scores.argmax(axis=1).tolist() == [1]


@pytest.mark.parametrize("t", [0, -1, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(t: float) -> None:
    with pytest.raises(ValidationError):
        Temperature(t=t)
