"""Laplace noise on a grid: its size, and what a coarse grid costs."""

from __future__ import annotations

import numpy as np
import pytest

from guard.model.outputs import Outputs
from guard.privacy.events import Laplace, Pure
from tests.support.mechanisms import Cryptographic, bound
from tests.support.randomness import Seeded, batch_of

RNG = Cryptographic()
WIDE = Outputs(kind="value", low=-1000, high=1000)


def test_noise_has_its_scale_and_no_bias() -> None:
    mechanism = bound("dp_laplace", outputs=WIDE, columns=1, sensitivity=1.0, noise_multiplier=1.0)
    noise = mechanism.apply(batch_of([[0.25]] * 40_000, "value"), Seeded(40_000, 3), b"").scores[:, 0] - 0.25
    # |noise| is exponential: mean and standard deviation 1. 4.9 standard errors: one in a million.
    for sample, mean, spread in ((noise, 0.0, 2**0.5), (np.abs(noise), 1.0, 1.0)):
        assert abs(sample.mean() - mean) < 4.9 * spread / 200
    assert abs(np.abs(noise / 2).mean() - 1) > 4.9 / 200


@pytest.mark.parametrize("quorum", [1, 100])
def test_noise_measures_its_multiple_of_the_sensitivity_and_hardly_more(quorum: int) -> None:
    grid = bound("dp_laplace", columns=10, quorum=quorum, noise_multiplier=20.0).grid
    assert 40.0 / quorum <= grid.width < 40.0 / quorum * (1 + 1e-6)
    assert grid.fine


def test_any_input_leads_to_the_same_set_of_outputs() -> None:
    mechanism = bound("dp_laplace", outputs=WIDE, columns=1, sensitivity=1.0, noise_multiplier=1.0)
    values = [[value] for value in (0.0, 1 / 3, -np.pi, 5e-324, 123.456)] * 300
    steps = mechanism.apply(batch_of(values, "value"), RNG, b"").scores / mechanism.grid.grain
    assert np.array_equal(steps, np.rint(steps))


def test_labels_follow_the_noisy_scores() -> None:
    after = bound("dp_laplace", columns=3, noise_multiplier=20.0).apply(batch_of([[0.9, 0.1, 0.0]] * 300), RNG, b"")
    assert np.array_equal(after.top, after.scores.argmax(axis=1))
    assert after.scores.sum(axis=1) == pytest.approx(1)
    assert set(after.top.tolist()) == {0, 1, 2}


def test_a_coarse_grid_costs_what_any_mechanism_of_its_epsilon_does() -> None:
    assert bound("dp_laplace", noise_multiplier=20.0, granularity=1e-9).event() == Laplace(20.0)
    assert bound("dp_laplace", noise_multiplier=20.0, granularity=0.01).event() == Pure(0.05)


def test_a_coarse_grid_is_as_private_as_its_epsilon_in_every_outcome() -> None:
    # Two whole steps a scale: the ratio of two probabilities is e^(shift / scale) for a shift of whole steps.
    grid = bound("dp_laplace", noise_multiplier=0.5, granularity=1.0).grid
    shift = np.abs(grid.snap(np.array([[1.0, 0.0]])) - grid.snap(np.array([[0.0, 1.0]]))).sum()
    assert shift / grid.scale <= 1 / 0.5


def test_solving_takes_the_price_of_the_grid() -> None:
    aim = {"epsilon": 8.0, "delta": 1e-6, "answers": 100}
    assert isinstance(bound("dp_laplace", aim).event(), Laplace)
    coarse = bound("dp_laplace", aim, granularity=0.5).event()
    assert isinstance(coarse, Pure)
    assert coarse.epsilon < 0.16
