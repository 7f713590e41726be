from __future__ import annotations

import numpy as np
import pytest

from guard.defences.clip import Clip
from tests.support.randomness import Seeded, batch_of


def test_longer_vectors_are_scaled_and_shorter_ones_stay_to_the_last_bit() -> None:
    vectors = np.random.default_rng(3).normal(size=(50, 24)) * np.geomspace(0.01, 10, 50)[:, None]
    after = Clip(norm=2.0).apply(batch_of(vectors, "embedding"), Seeded(50), b"").scores
    norms = np.linalg.norm(vectors, axis=1)
    assert np.linalg.norm(after, axis=1) == pytest.approx(np.minimum(norms, 2.0))
    assert np.array_equal(after[norms <= 2.0], vectors[norms <= 2.0])
    cosines = (after * vectors).sum(axis=1) / (np.linalg.norm(after, axis=1) * norms)
    assert cosines == pytest.approx(np.ones(50))


@pytest.mark.parametrize("size", [1e308, 1e-308, 5e-324, 0.0])
def test_the_greatest_and_the_least_numbers_overflow_nothing(size: float) -> None:
    vectors = np.array([[size, -size, 0.0]])
    after = Clip().apply(batch_of(vectors, "embedding"), Seeded(1), b"").scores
    assert np.isfinite(after).all()
    assert np.linalg.norm(after) == pytest.approx(1.0 if size > 1 else 0.0)
    assert size > 1 or np.array_equal(after, vectors)


def test_a_vector_is_clipped_the_same_alone_and_beside_others() -> None:
    vectors = np.random.default_rng(4).normal(size=(9, 33))
    together = Clip().apply(batch_of(vectors, "embedding"), Seeded(9), b"").scores
    for i in range(9):
        alone = Clip().apply(batch_of(vectors[i : i + 1], "embedding"), Seeded(1), b"").scores
        assert np.array_equal(alone[0], together[i])
