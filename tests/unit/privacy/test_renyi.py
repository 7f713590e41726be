"""Renyi divergences of events, against sums over their distributions and against fifty digits."""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Decimal, localcontext
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.model.arrays import Floats
from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, NonPrivate, NoOp, Pure
from guard.privacy.renyi import FINE_STEPS, ORDERS, added, rdp
from tests.support.exact import DIGITS, delta

SOME_ORDERS = (1.02, 1.5, 2.0, 8.0, 63.0, 1024.0)
NUMBERS = st.floats(-9.0, 3.0).map(lambda x: 10.0**x)


def divergence(p: Floats, q: Floats, order: float) -> float:
    """Return the Renyi divergence of two discrete distributions."""
    within = (p > 0) & (q > 0)
    terms = order * np.log(p[within]) + (1.0 - order) * np.log(q[within])
    return float(np.log(np.exp(terms - terms.max()).sum()) + terms.max()) / (order - 1.0)


def grid_laplace(steps: float, width: int) -> Floats:
    k = np.arange(-width, width + 1)
    return np.tanh(0.5 / steps) * np.exp(-np.abs(k) / steps)


def on_any_grid(epsilon: Decimal, order: Decimal, steps: Decimal) -> Decimal:
    """Return the divergence of discrete Laplace noise: docs/privacy.md."""

    def tanh(x: Decimal) -> Decimal:
        return (1 - (-2 * x).exp()) / (1 + (-2 * x).exp())

    share = (1 + tanh(1 / (2 * steps)) / tanh((2 * order - 1) / (2 * steps))) / 2
    total = share * ((order - 1) * epsilon).exp() + (1 - share) * (-order * epsilon).exp()
    return total.ln() / (order - 1)


@pytest.mark.parametrize("order", [1.5, 2.0, 8.0, 20.0])
@pytest.mark.parametrize(("steps", "shift"), [(0.7, 1), (3.0, 1), (3.0, 5), (20.0, 7)])
def test_the_formula_for_laplace_is_the_sum_over_its_grid(steps: float, shift: int, order: float) -> None:
    noise = grid_laplace(steps, 2000)
    summed = divergence(noise[shift:], noise[:-shift], order)
    formula = on_any_grid(Decimal(shift) / Decimal(steps), Decimal(order), Decimal(steps))
    assert summed == pytest.approx(float(formula), rel=1e-9)


@given(NUMBERS, st.sampled_from(ORDERS))
@settings(max_examples=150, deadline=None)
def test_laplace_bounds_its_finest_grid_by_little(epsilon: float, order: float) -> None:
    said = rdp(Laplace(1.0 / epsilon), order)
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = DIGITS, MAX_EMAX, MIN_EMIN
        exact = on_any_grid(1 / Decimal(1.0 / epsilon), Decimal(order), Decimal(FINE_STEPS))
        assert exact * (1 - Decimal("1e-14")) <= Decimal(said) <= exact * (1 + Decimal("1e-8"))


def test_the_continuous_formula_would_not_bound_a_coarse_grid() -> None:
    """The negative control: on few steps a discrete Laplace loses more."""
    noise = grid_laplace(3.0, 2000)
    assert divergence(noise[3:], noise[:-3], 2.0) > rdp(Laplace(1.0), 2.0) * 1.01


@pytest.mark.parametrize("order", [1.5, 2.0, 8.0])
@pytest.mark.parametrize("shifts", [(1, 1), (3, 2), (5, 1), (0, 6)])
def test_one_coordinate_that_takes_all_of_an_l1_shift_is_the_worst(shifts: tuple[int, int], order: float) -> None:
    noise = grid_laplace(3.0, 120)
    apart = sum(divergence(noise[d:], noise[: len(noise) - d], order) for d in shifts)
    total = sum(shifts)
    assert apart <= divergence(noise[total:], noise[:-total], order) * (1.0 + 1e-9)


@pytest.mark.parametrize("order", [1.5, 2.0, 8.0, 20.0])
@pytest.mark.parametrize(("sigma", "shift"), [(0.6, 1), (1.0, 1), (3.0, 5), (20.0, 7)])
def test_gaussian_bounds_every_grid(sigma: float, shift: int, order: float) -> None:
    k = np.arange(-int(30 * sigma) - 20, int(30 * sigma) + 21)
    weights = np.exp(-np.square(k / sigma) / 2.0)
    noise = weights / weights.sum()
    found = divergence(noise[shift:], noise[:-shift], order)
    bound = rdp(Gaussian(sigma / shift, fine=False), order)
    assert found <= bound * (1.0 + 1e-9)
    assert sigma < 3.0 or found > bound * 0.999


@given(NUMBERS, st.sampled_from(ORDERS))
@settings(max_examples=100, deadline=None)
def test_pure_is_randomised_response_in_all_digits(epsilon: float, order: float) -> None:
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = DIGITS, MAX_EMAX, MIN_EMIN
        e, a = Decimal(epsilon), Decimal(order)
        exact = (((a * e).exp() + (-(a - 1) * e).exp()) / (1 + e.exp())).ln() / (a - 1)
        assert Decimal(rdp(Pure(epsilon), order)) == pytest.approx(exact, rel=Decimal("1e-14"))


@pytest.mark.parametrize("order", SOME_ORDERS)
@pytest.mark.parametrize("epsilon", [0.01, 0.5, 2.0, 10.0])
def test_bounded_range_bounds_every_interval_of_losses(epsilon: float, order: float) -> None:
    bound = rdp(BoundedRange(epsilon), order)
    for t in np.linspace(0.0, epsilon, 41)[1:-1]:
        # Two answers whose losses are t and t - epsilon.
        q = -np.expm1(t - epsilon) / (exp(t) - exp(t - epsilon))
        p = q * exp(t)
        assert divergence(np.array([p, 1.0 - p]), np.array([q, 1.0 - q]), order) <= bound * (1.0 + 1e-9) + 1e-12
    assert bound <= rdp(Pure(epsilon), order)


@pytest.mark.parametrize("order", ORDERS[::40])
def test_divergences_add_up_and_end_at_nothing_and_infinity(order: float) -> None:
    parts: tuple[Event, ...] = (Gaussian(3.0), Laplace(2.0), Pure(0.3), BoundedRange(0.2), NoOp())
    assert rdp(Composed(parts), order) == pytest.approx(sum(rdp(part, order) for part in parts), rel=1e-15)
    assert rdp(Composed((*parts, NonPrivate())), order) == float("inf")
    assert rdp(NoOp(), order) == 0.0


@pytest.mark.parametrize("number", [5e-324, 1e-300, 1e300, 1.7e308])
@pytest.mark.parametrize("kind", [Gaussian, Laplace, Pure, BoundedRange])
def test_numbers_at_the_ends_of_floats_give_numbers(
    kind: type[Gaussian | Laplace | Pure | BoundedRange], number: float
) -> None:
    assert all(rdp(kind(number), order) >= 0.0 for order in SOME_ORDERS)


@pytest.mark.parametrize("order", SOME_ORDERS)
@pytest.mark.parametrize("given_delta", [1e-15, 1e-6, 0.5])
def test_the_conversion_never_understates_gaussian_noise(given_delta: float, order: float) -> None:
    for mu in (0.01, 0.3, 1.0, 5.0):
        epsilon = order * mu * mu / 2.0 + added(order, given_delta)
        assert epsilon < 0.0 or delta(epsilon, Decimal(mu)) <= given_delta


def test_the_conversion_is_the_published_one() -> None:
    exact = log(7 / 8) + (log(1e6) - log(8)) / 7
    assert exact < added(8.0, 1e-6) < exact * (1 + 1e-14)


@pytest.mark.parametrize("bad", [0.0, 1.0, -1.0, float("nan")])
def test_what_is_no_delta_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        added(8.0, bad)


def test_the_orders_of_opacus_are_all_there_and_gaps_are_small() -> None:
    assert {1.0 + x / 10.0 for x in range(1, 100)} | {float(x) for x in range(12, 64)} <= set(ORDERS)
    rising = np.log(np.array(ORDERS) - 1.0)
    assert rising[0] <= log(1 / 64)
    assert rising[-1] >= log(2**19)
    assert np.diff(rising).max() < log(1.1)
