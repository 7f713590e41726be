"""Plans a privacy budget: of epsilon and delta, the number of answers and the noise, two give the third. Pure.

Everything is worked out with the filter that a ledger would run on (`filters.choose`), never with a formula of its own,
so that what is planned is what will be admitted. Numbers are rounded to few digits and to the side on which the answers
that were asked for still fit. `disagreements` holds the result against opacus, which `oracle` asks in a process of its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from math import exp, inf, log

from guard.privacy.calibrate import least_noise
from guard.privacy.events import Composed, Event, Gaussian
from guard.privacy.filters import MOST, Filter, choose

MOST_EPSILON = 1000.0
"""What a privacy budget may hold."""
TOLERANCE = 2e-3
"""How far beyond opacus' figures Guard's may be, relatively, when those are taken with the errors that they state."""
_ROUNDING = 1e-9
"""The same for the Renyi accountant's count of answers, which is exact but for floating-point operations."""
_DIGITS = (5, 8, 12, 17)
"""Significant digits of a number that is worked out: the fewest with which the answers still fit."""
_PRECISION = 1e-12


@dataclass(frozen=True, slots=True)
class Priced:
    """What a budget of (epsilon, delta) buys of one kind of answer.

    Args:
        epsilon: of the budget, in nats.
        delta: of the budget.
        filter: what the ledger's units mean.
        cost: of one answer, in units.
        answers: how many are admitted.
        spent: the epsilon at `delta` that all of them cause, which is at most `epsilon`.
        alone: the epsilon at `delta` of one answer alone.
    """

    epsilon: float
    delta: float
    filter: Filter
    cost: int
    answers: int
    spent: float
    alone: float


def price(event: Event, epsilon: float, delta: float, columns: int, filter_: Filter | None = None) -> Priced:
    """Return what (epsilon, delta) buys.

    Args:
        event: what one answer costs.
        epsilon: in nats.
        delta: above 0, below 1.
        columns: scores a row, at most.
        filter_: the ledger's; None: the one that a ledger of this route alone would get.

    >>> price(Gaussian(50.0), 2.6, 1e-5, 10).answers
    1003
    """
    chosen = choose((event,), epsilon, delta, columns) if filter_ is None else filter_
    cost = chosen.cost(event)
    answers = chosen.limit(epsilon, delta) // cost if 0 < cost <= MOST else 0
    spent = chosen.epsilon(answers * cost, delta)
    alone = chosen.epsilon(cost, delta) if cost <= MOST else inf
    return Priced(epsilon, delta, chosen, cost, answers, spent, alone)


def solve_noise(event_of: Callable[[float], Event], epsilon: float, delta: float, answers: int, columns: int) -> float:
    """Return the least noise multiplier at which (epsilon, delta) admits so many answers, rounded up.

    Args:
        event_of: what one answer costs at a noise multiplier; more noise costs less.
        epsilon: in nats.
        delta: above 0, below 1.
        answers: how many, at least 1.
        columns: scores a row, at most.

    Raises:
        ValueError: no noise does.

    >>> solve_noise(Gaussian, 8.0, 1e-6, 1000, 10)
    20.648
    """
    exact = least_noise(event_of, epsilon, delta, answers, columns)
    return fewest_digits(exact, lambda noise: price(event_of(noise), epsilon, delta, columns).answers >= answers)


def solve_epsilon(event: Event, delta: float, answers: int, columns: int) -> float:
    """Return the least epsilon that admits so many answers, rounded up.

    Raises:
        ValueError: none that a budget may hold does.

    >>> solve_epsilon(Gaussian(50.0), 1e-5, 1000, 10)
    2.5944
    """

    def enough(epsilon: float) -> bool:
        return price(event, epsilon, delta, columns).answers >= answers

    if not enough(MOST_EPSILON):
        raise ValueError(f"not even epsilon {MOST_EPSILON:g} allows {answers:,} answers with so little noise")
    # Between logarithms, since epsilon may be anything from 1e-9.
    short, long = log(1e-9), log(MOST_EPSILON)
    while long - short > _PRECISION:
        middle = (short + long) / 2.0
        short, long = (short, middle) if enough(exp(middle)) else (middle, long)
    return fewest_digits(exp(long), enough)


def fewest_digits(value: float, enough: Callable[[float], bool], *, up: bool = True) -> float:
    """Return `value` rounded up, or down, to the fewest digits that are enough, or as it is.

    >>> fewest_digits(20.6475921, lambda x: x >= 20.6475921), fewest_digits(0.0123456, lambda x: True, up=False)
    (20.648, 0.012345)
    """
    for digits in _DIGITS:
        context = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR)
        rounded = float(context.create_decimal_from_float(value))
        # A filter is chosen anew for every noise, and another may admit less: a little more noise is not always enough.
        if enough(rounded):
            return rounded
    return value


def curve(event: Event, epsilons: Sequence[float], delta: float, columns: int) -> list[tuple[float, int]]:
    """Return (epsilon, answers), where at least one answer is admitted."""
    points = [(epsilon, price(event, epsilon, delta, columns).answers) for epsilon in epsilons]
    return [(epsilon, answers) for epsilon, answers in points if answers]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What opacus says of a plan; None where it could not say.

    Args:
        rdp_epsilon: of all answers, by its Renyi accountant: an upper bound.
        rdp_answers: how many it would admit.
        rdp_noise: noise multiplier that it would want.
        prv_epsilon: of all answers, by its numerical accountant: an upper bound, at most 2 * `prv_error` too high.
        prv_error: see there, in epsilon.
        prv_noise: noise multiplier that it would want: enough, and short of epsilon by at most 3 * `prv_error`.
    """

    rdp_epsilon: float | None
    rdp_answers: int | None
    rdp_noise: float | None
    prv_epsilon: float | None
    prv_error: float
    prv_noise: float | None


def noise_of(event: Event) -> tuple[float, ...] | None:
    """Return the noise multipliers of an event that is Gaussian through and through; None for another.

    >>> noise_of(Composed((Gaussian(30.0), Gaussian(40.0))))
    (30.0, 40.0)
    """
    parts = event.parts if isinstance(event, Composed) else (event,)
    gaussian = [part for part in parts if isinstance(part, Gaussian)]
    return tuple(part.noise_multiplier for part in gaussian) if gaussian and len(gaussian) == len(parts) else None


def disagreements(plan: Priced, noise: float, opinion: Opinion, *, own_filter: bool = True) -> list[str]:
    """Return, in words, where Guard's plan is beyond what opacus allows; empty when they agree.

    Guard must not account for less than the numerical accountant's lower bound, nor admit less than the Renyi one.

    Args:
        plan: Guard's.
        noise: the least noise multiplier that Guard wants for the plan's answers.
        opinion: opacus'.
        own_filter: the filter was chosen for this route alone. Where others share it, or a policy names an order, it
            may admit less, which is no mistake.
    """
    said: list[str] = []
    answers, prv, rdp = f"{plan.answers:,} answers", "opacus' PRV accountant", "opacus' RDP accountant"
    if opinion.prv_epsilon is not None:
        least = opinion.prv_epsilon - 2.0 * opinion.prv_error
        if plan.spent < least * (1.0 - TOLERANCE):
            said.append(f"{answers} cost epsilon {plan.spent:.6g} by Guard's filter, at least {least:.6g} by {prv}")
    if opinion.prv_noise is not None:
        least = opinion.prv_noise * max(0.0, 1.0 - 3.0 * opinion.prv_error / plan.epsilon)
        if noise < least * (1.0 - TOLERANCE):
            said.append(f"Guard takes a noise multiplier of {noise:.6g} for enough, {prv} at least {least:.6g}")
    if not own_filter:
        return said
    if opinion.rdp_epsilon is not None and plan.spent > opinion.rdp_epsilon * (1.0 + TOLERANCE):
        theirs = opinion.rdp_epsilon
        said.append(f"{answers} cost epsilon {plan.spent:.6g} by Guard's filter, only {theirs:.6g} by {rdp}")
    if opinion.rdp_answers is not None and plan.answers + 1 < opinion.rdp_answers * (1.0 - _ROUNDING):
        said.append(f"Guard's filter admits {answers}, {rdp} {opinion.rdp_answers:,}")
    if opinion.rdp_noise is not None and noise > opinion.rdp_noise * (1.0 + TOLERANCE):
        said.append(f"Guard wants a noise multiplier of {noise:.6g}, {rdp} only {opinion.rdp_noise:.6g}")
    return said
