"""Renyi differential privacy: the divergence of each event at one order, and what it means in epsilon and delta.

Sources, where docs/privacy.md has no proof of its own: Mironov, 2017, section VI (Gaussian, Laplace); Canonne, Kamath
and Steinke, 2020 (discrete Gaussian; conversion: proposition 12); Bun and Steinke, 2016, proposition 3.3, of which
`_pure` is the sharp form: randomised response, which every epsilon-DP mechanism is a post-processing of (Kairouz, Oh
and Viswanath, 2015); Cesar and Rogers, 2021 (an epsilon-bounded range is epsilon^2/8-CDP).
"""

from __future__ import annotations

from math import exp, expm1, inf, log, log1p
from typing import assert_never

from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, NonPrivate, NoOp, Pure

FINE_STEPS = 2**32
"""Least grid steps a sigma of a fine discrete Gaussian, and a scale of a discrete Laplace."""
ORDERS: tuple[float, ...] = tuple(
    sorted(
        # Those of opacus, so that it never admits more, and eight an octave, within 0.2% of the best order.
        {*(1.0 + i / 10 for i in range(1, 100)), *(float(i) for i in range(12, 64))}
        | {round(1.0 + float(f"{2.0 ** (i / 8):.3g}"), 9) for i in range(-6 * 8, 20 * 8)}
    )
)
_ROUNDING = 1e-15
_GREAT = 30.0
"""Exponents above which logarithms are taken apart; below, that would cancel."""


def added(order: float, delta: float) -> float:
    """Return what Renyi DP of `order` adds to its divergence to meet `delta`, in nats of epsilon, rounded up.

    Raises:
        ValueError: delta is not between 0 and 1.

    >>> round(added(8.0, 1e-6), 3)
    1.543
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta {delta} is not between 0 and 1")
    near, wide, narrow = log1p(-1.0 / order), -log(delta) / (order - 1.0), log(order) / (order - 1.0)
    return near + wide - narrow + _ROUNDING * (wide + narrow - near)


def rdp(event: Event, order: float) -> float:
    """Return the Renyi divergence of `order` > 1 between neighbours: an upper bound, up to rounding in the 14th digit.

    Gaussian noise and randomised response meet it; discrete noise does as its grid gets finer.

    >>> round(rdp(Gaussian(10.0), 8.0), 4), round(rdp(Pure(0.1), 8.0), 4), rdp(NonPrivate(), 8.0)
    (0.04, 0.0367, inf)
    """
    match event:
        case Gaussian():
            return order / 2.0 / event.noise_multiplier / event.noise_multiplier
        case Laplace():
            return _laplace(1.0 / event.noise_multiplier, order)
        case Pure():
            return _pure(event.epsilon, order)
        case BoundedRange():
            return min(order * event.epsilon * event.epsilon / 8.0, _pure(event.epsilon, order))
        case Composed():
            return sum(rdp(part, order) for part in event.parts)
        case NoOp():
            return 0.0
        case NonPrivate():
            return inf
        case _:
            assert_never(event)


def _laplace(epsilon: float, order: float) -> float:
    """Return log(A e^((a-1) epsilon) + (1-A) e^(-a epsilon)) / (a-1), A = 1/2 + tanh(1/2t) / (2 tanh((2a-1)/2t)).

    For t grid steps a scale A is at most a/(2a-1) + (2a-1)/(24 t^2), since tanh y <= y and coth z <= 1/z + z/3.
    """
    twice, up, down = 2.0 * order - 1.0, (order - 1.0) * epsilon, -order * epsilon
    more = twice / (24.0 * FINE_STEPS**2)
    if up > _GREAT:
        most = min(1.0, order / twice + more)
        total = up + log(most) + log1p((order - 1.0) / order * exp(down - up))
    else:
        # e^x - 1 - x in place of e^x, since the linear terms cancel.
        total = log1p((order * _excess(up) + (order - 1.0) * _excess(down)) / twice + more * (expm1(up) - expm1(down)))
    return min(epsilon, total / (order - 1.0))


def _excess(x: float) -> float:
    """Return e^x - 1 - x."""
    if abs(x) > 0.1:
        return expm1(x) - x
    term, total = x * x / 2.0, 0.0
    for n in range(3, 13):
        total += term
        term *= x / n
    return total


def _pure(epsilon: float, order: float) -> float:
    """Return log(p^a q^(1-a) + q^a p^(1-a)) / (a-1) with p = e^epsilon / (1 + e^epsilon), q = 1 - p."""
    up = (order - 1.0) * epsilon
    if up > _GREAT:
        total = up - log1p(exp(-epsilon)) + log1p(exp(-up - order * epsilon))
    else:
        total = log1p(-expm1(up) * expm1(-order * epsilon) / (1.0 + exp(-epsilon)))
    return min(epsilon, total / (order - 1.0))
