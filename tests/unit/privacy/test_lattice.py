"""The grid: noise is never less than its ratio, and no score that a domain allows leaves it."""

from __future__ import annotations

import doctest
from fractions import Fraction
from itertools import product
from math import frexp, isqrt, log2

import numpy as np
import pytest

from guard.privacy import lattice as module
from guard.privacy.lattice import Lattice, lattice, sampled, spread
from guard.privacy.measurement import Norm
from guard.privacy.rejection import MOST_SCALE

RATIOS = (1e-3, 0.7, 20.0, 1e9)
COLUMNS = (1, 2, 10, 4096)
NORMS: tuple[Norm, ...] = ("l1", "l2", "linf")
DOMAINS = [(1.0, 2**0.5), (1.0, 2 / 4096), (1e-6, 1e-6), (1e6, 1e6), (1e6, 1e-6), (3.0, 0.1)]
"""Magnitude and sensitivity: probabilities of a model and of 4,096, values up to a millionth and a million, offset."""


def moved(grid: Lattice, sensitivity: float, norm: Norm, columns: int) -> Fraction:
    """The most whole steps that scores at most `sensitivity` apart can differ by, rounded up by less than 2^-60."""
    exact = Fraction(sensitivity) / Fraction(grid.grain)
    root = {"l1": Fraction(columns), "linf": Fraction(1), "l2": Fraction(isqrt(columns << 120) + 1, 2**60)}[norm]
    return exact + root


@pytest.mark.parametrize(("magnitude", "sensitivity"), DOMAINS)
@pytest.mark.parametrize("norm", NORMS)
def test_noise_is_at_least_its_ratio_of_what_rounded_scores_can_move(
    magnitude: float, sensitivity: float, norm: Norm
) -> None:
    for ratio, columns, granularity in product(RATIOS, COLUMNS, (None, sensitivity / 3, magnitude * 2)):
        grid = lattice(ratio, sensitivity, norm, columns, magnitude, granularity)
        assert Fraction(grid.scale) >= Fraction(ratio) * moved(grid, sensitivity, norm, columns), (ratio, columns)


def test_noise_without_room_for_rounding_would_be_too_little() -> None:
    grid = lattice(0.7, 0.1, "l2", 4096, 1.0, 0.1)
    assert grid.scale < 50
    assert 0.7 * 0.1 / grid.grain < float(0.7 * moved(grid, 0.1, "l2", 4096)) / 10


@pytest.mark.parametrize("norm", NORMS)
def test_the_bound_on_rounded_scores_is_met(norm: Norm) -> None:
    # Half a step and a little less: the two round apart in every column though they hardly differ.
    grid = Lattice(2.0**-4, 1)
    for columns in COLUMNS:
        low = np.full((1, columns), 2.0**-5 * (1 - 1e-9))
        high = np.full((1, columns), 2.0**-5 * (1 + 1e-9))
        steps = (grid.snap(high) - grid.snap(low)).ravel()
        order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
        assert np.linalg.norm(steps, order) == pytest.approx(spread(norm, columns))
        assert np.linalg.norm(steps, order) <= moved(grid, 2e-9, norm, columns)


@pytest.mark.parametrize(("magnitude", "sensitivity"), DOMAINS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_auto_is_the_greatest_power_of_two_with_enough_steps_or_the_least_with_room(
    magnitude: float, sensitivity: float, ratio: float
) -> None:
    grid = lattice(ratio, sensitivity, "l2", 1, magnitude)
    assert frexp(grid.grain)[0] == 0.5
    enough = ratio * sensitivity / grid.grain >= 2**32
    least = magnitude / grid.grain >= 2**49
    assert enough or least
    assert enough <= grid.fine
    assert ratio * sensitivity / (2 * grid.grain) < 2**32 or not enough


@pytest.mark.parametrize(("magnitude", "sensitivity"), DOMAINS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_scores_and_noise_are_whole_numbers_that_float64_holds(
    magnitude: float, sensitivity: float, ratio: float
) -> None:
    grid = sampled(lattice(ratio, sensitivity, "l2", 4096, magnitude))
    extremes = np.array([[magnitude, -magnitude, 0.0, magnitude / 3]])
    steps = grid.snap(extremes)
    assert np.abs(steps).max() <= 2**50
    # 256 standard deviations: no noise has ever gone so far.
    noisy = steps + np.array([1, -1, 1, -1]) * 256 * grid.scale
    assert np.abs(noisy).max() < 2**53
    assert (np.rint(grid.scores(noisy) / grid.grain).astype(np.int64) == noisy).all()


@pytest.mark.parametrize("granularity", [0.1, 0.25, 0.3, 1.0, 1.9])
def test_a_given_granularity_is_rounded_down_to_a_power_of_two(granularity: float) -> None:
    grid = lattice(20.0, 1.0, "l1", 1, 1.0, granularity)
    assert grid.grain <= granularity < 2 * grid.grain
    assert frexp(grid.grain)[0] == 0.5
    assert not grid.fine
    assert str(grid).endswith(f"on a grid of 2^{log2(grid.grain):.0f}")


def test_a_granularity_that_numbers_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="no room in 64 bits beside scores up to 1e\\+06"):
        lattice(20.0, 1.0, "l2", 1, 1e6, 1e-12)
    assert lattice(20.0, 1.0, "l2", 1, 1e6, 1e-9).fine


def test_noise_of_more_steps_than_samplers_count_is_refused() -> None:
    with pytest.raises(ValueError, match="too fine for noise of 1e\\+09"):
        sampled(lattice(1e9, 1.0, "l2", 1, 1.0, 1e-6))
    assert sampled(Lattice(1.0, MOST_SCALE)).scale == MOST_SCALE


@pytest.mark.parametrize(
    ("ratio", "sensitivity", "magnitude"),
    [(1.0, 0.0, 1.0), (1.0, np.inf, 1.0), (1.0, 1e-300, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, 1e300), (1.0, np.nan, 1.0)],
)
def test_noise_of_nothing_or_beyond_numbers_is_refused(ratio: float, sensitivity: float, magnitude: float) -> None:
    with pytest.raises(ValueError, match="cannot be given noise"):
        lattice(ratio, sensitivity, "l2", 1, magnitude)


def test_doctests_hold() -> None:
    assert not doctest.testmod(module, extraglobs={"np": np}).failed
