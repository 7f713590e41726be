"""Privacy losses worked out another way than Guard does: in fifty digits, or as sums and integrals."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from math import exp, lgamma, log1p

import numpy as np

from guard.model.arrays import Floats

DIGITS = 80
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211707")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def phi(x: Decimal) -> Decimal:
    """Return Phi(x), by its power series near 0 and the continued fraction of Mills' ratio beyond 8."""
    density = (-x * x / 2).exp() / (2 * _PI).sqrt()
    if abs(x) > 8:
        ratio = Decimal(0)
        for n in range(150, 0, -1):
            ratio = n / (abs(x) + ratio)
        tail = density / (abs(x) + ratio)
        return tail if x < 0 else 1 - tail
    term, total, n = x, Decimal(0), 1
    while abs(term) > Decimal(10) ** -DIGITS:
        total += term
        n += 2
        term = term * x * x / n
    return Decimal("0.5") + density * total


def delta(epsilon: float, mu: Decimal) -> Decimal:
    """Return the delta of mu-GDP at epsilon, to fifty digits."""
    with localcontext() as context:
        context.prec = DIGITS
        e = Decimal(epsilon)
        return phi(mu / 2 - e / mu) - e.exp() * phi(-mu / 2 - e / mu)


def root(square: Fraction) -> Decimal:
    """Return a square root, to fifty digits."""
    with localcontext() as context:
        context.prec = DIGITS
        return (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()


def responses(epsilon: float, count: int) -> tuple[Floats, Floats]:
    """Return losses and their probabilities of `count` randomised responses, each epsilon-DP."""
    wins = np.arange(count + 1, dtype=np.float64)
    ways = np.array([lgamma(count + 1) - lgamma(n + 1) - lgamma(count - n + 1) for n in range(count + 1)])
    return (2.0 * wins - count) * epsilon, np.exp(ways + wins * epsilon - count * log1p(exp(epsilon)))


def mixed_delta(epsilon: float, mu: float, lotteries: Sequence[tuple[Floats, Floats]]) -> float:
    """Return the delta at epsilon of Gaussian noise beside discrete mechanisms.

    Args:
        epsilon: in nats.
        mu: of all Gaussian answers together; 0 without any.
        lotteries: losses and their probabilities of each discrete mechanism.
    """
    losses, chances = np.zeros(1), np.ones(1)
    for more, often in lotteries:
        losses = (losses[:, None] + more[None, :]).ravel()
        chances = (chances[:, None] * often[None, :]).ravel()
    left = epsilon - losses
    if mu == 0.0:
        return float((chances * -np.expm1(np.minimum(0.0, left))).sum())
    # The integral of (1 - e^(left - loss)) over z, for the loss mu^2 / 2 + mu z, from where it is positive.
    start = np.maximum(left / mu - mu / 2.0, -8.0)[:, None]
    z = start + (_NODES + 1.0) * 8.0
    gain = -np.expm1(np.minimum(0.0, left[:, None] - mu * mu / 2.0 - mu * z))
    density = np.exp(-z * z / 2.0) / np.sqrt(2.0 * np.pi)
    return float((chances * (density * gain * _WEIGHTS).sum(axis=1) * 8.0).sum())
