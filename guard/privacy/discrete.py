"""Noise and choices on integers, sampled exactly from cryptographic bytes; no noise was ever a float.

Every probability here is the stated one, provided that the bytes are uniform; `rejection` and `coins` say how and why.
No generator of pseudo-random numbers stands between the operating system's source and a sample.

Not covered: time. How long a sample takes depends on its value (a tail, a refused proposal, a coin that falls late);
whoever can time single samples to a microsecond learns about the noise. (`exponential` takes the same time for all
utilities, but about once in a million rows of 4,096 columns, when it takes 60 ms longer.)

Sources: Canonne, Kamath and Steinke, 2020, "The discrete Gaussian for differential privacy"; Ghosh, Roughgarden and
Sundararajan, 2009 (discrete Laplace, as the two-sided geometric); McSherry and Talwar, 2007 (exponential mechanism);
Warner, 1965 (randomised response).
"""

from __future__ import annotations

import math

import numpy as np

from guard.model.arrays import Bools, Ints
from guard.privacy import coins, rejection
from guard.privacy.coins import Fresh

MOST_UTILITY = 2**53
_CHUNK = 2**17
"""Utilities looked at together, at most: 1 MiB an array."""


def gaussian(sigma: int, size: int, fresh: Fresh) -> Ints:
    """Return discrete Gaussian numbers: P(k) proportional to exp(-k^2 / (2 sigma^2)).

    Args:
        sigma: in grid steps, 1 to 2^40. The variance is sigma^2 up to 3e-7 of it (sigma = 1; far less above).
        size: how many, independent.
        fresh: cryptographic bytes.

    Returns:
        Shape (size,), below 2^62 in magnitude.

    Raises:
        ValueError: sigma is out of range.
    """
    return rejection.sample(2, sigma, size, fresh)


def laplace(scale: int, size: int, fresh: Fresh) -> Ints:
    """Return discrete Laplace numbers: P(k) proportional to exp(-|k| / scale).

    Args:
        scale: in grid steps, 1 to 2^40.
        size: how many, independent.
        fresh: cryptographic bytes.

    Returns:
        Shape (size,), below 2^62 in magnitude.

    Raises:
        ValueError: scale is out of range.
    """
    return rejection.sample(1, scale, size, fresh)


def keep(numerator: int, denominator: int, size: int, fresh: Fresh) -> Bools:
    """Return independent coins, each True with probability numerator / denominator, shape (size,).

    Raises:
        ValueError: that is no probability.
    """
    if not 0 <= numerator <= denominator or denominator < 1:
        raise ValueError("a probability lies between 0 and 1")
    return coins.alike(coins.ratio(numerator, denominator), size, fresh)


def randomised_response(tops: Ints, columns: int, epsilon: float, fresh: Fresh) -> Ints:
    """Return each label with probability e^epsilon / (e^epsilon + columns - 1), else another, all others alike.

    Args:
        tops: labels, shape (n,), from 0 to columns - 1.
        columns: labels there are.
        epsilon: nats, above 0; taken as the rational number that the float is.
        fresh: cryptographic bytes.

    Raises:
        ValueError: a label or epsilon is out of range.
    """
    if not 0.0 < epsilon < math.inf:
        raise ValueError("epsilon is a number above 0")
    if len(tops) and not 0 <= int(tops.min()) <= int(tops.max()) < columns:
        raise ValueError("a label is not among the columns")
    if columns == 1:
        return tops.copy()
    others = coins.below(columns - 1, len(tops), fresh)
    others += others >= tops
    truthful = coins.alike(coins.logistic(columns - 1, *epsilon.as_integer_ratio()), len(tops), fresh)
    return np.where(truthful, tops, others)


def exponential(utilities: Ints, rate_num: int, rate_den: int, fresh: Fresh) -> Ints:
    """Return a column for each row, drawn with probability proportional to exp(utility * rate_num / rate_den).

    By inversion: the column whose share of [0, 1) holds one uniform number, so time does not depend on the utilities.
    A weight is off by less than 2^-51 (an exponent's relative error d moves exp(-x) by at most d/e), k of them and
    their sum by less than (k + 1) * 2^-50 of the sum; nearer than 16 times that to an edge, integers decide.

    Args:
        utilities: shape (n, k), at most 2^53 in magnitude.
        rate_num: above 0; the rate is at most 2^64.
        rate_den: above 0.
        fresh: cryptographic bytes.

    Returns:
        Shape (n,), from 0 to k - 1.

    Raises:
        ValueError: there are no columns, or a number is out of range.
    """
    rows, columns = utilities.shape
    if columns < 1 or rate_num < 1 or rate_den < 1 or rate_num > rate_den << 64:
        raise ValueError("a choice has columns, and a rate above 0 and up to 2^64")
    if rows and max(int(utilities.max()), -int(utilities.min())) > MOST_UTILITY:
        raise ValueError("a utility is beyond 2^53")
    chosen = np.empty(rows, np.int64)
    step = max(1, _CHUNK // columns)
    for first in range(0, rows, step):
        chosen[first : first + step] = _chosen(utilities[first : first + step], rate_num, rate_den, fresh)
    return chosen


def _chosen(utilities: Ints, rate_num: int, rate_den: int, fresh: Fresh) -> Ints:
    rows, columns = utilities.shape
    drawn = coins.words(rows, fresh)
    gaps = utilities.max(axis=1, keepdims=True) - utilities
    # Beyond 700 a weight is below 2^-1000, and an exponential that underflows would say no more.
    sums = np.exp(-np.minimum(gaps * (rate_num / rate_den), 700.0)).cumsum(axis=1)
    point = (drawn >> np.uint64(coins.WORD - coins.MANTISSA)) * 2.0**-coins.MANTISSA * sums[:, -1]
    apart = sums - point[:, None]
    chosen = np.count_nonzero(apart <= 0.0, axis=1).astype(np.int64)
    unclear = (np.abs(apart) < (columns + 8) * 2.0**-46 * sums[:, -1:]).any(axis=1)
    if unclear.any():
        for i in np.flatnonzero(unclear).tolist():
            row = [gap * rate_num for gap in gaps[i].tolist()]
            chosen[i] = _settled(int(drawn[i]), row, rate_den, fresh)
    return chosen


def _settled(word: int, numerators: list[int], denominator: int, fresh: Fresh) -> int:
    """Return the column that holds U, of which `word` is the first 64 bits, by integers."""
    bits = coins.WORD
    while True:
        brackets = [coins.exp_bracket(numerator, denominator, bits) for numerator in numerators]
        least, most = sum(low for low, _ in brackets), sum(high for _, high in brackets)
        left_most = right_least = 0
        for column, (low, high) in enumerate(brackets):
            right_least += low
            # The last column ends where the total does: what rounds there rounds on both sides.
            ends = column == len(brackets) - 1 or (word + 1) * most <= right_least << bits
            if ends and word * least >= left_most << bits:
                return column
            left_most += high
        word = word << bits | coins.number(bits, fresh)
        bits *= 2
