"""Probabilities worked out exactly, and how far a sample may lie from them: oracles of the samplers' tests.

Nothing here shares a line with `guard.privacy`: exponentials come from the series in rational numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from guard.model.arrays import Floats, Ints

ERROR_RATE = 1e-6


def seeded(seed: int) -> Callable[[int], bytes]:
    """Return bytes that are the same in every run."""
    return np.random.default_rng(seed).bytes


def exp_minus(x: Fraction, bits: int = 200) -> tuple[Fraction, Fraction]:
    """Return bounds of exp(-x), x >= 0, at most 2^-bits apart: neighbouring partial sums of an alternating series."""
    # exp(-x) = exp(-x / 2^h)^(2^h), whose terms fall from the start.
    halvings = math.ceil(x).bit_length()
    part = x / (1 << halvings)
    grain = 1 << (bits + halvings + 8)
    low, high, term, i = Fraction(0), Fraction(1), Fraction(1), 0
    while high - low > Fraction(1, grain):
        i += 1
        term *= part / i
        low, high = (high - term, high) if i % 2 else (low, low + term)
    for _ in range(halvings):
        # Rounded outward: otherwise every square would double the digits.
        low, high = Fraction(math.floor(low * low * grain), grain), Fraction(math.ceil(high * high * grain), grain)
    return low, high


def chi_square_tail(statistic: float, cells: float) -> float:
    """Return P(chi-square of `cells` degrees of freedom > statistic): the regularised upper incomplete gamma function.

    Source: Abramowitz and Stegun, 1964, 6.5.29 (series) and 6.5.31 (continued fraction, by Lentz's method).
    """
    a, x = cells / 2.0, statistic / 2.0
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1.0:
        term = total = 1.0 / a
        n = a
        while term > total * 1e-16:
            n += 1.0
            term *= x / n
            total += term
        return 1.0 - scale * total
    b = x + 1.0 - a
    c, d = math.inf, 1.0 / b
    fraction = d
    for i in range(1, 100_000):
        step = -i * (i - a)
        b += 2.0
        d = 1.0 / (b + step * d)
        c = b + step / c
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return scale * fraction


def chi_square(counts: Ints, shares: Floats) -> float:
    """Return the p-value of counts under given shares; neighbouring cells are joined until each expects ten.

    Args:
        counts: shape (k,).
        shares: probabilities, shape (k,); what is missing to 1 is a last cell, which must have gone into `counts`.
    """
    expected = shares * counts.sum()
    joined: list[list[float]] = [[0.0, 0.0]]
    for seen, mean in zip(counts.tolist(), expected.tolist(), strict=True):
        if joined[-1][1] >= 10.0:
            joined.append([0.0, 0.0])
        joined[-1][0] += seen
        joined[-1][1] += mean
    if len(joined) > 1 and joined[-1][1] < 10.0:
        seen, mean = joined.pop()
        joined[-1][0] += seen
        joined[-1][1] += mean
    statistic = sum((seen - mean) ** 2 / mean for seen, mean in joined)
    return chi_square_tail(statistic, len(joined) - 1)
