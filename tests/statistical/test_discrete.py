"""Exact samplers follow their exact laws.

Every test has a fixed seed, so it passes or fails for good. A p-value below 1e-6 refuses, as it would once in a million
seeds; each test has negative controls, which the same statistic must refuse at the same sample size.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import pytest

from guard.model.arrays import Floats, Ints
from guard.privacy import discrete
from tests.support.laws import ERROR_RATE, chi_square, chi_square_tail, seeded

N = 600_000
BATCH = 1000
"""As many as a request takes at a time; most batches are one round, some two."""
FINE = 2**32 + 12345
WRONG = 1.02
NORMAL_LIMIT = 4.8917
"""Two-sided quantile of the normal at 1e-6."""
KS_LIMIT = math.sqrt(math.log(2 / ERROR_RATE) / 2)
"""Of sqrt(n) times the Kolmogorov distance: P(above) <= 2 exp(-2 x^2) (Massart 1990)."""
SAMPLERS = {"gaussian": discrete.gaussian, "laplace": discrete.laplace}
POWERS = {"gaussian": 2, "laplace": 1}


@lru_cache(maxsize=8)
def sample(law: str, scale: int, seed: int = 1) -> Ints:
    fresh = seeded(seed)
    return np.concatenate([SAMPLERS[law](scale, BATCH, fresh) for _ in range(N // BATCH)])


def shares(law: str, scale: float, most: int) -> Floats:
    """Return the probabilities of -most to most."""
    weights = np.exp(
        -(np.abs(np.arange(-most, most + 1)) ** POWERS[law]) / (scale if law == "laplace" else 2 * scale**2)
    )
    return weights / weights.sum()


def small(law: str, scale: int, claimed: float) -> float:
    """Return the p-value of a sample under the exact probability of every integer."""
    drawn = sample(law, scale)
    most = max(30 * scale, int(np.abs(drawn).max()))
    return chi_square(np.bincount(drawn + most, minlength=2 * most + 1), shares(law, claimed, most))


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("scale", [1, 3, 25])
def test_noise_of_a_small_scale_has_the_probability_of_every_integer(law: str, scale: int) -> None:
    assert small(law, scale, scale) > ERROR_RATE
    assert small(law, scale, scale * WRONG) < ERROR_RATE
    assert small(law, scale, scale / WRONG) < ERROR_RATE


def test_zero_is_not_counted_twice() -> None:
    expected = shares("gaussian", 3.0, 90)
    counts = np.bincount(sample("gaussian", 3) + 90, minlength=181)
    assert chi_square(counts, expected) > ERROR_RATE
    expected[90] *= 2  # control: a sign before a magnitude, with both zeros kept
    assert chi_square(counts, expected / expected.sum()) < ERROR_RATE


def quantiles(law: str, scale: float, cells: int) -> Floats:
    """Return the inner edges of cells of equal probability."""
    levels = np.arange(1, cells) / cells
    if law == "gaussian":
        return np.array([NormalDist(0.0, scale).inv_cdf(level) for level in levels.tolist()])
    return np.sign(levels - 0.5) * -scale * np.log1p(-np.abs(2 * levels - 1))


def fine(drawn: Ints, law: str, scale: float, cells: int = 256) -> float:
    """Return the p-value of quantiles; on a grid this fine the continuous law's are right to 2^-33."""
    counts = np.bincount(np.searchsorted(quantiles(law, scale, cells), drawn), minlength=cells)
    return chi_square(counts, np.full(cells, 1 / cells))


@pytest.mark.parametrize(("law", "other"), [("gaussian", "laplace"), ("laplace", "gaussian")])
def test_noise_on_a_fine_grid_has_its_quantiles(law: str, other: str) -> None:
    assert fine(sample(law, FINE), law, FINE) > ERROR_RATE
    assert fine(sample(law, int(FINE * WRONG)), law, FINE) < ERROR_RATE
    assert fine(sample(law, int(FINE / WRONG)), law, FINE) < ERROR_RATE
    assert fine(sample(law, FINE), other, FINE) < ERROR_RATE


def kolmogorov(drawn: Ints, scale: float) -> float:
    """Return sqrt(n) times the greatest distance from the normal distribution at its 1/4096 quantiles."""
    seen = np.searchsorted(np.sort(drawn), quantiles("gaussian", scale, 4096)) / len(drawn)
    return float(math.sqrt(len(drawn)) * np.abs(seen - np.arange(1, 4096) / 4096).max())


def test_gaussian_noise_on_a_fine_grid_is_as_near_to_the_normal_as_a_sample_can_be() -> None:
    assert kolmogorov(sample("gaussian", FINE), FINE) < KS_LIMIT
    assert kolmogorov(sample("gaussian", int(FINE * WRONG)), FINE) > KS_LIMIT


def low_bits(drawn: Ints) -> float:
    return chi_square(np.bincount(drawn & 255, minlength=256), np.full(256, 1 / 256))


def test_low_bits_on_a_fine_grid_are_uniform() -> None:
    drawn = sample("gaussian", FINE)
    assert low_bits(drawn) > ERROR_RATE
    assert low_bits(np.where(np.arange(N) % 50, drawn, drawn & ~1)) < ERROR_RATE  # control: one in fifty is even


def z_scores(drawn: Ints, scale: float) -> dict[str, float]:
    """Return normal scores of moments and signs under gaussian noise."""
    x = drawn / scale
    n = len(x)
    return {
        "mean": float(x.mean() * math.sqrt(n)),
        "variance": float((np.square(x).mean() - 1) * math.sqrt(n / 2)),
        "skewness": float((x**3).mean() * math.sqrt(n / 15)),
        "kurtosis": float(((x**4).mean() - 3) * math.sqrt(n / 96)),
        "sign": float(np.sign(x).mean() * math.sqrt(n)),
    }


def test_gaussian_noise_has_its_moments_and_no_preferred_sign() -> None:
    scores = z_scores(sample("gaussian", FINE), FINE)
    assert all(abs(score) < NORMAL_LIMIT for score in scores.values()), scores
    control = z_scores(sample("gaussian", int(FINE * WRONG)), FINE)
    assert min(abs(control["variance"]), abs(control["kurtosis"])) > NORMAL_LIMIT
    drawn = sample("gaussian", FINE)
    leaning = z_scores(np.where(np.arange(N) % 50, drawn, np.abs(drawn)), FINE)  # one in fifty is positive
    assert min(abs(leaning["mean"]), abs(leaning["skewness"]), abs(leaning["sign"])) > NORMAL_LIMIT


def related(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1] * math.sqrt(len(x)))


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("apart", [1, 2, 7, BATCH])
def test_neighbours_and_batches_are_independent(law: str, apart: int) -> None:
    drawn = sample(law, FINE) / FINE
    later = np.roll(drawn, apart)
    assert abs(related(drawn, later)) < NORMAL_LIMIT
    assert abs(related(np.abs(drawn), np.abs(later))) < NORMAL_LIMIT
    assert related(drawn + 0.02 * later, later) > NORMAL_LIMIT  # control: shares a fiftieth
    louder = drawn * (1 + 0.05 * np.abs(later))  # control: of another sign, but larger where that is large
    assert related(np.abs(louder), np.abs(later)) > NORMAL_LIMIT


def exponential(rate: float, columns: int, rows: int) -> float:
    """Return the p-value of choices at rate 3/10 under the law of `rate`."""
    utilities = np.arange(columns, dtype=np.int64) * 37 % 11
    drawn = discrete.exponential(np.tile(utilities, (rows, 1)), 3, 10, seeded(5))
    weights = np.exp(utilities * rate)
    return chi_square(np.bincount(drawn, minlength=columns), weights / weights.sum())


@pytest.mark.parametrize(("columns", "rows"), [(2, 200_000), (10, 200_000), (100, 60_000)])
def test_choices_have_the_exponential_mechanism_s_law(columns: int, rows: int) -> None:
    assert exponential(0.3, columns, rows) > ERROR_RATE
    assert exponential(0.3 * 1.05, columns, rows) < ERROR_RATE
    assert exponential(0.3 / 1.05, columns, rows) < ERROR_RATE


@pytest.mark.parametrize(("columns", "epsilon"), [(2, 1.0), (3, 0.25), (10, 2.5)])
def test_randomised_responses_are_true_as_often_as_epsilon_says(columns: int, epsilon: float) -> None:
    drawn = discrete.randomised_response(np.full(N, 1), columns, epsilon, seeded(6))
    counts = np.bincount(drawn, minlength=columns)

    def law(claimed: float) -> Floats:
        weights = np.ones(columns)
        weights[1] = math.exp(claimed)
        return weights / weights.sum()

    assert chi_square(counts, law(epsilon)) > ERROR_RATE
    assert chi_square(counts, law(epsilon + 0.025)) < ERROR_RATE
    assert chi_square(counts, law(epsilon - 0.025)) < ERROR_RATE


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 3), (1, 1000), (999, 1000), (10**30, 7 * 10**30)])
def test_coins_fall_as_often_as_they_should(numerator: int, denominator: int) -> None:
    heads = int(np.count_nonzero(discrete.keep(numerator, denominator, N, seeded(7))))
    counts, p = np.array([heads, N - heads]), numerator / denominator
    assert chi_square(counts, np.array([p, 1 - p])) > ERROR_RATE
    wrong = p + 8 * math.sqrt(p * (1 - p) / N)
    assert chi_square(counts, np.array([wrong, 1 - wrong])) < ERROR_RATE


def test_the_chi_square_s_tail_agrees_with_its_closed_forms() -> None:
    assert math.isclose(chi_square_tail(NORMAL_LIMIT**2, 1), math.erfc(NORMAL_LIMIT / math.sqrt(2)), rel_tol=1e-10)
    for x in (0.5, 30.0, 300.0):
        half = x / 2
        assert math.isclose(chi_square_tail(x, 2), math.exp(-half), rel_tol=1e-10)
        closed = math.exp(-half) * math.fsum(half**i / math.factorial(i) for i in range(100))
        assert math.isclose(chi_square_tail(x, 200), closed, rel_tol=1e-10)
