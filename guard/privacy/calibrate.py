"""The least noise with which a number of answers fits into epsilon and delta, by Guard's own filter."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from guard.privacy.events import Event
from guard.privacy.filters import choose

LEAST_RATIO, GREATEST_RATIO = 1e-3, 1e9
"""Noise multipliers that a policy may ask for."""
_PRECISION = 1.0 + 1e-12


def least_noise(event_of: Callable[[float], Event], epsilon: float, delta: float, answers: int, columns: int) -> float:
    """Return the least noise multiplier of which `answers` answers cost no more than (epsilon, delta) holds.

    Args:
        event_of: what one answer costs at a noise multiplier; more noise costs less.
        epsilon: in nats.
        delta: a probability.
        answers: how many.
        columns: scores a row, at most.

    Returns:
        A ratio r, within a part in 10^12 of the least, with answers * filter.cost(event_of(r)) <= filter.limit(epsilon,
        delta) for the filter that `choose` picks for it.

    Raises:
        ValueError: no noise does it.

    >>> from guard.privacy.events import Gaussian
    >>> round(least_noise(Gaussian, 8.0, 1e-6, 1000, 10), 2)
    20.65
    """

    def fits(ratio: float) -> bool:
        event = event_of(ratio)
        filter_ = choose([event], epsilon, delta, columns)
        return answers * filter_.cost(event) <= filter_.limit(epsilon, delta)

    low, high = LEAST_RATIO, GREATEST_RATIO
    if not fits(high):
        raise ValueError(f"no noise lets {answers:,} answers fit into epsilon {epsilon:g} at delta {delta:g}")
    if fits(low):
        return low
    while high > low * _PRECISION:
        middle = sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
