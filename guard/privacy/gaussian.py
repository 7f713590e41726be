"""Gaussian differential privacy: what mu means in epsilon and delta, exactly.

A mechanism is mu-GDP when telling neighbours apart is at least as hard as telling N(0, 1) from N(mu, 1) (Dong, Roth and
Su, 2022, definition 2.6). Composition adds squares (corollary 3.3), and

    delta(epsilon) = Phi(-epsilon/mu + mu/2) - exp(epsilon) * Phi(-epsilon/mu - mu/2)

(corollary 2.13; Balle and Wang, 2018, theorem 8). Every inverse is rounded to the safe side.
"""

from __future__ import annotations

from math import erfc, exp, expm1, inf, log, log1p, pi, sqrt

_SAFE = 1e-12
"""Relative margin of every inverse: far more than rounding errors, far less than an answer."""


def log_phi(x: float) -> float:
    """Return log Phi(x), the standard normal distribution function.

    >>> round(log_phi(0.0), 6), round(log_phi(-40.0), 3)
    (-0.693147, -804.608)
    """
    if x > -25.0:
        return log(erfc(-x / sqrt(2.0)) / 2.0) if x < 5.0 else log1p(-erfc(x / sqrt(2.0)) / 2.0)
    # Asymptotic series of Mills' ratio; its next term is below 1e-11 of the sum here.
    y = 1.0 / (x * x)
    series = 1.0 - y * (1.0 - 3.0 * y * (1.0 - 5.0 * y * (1.0 - 7.0 * y)))
    return -x * x / 2.0 - log(-x) - log(2.0 * pi) / 2.0 + log(series)


def delta_of(epsilon: float, mu: float) -> float:
    """Return the least delta of mu-GDP at `epsilon` >= 0.

    >>> round(delta_of(1.0, 1.0), 6)
    0.126937
    """
    if mu <= 0:
        return 0.0
    if mu == inf:
        return 1.0
    first = log_phi(-epsilon / mu + mu / 2.0)
    second = epsilon + log_phi(-epsilon / mu - mu / 2.0)
    if second >= first:
        return 0.0
    return exp(first) * -expm1(second - first)


def epsilon_of(delta: float, mu: float) -> float:
    """Return an epsilon that mu-GDP meets at `delta`, never below the exact one.

    >>> round(epsilon_of(1e-5, 1.0), 3)
    4.377
    """
    if mu <= 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(high, mu) > delta:
        low, high = high, high * 2.0
    while high - low > _SAFE * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if delta_of(middle, mu) > delta else (low, middle)
    return high * (1.0 + _SAFE)


def mu_of(epsilon: float, delta: float) -> float:
    """Return a mu that (epsilon, delta) allows, never above the exact one.

    >>> round(mu_of(1.0, 1e-5), 4)
    0.2681
    """
    low, high = 0.0, 1.0
    while delta_of(epsilon, high) <= delta:
        low, high = high, high * 2.0
    while high - low > _SAFE * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if delta_of(epsilon, middle) <= delta else (low, middle)
    return low * (1.0 - _SAFE)
