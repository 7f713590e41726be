"""Gaussian differential privacy: what mu means in epsilon and delta.

A mechanism is mu-GDP when telling neighbours apart is at least as hard as telling N(0, 1) from N(mu, 1). Composition
adds squares, and mu-GDP holds exactly if (epsilon, delta(epsilon)) holds for all epsilon >= 0, where

    delta(epsilon) = Phi(-epsilon/mu + mu/2) - exp(epsilon) * Phi(-epsilon/mu - mu/2)

(Dong, Roth and Su, 2022, corollaries 1 and 2; for Gaussian noise Balle and Wang, 2018, theorem 8). What is computed
here errs to the safe side: delta and epsilon are never below the exact ones, mu is never above it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, exp, expm1, inf, isfinite, log, log1p, pi, sqrt

_ERROR = 4e-12
"""More than the two logarithms below err by together where delta is above 1e-300: four times what was measured."""
_LEAST = 1e-300
"""No delta that is above 0 is said to be less."""
_ROUNDS = 60
"""Halvings of an interval whose ends differ by a factor of 2: far below the float grid."""


def log_phi(x: float) -> float:
    """Return log Phi(x), the standard normal distribution function.

    >>> round(log_phi(0.0), 6), round(log_phi(-40.0), 3)
    (-0.693147, -804.608)
    """
    if x > -36.0:
        return log(erfc(-x / sqrt(2.0)) / 2.0) if x < 5.0 else log1p(-erfc(x / sqrt(2.0)) / 2.0)
    # Asymptotic series of Mills' ratio; its next term is below 1e-12 here.
    y = 1.0 / (x * x)
    series = 1.0 - y * (1.0 - 3.0 * y * (1.0 - 5.0 * y * (1.0 - 7.0 * y)))
    return -x * x / 2.0 - log(-x) - log(2.0 * pi) / 2.0 + log(series)


def delta_of(epsilon: float, mu: float) -> float:
    """Return the least delta of mu-GDP at `epsilon`, rounded up.

    Args:
        epsilon: in nats, at least 0.
        mu: at least 0.

    Raises:
        ValueError: one of them is not a number, or negative.

    >>> round(delta_of(1.0, 1.0), 6)
    0.126937
    """
    if not (epsilon >= 0.0 and mu >= 0.0):
        raise ValueError(f"epsilon {epsilon} or mu {mu} is negative or no number")
    if mu == 0.0:
        return 0.0
    if mu == inf:
        return 1.0
    if epsilon == inf:
        return _LEAST
    first = log_phi(-epsilon / mu + mu / 2.0)
    second = epsilon + log_phi(-epsilon / mu - mu / 2.0)
    # The difference of two like numbers, so the error is taken relative to what is subtracted from.
    share = -expm1(min(0.0, second - first)) + _ERROR
    return max(_LEAST, min(1.0, exp(first) * share))


def epsilon_of(delta: float, mu: float) -> float:
    """Return the least epsilon that mu-GDP meets at `delta`, rounded up; infinity for a delta that no float holds.

    Args:
        delta: a probability, above 0 and below 1.
        mu: at least 0.

    Raises:
        ValueError: one of them is something else.

    >>> round(epsilon_of(1e-5, 1.0), 3)
    4.377
    """
    _check(delta)
    if delta_of(0.0, mu) <= delta:
        return 0.0
    if delta < _LEAST or mu == inf:
        return inf
    return _edge(lambda epsilon: delta_of(epsilon, mu) > delta)[1]


def mu_of(epsilon: float, delta: float) -> float:
    """Return the greatest mu that (epsilon, delta) allows, rounded down.

    Args:
        epsilon: in nats, at least 0 and finite.
        delta: a probability, above 0 and below 1.

    Raises:
        ValueError: one of them is something else.

    >>> round(mu_of(1.0, 1e-5), 4)
    0.2681
    """
    _check(delta)
    if not isfinite(epsilon):
        raise ValueError(f"epsilon {epsilon} is no number")
    return _edge(lambda mu: delta_of(epsilon, mu) <= delta)[0]


def _check(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta {delta} is not between 0 and 1")


def _edge(below: Callable[[float], bool]) -> tuple[float, float]:
    """Return neighbouring floats of which the first passes a test that smaller ones pass, and the second does not.

    The first is 0 when nothing from 1e-300 on passes, or everything does: then the second is infinity.
    """
    high = 1.0
    while below(high):
        high *= 2.0
        if high == inf:
            return 0.0, inf
    while not below(high / 2.0):
        high /= 2.0
        if high < _LEAST:
            return 0.0, high
    low = high / 2.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) else (low, middle)
    return low, high
