"""Two clients' vectors of one text are as unrelated as two random ones: their cosine is N(0, 1/d).

Kolmogorov-Smirnov tests of 400 pairs of clients each, all with the same vector (an axis or any); d = 64, 384, 1,024.
A sound rotation fails one with a probability of at most 1e-6; seeds are fixed. The control turns less, and fails.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from guard.defences.rotate import Rotate, hartley
from guard.engine.randomness import QueryNoise
from guard.model.arrays import Floats
from guard.model.queries import Queries
from tests.support.randomness import batch_of

PAIRS = 400
CRITICAL = float(np.sqrt(-np.log(1e-6 / 2) / 2)) / np.sqrt(PAIRS)
"""Of the statistic, by the bound of Dvoretzky, Kiefer and Wolfowitz (Massart 1990)."""


def distance(cosines: Floats, d: int) -> float:
    """Return the greatest distance between the cosines' distribution and N(0, 1/d)."""
    normal = NormalDist(0.0, 1 / np.sqrt(d))
    expected = np.array([normal.cdf(cosine) for cosine in np.sort(cosines).tolist()])
    steps = np.arange(PAIRS + 1) / PAIRS
    return float(np.maximum(np.abs(expected - steps[1:]), np.abs(expected - steps[:-1])).max())


def seen_by(client: str, vector: Floats) -> Floats:
    noise = QueryNoise(bytes(range(32)), "model", client, Queries(1, ["a text"]), None)
    return Rotate().apply(batch_of(vector, "embedding"), noise, b"").scores


@pytest.mark.parametrize(("d", "plain"), [(64, True), (64, False), (384, False), (1024, True)])
def test_the_cosine_of_one_text_between_clients_is_that_of_unrelated_ones(d: int, plain: bool) -> None:
    vector = np.eye(d)[:1] if plain else np.random.default_rng(d).normal(size=(1, d))
    vector /= np.linalg.norm(vector)
    cosines = [float((seen_by(f"a{i}", vector) * seen_by(f"b{i}", vector)).sum()) for i in range(PAIRS)]
    assert distance(np.array(cosines), d) < CRITICAL


def test_signs_and_one_transform_alone_are_caught() -> None:
    """Negative control: with signs for angles and no permutation, an axis goes to plus or minus the same vector."""
    generator = np.random.default_rng(0)
    d = 384
    cosines = [
        float((hartley(np.eye(d)[:1] * a) * hartley(np.eye(d)[:1] * b)).sum())
        for a, b in generator.choice([-1.0, 1.0], (PAIRS, 2))
    ]
    assert distance(np.array(cosines), d) > CRITICAL
