"""Gaussian DP in epsilon and delta, against fifty digits: never on the unsafe side, and close."""

from __future__ import annotations

from decimal import Decimal, localcontext
from math import inf, nan, nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.privacy.gaussian import delta_of, epsilon_of, log_phi, mu_of
from tests.support.exact import DIGITS, delta, phi

MUS = st.floats(-6.0, 2.0).map(lambda x: 10.0**x)
EPSILONS = st.floats(-3.0, 2.0).map(lambda x: 10.0**x)
DELTAS = st.floats(-15.0, -0.302).map(lambda x: 10.0**x)
CORNERS = [(epsilon, delta) for epsilon in (1e-3, 1.0, 100.0) for delta in (1e-15, 1e-6, 0.5)]


def nearby(x: float, factor: float) -> Decimal:
    return Decimal(x) * Decimal(factor)


@pytest.mark.parametrize("x", [-38.0, -36.0, -35.9, -20.0, -5.0, -1e-9, 0.0, 1.0, 4.9, 5.0, 8.0])
def test_the_distribution_function_is_right_to_twelve_digits(x: float) -> None:
    with localcontext() as context:
        context.prec = DIGITS
        assert log_phi(x) == pytest.approx(float(phi(Decimal(x)).ln()), abs=1e-12)


@given(EPSILONS | st.just(0.0), MUS)
@settings(max_examples=150, deadline=None)
def test_delta_is_never_below_the_exact_one(epsilon: float, mu: float) -> None:
    exact, said = delta(epsilon, Decimal(mu)), Decimal(delta_of(epsilon, mu))
    assert said >= exact
    if exact > 1e-16:
        assert said < exact * Decimal("1.0001")


@given(EPSILONS, DELTAS)
@settings(max_examples=100, deadline=None)
def test_mu_is_never_above_the_exact_one(epsilon: float, given_delta: float) -> None:
    mu = mu_of(epsilon, given_delta)
    assert delta(epsilon, Decimal(mu)) <= given_delta < delta(epsilon, nearby(mu, 1.0 + 1e-6))


@given(DELTAS, MUS)
@settings(max_examples=100, deadline=None)
def test_epsilon_is_never_below_the_exact_one(given_delta: float, mu: float) -> None:
    epsilon = epsilon_of(given_delta, mu)
    assert delta(epsilon, Decimal(mu)) <= given_delta
    if epsilon > 0.0:
        assert delta(epsilon * (1.0 - 1e-4), Decimal(mu)) > given_delta


@pytest.mark.parametrize(("epsilon", "given_delta"), CORNERS)
def test_the_corners_of_the_valid_range_are_met(epsilon: float, given_delta: float) -> None:
    mu = mu_of(epsilon, given_delta)
    assert delta(epsilon, Decimal(mu)) <= given_delta < delta(epsilon, nearby(mu, 1.0 + 1e-6))
    assert epsilon_of(given_delta, mu) == pytest.approx(epsilon, rel=1e-6)


def test_an_error_in_the_seventh_digit_would_be_caught() -> None:
    """The negative control of the comparisons above."""
    margin = Decimal(1) - Decimal("1e-7")
    cases = [(epsilon, mu) for epsilon in (1e-3, 0.01, 0.1, 1.0) for mu in (0.01, 0.1, 1.0)]
    assert any(Decimal(delta_of(*case)) * margin < delta(case[0], Decimal(case[1])) for case in cases)


@pytest.mark.parametrize("given_delta", [5e-324, 1e-310, 1e-300, 1e-299, 0.5, nextafter(1.0, 0.0)])
@pytest.mark.parametrize("number", [0.0, 5e-324, 1e-300, 1e-6, 1.0, 1e6, 1e300])
def test_inverses_come_to_an_end_wherever_floats_do(number: float, given_delta: float) -> None:
    assert 0.0 <= mu_of(number, given_delta) < inf
    assert epsilon_of(given_delta, number) >= 0.0


def test_what_no_float_holds_is_rounded_to_the_safe_side() -> None:
    assert mu_of(1.0, 5e-324) == 0.0
    assert epsilon_of(5e-324, 1.0) == inf
    assert epsilon_of(1e-6, inf) == inf
    assert delta_of(1e6, 1.0) > 0.0
    assert delta_of(1.0, inf) == 1.0
    assert (delta_of(1.0, 0.0), epsilon_of(1e-6, 0.0)) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [nan, -1.0, 0.0, 1.0, inf])
def test_what_is_no_delta_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        mu_of(1.0, bad)
    with pytest.raises(ValueError, match="delta"):
        epsilon_of(bad, 1.0)


@pytest.mark.parametrize("bad", [nan, -1.0])
def test_what_is_no_epsilon_and_no_mu_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        mu_of(bad, 1e-6)
    with pytest.raises(ValueError, match="no number"):
        delta_of(bad, 1.0)
    with pytest.raises(ValueError, match="no number"):
        epsilon_of(1e-6, bad)
    with pytest.raises(ValueError, match="no number"):
        mu_of(inf, 1e-6)
