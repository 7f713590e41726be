"""Renormalising what is left."""

from __future__ import annotations

import numpy as np
import pytest

from guard.defences.base import DROPPED_LOGPROB, Batch
from guard.defences.renormalise import Renormalise
from guard.defences.top_k import TopK
from tests.support.randomness import Seeded, batch_of

LOGPROBS = np.log([[0.4, 0.1, 0.05], [0.001, 0.2, 0.3]])


def apply(batch: Batch, mass: float = 1.0) -> Batch:
    return Renormalise(mass=mass).apply(batch, Seeded(len(batch.scores)), b"")


@pytest.mark.parametrize("mass", [1.0, 0.5])
def test_what_is_left_has_the_mass(mass: float) -> None:
    after = apply(batch_of(LOGPROBS, "logprobs", complete=False), mass)
    assert np.exp(after.scores).sum(axis=1) == pytest.approx([mass, mass])
    probabilities = apply(batch_of(np.exp(LOGPROBS), complete=False), mass)
    assert np.exp(after.scores) == pytest.approx(probabilities.scores)


def test_differences_stay_and_the_mass_of_the_rest_is_hidden() -> None:
    before = batch_of(LOGPROBS, "logprobs", complete=False)
    less = before._replace(scores=before.scores - 1.0)  # the same list, with more left out
    assert apply(before).scores == pytest.approx(apply(less).scores)
    assert np.diff(apply(before).scores) == pytest.approx(np.diff(LOGPROBS))


def test_a_number_alone_says_nothing() -> None:
    after = apply(batch_of([[-0.1], [-7.0]], "logprobs", complete=False), 0.5)
    assert after.scores == pytest.approx(np.full((2, 1), np.log(0.5)))


def test_what_was_dropped_stays_dropped() -> None:
    cut = TopK(k=2).apply(batch_of(LOGPROBS, "logprobs", complete=False), Seeded(2), b"")
    after = apply(cut)
    assert after.kept is not None
    assert after.scores[0, 2] == DROPPED_LOGPROB
    assert np.exp(after.scores).sum(axis=1) == pytest.approx([1.0, 1.0])


def test_a_row_of_zeros_stays() -> None:
    after = apply(batch_of([[0.0, 0.0], [0.1, 0.3]], complete=False))
    assert after.scores == pytest.approx(np.array([[0.0, 0.0], [0.25, 0.75]]))
