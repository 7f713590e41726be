"""The filter: the contract of accountants, the exact optimum of Gaussian answers, mixes against sums over losses."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import permutations, product
from math import exp, inf, log, pi, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.model.arrays import Floats
from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, NonPrivate, NoOp, Pure
from guard.privacy.filters import COLUMNS, LEAST, MOST, UNIT, Filter, choose, parse_filter, slack
from guard.privacy.gaussian import mu_of
from guard.privacy.renyi import ORDERS, added, rdp
from tests.support.events import composed, simple
from tests.support.exact import delta, mixed_delta, phi, responses, root

GDP = Filter("gdp")
FILTERS = (GDP, Filter("rdp", 1.0156), Filter("rdp", 8.0), Filter("rdp", 962001.0))
NOISES = (0.5, 3.0, 20.0, 70.7, 1234.5, 29999.0)
EPSILONS = (1e-3, 0.1, 1.0, 3.0, 8.0, 30.0, 100.0)
DELTAS = (1e-15, 1e-9, 1e-6, 1e-2, 0.5)
GRID = tuple(product(NOISES, EPSILONS, DELTAS))
ALIEN: Any = object()  # Any: what no type checker lets through
RATIOS = st.floats(-2.0, 4.0).map(lambda x: 10.0**x)
COSTS = st.floats(-9.0, 6.0).map(lambda x: 10.0**x)


@dataclass(frozen=True, slots=True)
class Cheap:
    """A filter whose every answer costs half: what each comparison here must catch."""

    true: Filter

    def cost(self, event: Event) -> int:
        """Return half of what it costs."""
        return self.true.cost(event) // 2

    def limit(self, epsilon: float, given_delta: float) -> int:
        """Return what the true one allows."""
        return self.true.limit(epsilon, given_delta)


def admitted(used: Filter | Cheap, event: Event, epsilon: float, given_delta: float) -> int:
    return used.limit(epsilon, given_delta) // used.cost(event)


def gaussian_delta(noise_multiplier: float, answers: int, epsilon: float) -> Decimal:
    """Return the exact delta of identical Gaussian answers."""
    return delta(epsilon, root(Fraction(answers) / Fraction(noise_multiplier) ** 2))


def above_the_optimum(used: Filter | Cheap, noise_multiplier: float, epsilon: float, given_delta: float) -> bool:
    answers = admitted(used, Gaussian(noise_multiplier), epsilon, given_delta)
    return answers > 0 and gaussian_delta(noise_multiplier, answers, epsilon) > given_delta


@pytest.mark.parametrize(("noise_multiplier", "epsilon", "given_delta"), GRID)
def test_identical_gaussian_answers_meet_the_exact_optimum(
    noise_multiplier: float, epsilon: float, given_delta: float
) -> None:
    """Never above it, within 0.1% of it, and where it is below 1,000 answers at most one of them short."""
    assert not above_the_optimum(GDP, noise_multiplier, epsilon, given_delta)
    answers = admitted(GDP, Gaussian(noise_multiplier), epsilon, given_delta)
    more = answers + max(2, answers // 999 + 1)
    assert gaussian_delta(noise_multiplier, more, epsilon) > given_delta


def test_half_the_price_would_be_above_the_optimum() -> None:
    """The negative control, on every combination that admits an answer at all."""
    caught = [above_the_optimum(Cheap(GDP), *case) for case in GRID if admitted(GDP, Gaussian(case[0]), *case[1:])]
    assert len(caught) > 100
    assert all(caught)


def test_the_grid_has_what_was_asked_for() -> None:
    many = sum(admitted(GDP, Gaussian(noise), *rest) >= 1000 for noise, *rest in GRID)
    assert len(GRID) >= 200
    assert many >= 100


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("given_delta", DELTAS)
def test_the_odometer_reads_what_the_limit_stands_for(epsilon: float, given_delta: float) -> None:
    for used in FILTERS:
        units = used.limit(epsilon, given_delta)
        read = used.epsilon(units, given_delta)
        assert read <= epsilon * (1.0 + 1e-9)
        assert units < 10**6 or read > epsilon * (1.0 - 1e-5)
        assert units == MOST or used.epsilon(units + max(1000, units // 10**5), given_delta) > epsilon


@given(st.integers(1, 10**14), st.sampled_from(DELTAS))
@settings(max_examples=60, deadline=None)
def test_the_odometer_never_understates_gaussian_answers(units: int, given_delta: float) -> None:
    epsilon = GDP.epsilon(units, given_delta)
    assert delta(epsilon, root(Fraction(units, 10**12))) <= given_delta


@given(st.lists(st.tuples(RATIOS, st.integers(1, 10**6)), min_size=1, max_size=6), st.sampled_from([0.1, 1.0, 8.0]))
@settings(max_examples=60, deadline=None)
def test_mixes_of_gaussian_answers_are_never_admitted_beyond_the_optimum(
    mix: list[tuple[float, int]], epsilon: float
) -> None:
    left, squares = GDP.limit(epsilon, 1e-6), Fraction(0)
    for noise_multiplier, wanted in mix:
        cost = GDP.cost(Gaussian(noise_multiplier))
        answers = min(wanted, left // cost)
        left -= answers * cost
        squares += answers / Fraction(noise_multiplier) ** 2
    assert squares == 0 or delta(epsilon, root(squares)) <= 1e-6


MIXES = st.tuples(
    st.floats(5.0, 50.0),
    st.integers(0, 200),
    st.lists(st.tuples(st.floats(0.02, 0.5), st.integers(0, 25)), min_size=1, max_size=2),
)


def overspends(used: Filter | Cheap, mix: Any, epsilon: float, given_delta: float) -> bool:  # Any: what MIXES draws
    """Let a filter admit a mix, and say whether what it admitted has a greater delta than was given."""
    noise_multiplier, wanted, pure = mix
    left = used.limit(epsilon, given_delta)
    cost = used.cost(Gaussian(noise_multiplier))
    gaussians = min(wanted, left // cost)
    left -= gaussians * cost
    lotteries: list[tuple[Floats, Floats]] = []
    for each, count in pure:
        cost = used.cost(Pure(each))
        answers = min(count, left // cost)
        left -= answers * cost
        lotteries.append(responses(each, answers))
    return mixed_delta(epsilon, sqrt(gaussians) / noise_multiplier, lotteries) > given_delta


@given(MIXES, st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([1e-9, 1e-5, 0.01]))
@settings(max_examples=80, deadline=None)
def test_mixes_are_never_admitted_beyond_the_optimum(mix: Any, epsilon: float, given_delta: float) -> None:
    events = [Gaussian(mix[0]), *(Pure(each) for each, _ in mix[2])]
    assert not overspends(choose(events, epsilon, given_delta, 10), mix, epsilon, given_delta)


def test_a_mix_at_half_the_price_would_be_beyond_it() -> None:
    """The negative control."""
    mix = (10.0, 10**6, [(0.1, 10)])
    used = choose([Gaussian(10.0), Pure(0.1)], 1.0, 1e-5, 10)
    assert not overspends(used, mix, 1.0, 1e-5)
    assert overspends(Cheap(used), mix, 1.0, 1e-5)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("each", [0.05, 0.3])
def test_randomised_responses_stay_below_their_exact_optimum(each: float, epsilon: float) -> None:
    """And not far below it: one Renyi order admits at least two thirds."""
    used = choose([Pure(each)], epsilon, 1e-6, 10)
    answers = admitted(used, Pure(each), epsilon, 1e-6)

    def least_delta(count: int) -> float:
        return mixed_delta(epsilon, 0.0, [responses(each, count)])

    assert least_delta(answers) <= 1e-6 < least_delta(max(answers + 2, answers * 3 // 2))
    assert least_delta(admitted(Cheap(used), Pure(each), epsilon, 1e-6)) > 1e-6


@given(simple(COSTS) | composed(COSTS), st.sampled_from(FILTERS))
@settings(deadline=None)
def test_costs_are_whole_and_cover_the_loss(event: Event, used: Filter) -> None:
    if not used.supports(event):
        with pytest.raises(ValueError, match="cannot account for"):
            used.cost(event)
        return
    cost, loss = used.cost(event), used.loss(event)
    assert 0 <= cost <= MOST + 1
    assert cost > MOST or Fraction(cost, 10**12) >= Fraction(loss)
    assert cost == 0 or event != NoOp()


@given(composed(COSTS), st.sampled_from(FILTERS))
@settings(max_examples=60, deadline=None)
def test_costs_add_up_in_any_order(event: Event, used: Filter) -> None:
    assert isinstance(event, Composed)
    if not used.supports(event):
        assert not all(used.supports(part) for part in event.parts)
        return
    total = min(MOST + 1, sum(used.cost(part) for part in event.parts))
    assert {used.cost(Composed(parts)) for parts in permutations(event.parts)} == {total}


@pytest.mark.parametrize("used", FILTERS)
def test_an_answer_without_noise_costs_more_than_any_budget_holds(used: Filter) -> None:
    for event in (NonPrivate(), Composed((Gaussian(9.0), NonPrivate())), Composed((NonPrivate(), NonPrivate()))):
        assert used.loss(event) == inf
        assert used.cost(event) == MOST + 1 > used.limit(1000.0, 1.0 - 1e-9)


@pytest.mark.parametrize("used", FILTERS)
def test_post_processing_costs_nothing(used: Filter) -> None:
    assert used.cost(NoOp()) == used.loss(NoOp()) == 0
    assert used.cost(Composed((Gaussian(9.0), NoOp()))) == used.cost(Gaussian(9.0))


@pytest.mark.parametrize("used", FILTERS)
def test_an_unknown_event_is_refused_even_nested(used: Filter) -> None:
    hidden = Composed((Gaussian(1.0), NoOp()))
    object.__setattr__(hidden, "parts", (Gaussian(1.0), ALIEN))
    aliens: list[Any] = [ALIEN, None, "gaussian(1.0)", hidden]  # Any: see ALIEN
    for event in aliens:
        assert not used.supports(event)
        with pytest.raises(ValueError, match="cannot account for"):
            used.cost(event)


@pytest.mark.parametrize("event", [Gaussian(9.0, fine=False), Laplace(9.0), Pure(0.1), BoundedRange(0.1)])
def test_gaussian_dp_refuses_what_it_has_no_bound_for_even_nested(event: Event) -> None:
    for each in (event, Composed((Gaussian(9.0), event))):
        assert not GDP.supports(each)
        assert FILTERS[2].supports(each)
        with pytest.raises(ValueError, match="gdp cannot account for"):
            GDP.cost(each)


def test_no_private_answer_is_free_however_great_its_noise() -> None:
    assert GDP.cost(Gaussian(1e300)) == LEAST
    assert Filter("rdp", 2.0).cost(Laplace(1e300)) == Filter("rdp", 2.0).cost(Pure(1e-300)) == 1


@pytest.mark.parametrize("used", FILTERS)
def test_limits_grow_with_the_budget_and_end_at_nothing(used: Filter) -> None:
    limits = [[used.limit(epsilon, given_delta) for given_delta in DELTAS] for epsilon in EPSILONS]
    assert (np.diff(limits, axis=0) >= 0).all()
    assert (np.diff(limits, axis=1) >= 0).all()
    assert 0 <= limits[0][0] <= limits[-1][-1] <= MOST
    assert used.limit(1e-12, 1e-15) == GDP.limit(1.0, 5e-324) == 0
    assert used.epsilon(0, 1e-6) == 0.0


@pytest.mark.parametrize("used", FILTERS)
@pytest.mark.parametrize("bad", [0.0, 1.0, -1.0, float("nan")])
def test_what_is_no_delta_is_refused(used: Filter, bad: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        used.limit(1.0, bad)
    with pytest.raises(ValueError, match="delta"):
        used.epsilon(10**12, bad)


@pytest.mark.parametrize("used", FILTERS)
def test_a_ledger_keeps_the_filter(used: Filter) -> None:
    assert parse_filter(str(used)) == used


@pytest.mark.parametrize("written", ["", "gdp()", "rdp", "rdp()", "rdp(1.0)", "rdp(nan)", "rdp(inf)", "rdp(x)", "pld"])
def test_a_filter_that_there_is_not_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"there is no filter|could not convert"):
        parse_filter(written)
    with pytest.raises(ValueError, match="there is no filter"):
        Filter("gdp", 2.0)


def test_fine_gaussian_answers_are_accounted_for_exactly_whatever_the_budget() -> None:
    events = [Gaussian(3.0), Composed((Gaussian(5.0), Gaussian(7.0)))]
    assert {choose(events, epsilon, given_delta, COLUMNS) for epsilon, given_delta in product(EPSILONS, DELTAS)} == {
        GDP
    }


@pytest.mark.parametrize(
    "events", [[Gaussian(3.0), Laplace(9.0)], [Gaussian(3.0, fine=False)], [Composed((Gaussian(3.0), Pure(0.1)))]]
)
def test_other_answers_get_the_order_that_admits_the_most_of_the_dearest(events: list[Event]) -> None:
    found = choose(events, 2.0, 1e-6, 10)
    worst = max(events, key=lambda event: rdp(event, found.order))
    finer = [1.0 + (order - 1.0) * 2.0 ** (i / 32) for order in ORDERS[::4] for i in range(16)]

    def share(order: float) -> float:
        return (2.0 - added(order, 1e-6)) / max(rdp(event, order) for event in events)

    assert found.kind == "rdp"
    assert admitted(found, worst, 2.0, 1e-6) >= int(0.996 * max(map(share, finer)))
    assert all(choose(list(order), 2.0, 1e-6, 10) == found for order in permutations(events))


def test_an_order_that_is_asked_for_is_taken() -> None:
    assert choose([Gaussian(3.0)], 1.0, 1e-6, 10, order=8.0) == Filter("rdp", 8.0)


def test_gaussian_dp_is_left_where_its_slack_or_its_least_price_would_not_do() -> None:
    assert choose([Gaussian(3.0)], 1.0, 1e-6, COLUMNS + 1).kind == "rdp"
    quiet = Gaussian(1e6)
    found = choose([quiet], 1.0, 1e-6, 10)
    assert admitted(found, quiet, 1.0, 1e-6) > 100 * admitted(GDP, quiet, 1.0, 1e-6)


def test_a_ledger_of_nothing_but_post_processing_has_a_filter() -> None:
    assert choose([NoOp()], 1.0, 1e-6, 10) == choose([], 1.0, 1e-6, 10) == GDP


def grid_gaussian(sigma: float) -> tuple[Floats, Floats]:
    """Return the discrete Gaussian, and the continuous one rounded to the same grid, from -12 to 12 sigmas."""
    k = np.arange(-int(12 * sigma), int(12 * sigma) + 1)
    weights = np.exp(-np.square(k / sigma) / 2.0)
    # Tails on the negative side, where differences keep their digits.
    mass = [float(phi(Decimal((0.5 - i) / sigma)) - phi(Decimal((-0.5 - i) / sigma))) for i in np.abs(k).tolist()]
    return weights / weights.sum(), np.array(mass)


@pytest.mark.parametrize("sigma", [1.0, 2.5, 10.0, 40.0])
def test_the_discrete_gaussian_is_as_close_to_the_rounded_one_as_is_said(sigma: float) -> None:
    """p_k <= e^(1 / 24 s^2) q_k, q_k <= e^(k^2 / 24 s^4) Z p_k, and all of e^(k^2 / 4 s^2) is at most sqrt 2."""
    p, q = grid_gaussian(sigma)
    k = np.arange(len(p)) - len(p) // 2
    poisson = 1.0 + 2.1 * exp(-2.0 * pi**2 * sigma**2)
    assert (np.log(p / q) <= 1.0 / (24.0 * sigma**2) + 1e-12).all()
    assert (np.log(q / p) <= np.square(k) / (24.0 * sigma**4) + log(poisson) + 1e-12).all()
    assert (np.exp(np.square(k / sigma) / 4.0) * p).sum() <= sqrt(2.0) * (1.0 + 1e-9)
    assert np.abs(p - q).sum() / 2.0 <= 1.0 / (24.0 * sigma**2)
    assert sigma < 2.0 or np.abs(p - q).sum() / 2.0 > 1.0 / (60.0 * sigma**2)


def grid_delta(sigma: float, shift: int, answers: int, epsilon: float) -> float:
    """Return the delta at epsilon of discrete Gaussian answers, each about `shift` steps."""
    k = np.arange(-int(12 * sigma), int(12 * sigma) + 1)
    weights = np.exp(-np.square(k / sigma) / 2.0)
    total, sums = weights / weights.sum(), k
    for _ in range(answers - 1):
        total = np.convolve(total, weights / weights.sum())
        sums = np.arange(-(len(total) // 2), len(total) // 2 + 1)
    losses = (2.0 * sums * shift + answers * shift**2) / (2.0 * sigma**2)
    return float((total * -np.expm1(np.minimum(0.0, epsilon - losses))).sum())


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("sigma", "shift", "answers"), [(20.0, 7, 1), (20.0, 20, 1), (20.0, 7, 9), (60.0, 13, 30)])
def test_the_slack_covers_what_a_grid_adds(sigma: float, shift: int, answers: int, epsilon: float) -> None:
    squares = answers * (shift / sigma) ** 2
    nats, missed = slack(answers, squares, sigma)
    assert nats < 0.2
    allowed = exp(nats) * float(delta(epsilon - nats, Decimal(sqrt(squares)))) + missed if epsilon > nats else 1.0
    assert grid_delta(sigma, shift, answers, epsilon) <= allowed


def test_without_the_slack_a_coarse_grid_would_be_understated() -> None:
    """The negative control: somewhere the discrete Gaussian is worse than the continuous one."""
    cases = [(epsilon, shift) for epsilon in np.linspace(0.05, 3.0, 60) for shift in (1, 2, 3)]
    assert any(grid_delta(3.0, d, 1, float(e)) > float(delta(float(e), Decimal(d / 3.0))) for e, d in cases)


def test_the_slack_is_nothing_beside_any_budget() -> None:
    for epsilon, given_delta in product(EPSILONS, DELTAS):
        whole = mu_of(epsilon, given_delta) ** 2 / UNIT
        assert (1.0 - 1e-4) * whole - 1.0 <= GDP.limit(epsilon, given_delta) <= whole
