"""Coins and uniform numbers whose probabilities are exact, whatever floating-point arithmetic rounds.

A coin lands heads when U < p for a uniform U in [0, 1), of which no more bits are drawn than the answer needs. The
first 64 decide it unless p lies too near for the arithmetic at hand; then more bits are drawn, and integers
low <= p * 2^bits <= high (a `Bracket`) decide. Their distance does not grow with `bits`, so a coin that is still open
at n bits has a chance of about 2^-n, and every coin falls with probability 1. No bias of any size is left: not that of
a float's rounding, nor that of taking a remainder.

Lazy comparison: von Neumann, 1951; Karney, 2016, "Sampling exactly from the normal distribution". Differs: the bits of
p come from correctly rounded `decimal` arithmetic instead of from further coins, since they are needed about once in
10^12 coins.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal

import numpy as np
from numpy.typing import NDArray

from guard.errors import InvariantError
from guard.model.arrays import Bools, Floats, Ints

Fresh = Callable[[int], bytes]
"""Returns as many cryptographic bytes as it is asked for, such as `os.urandom`."""
Bracket = Callable[[int], tuple[int, int]]
"""Takes a number of bits; returns integers around p * 2^bits, at a distance that does not grow with it."""
Bits = NDArray[np.uint64]
WORD = 64
MANTISSA = 53
"""Bits of a word that a float64 holds exactly."""
MARGIN = 2.0**13
"""How far an estimate of p * 2^53 may be off, in `tosses`: 2^-40 of probability."""
_WORD_TYPE = np.dtype("<u8")


def words(size: int, fresh: Fresh) -> Bits:
    """Return `size` uniform words of 64 bits."""
    return np.ndarray((size,), _WORD_TYPE, _drawn(WORD // 8 * size, fresh)).astype(np.uint64, copy=False)


def number(bits: int, fresh: Fresh) -> int:
    """Return a uniform integer of `bits` bits, a multiple of 8."""
    return int.from_bytes(_drawn(bits // 8, fresh), "big")


def _drawn(size: int, fresh: Fresh) -> bytes:
    data = fresh(size)
    if len(data) != size:
        raise InvariantError("a source of randomness gave other than what it was asked for")
    return data


def below(bound: int, size: int, fresh: Fresh) -> Ints:
    """Return `size` uniform integers from 0 up to `bound` - 1, for a bound from 1 to 2^62, by rejection."""
    if not 1 <= bound <= 2**62:
        raise ValueError("a bound lies between 1 and 2^62")
    drawn = np.empty(size, np.int64)
    mask = np.uint64((1 << (bound - 1).bit_length()) - 1)
    have = 0
    while have < size:
        candidates = (words(size - have, fresh) & mask).astype(np.int64)
        taken = candidates[candidates < bound]
        drawn[have : have + len(taken)] = taken
        have += len(taken)
    return drawn


def settle(word: int, bracket: Bracket, fresh: Fresh) -> bool:
    """Decide U < p exactly, where `word` is the first 64 bits of U.

    >>> settle(0, ratio(1, 3), bytes), settle(2**64 // 3, ratio(1, 3), lambda size: bytes([0x55] * (size - 1) + [0x56]))
    (True, False)
    """
    bits = WORD
    while True:
        low, high = bracket(bits)
        if word < low:
            return True
        if word >= high:
            return False
        word = word << bits | number(bits, fresh)
        bits *= 2


def alike(bracket: Bracket, size: int, fresh: Fresh) -> Bools:
    """Return `size` coins of one probability."""
    drawn = words(size, fresh)
    low, high = bracket(WORD)
    # Both may be 2^64, which no word holds.
    heads = drawn <= np.uint64(low - 1) if low > 0 else np.zeros(size, np.bool_)
    unclear = ~heads if high >= 2**WORD else ~heads & (drawn < np.uint64(high))
    if unclear.any():
        for i in np.flatnonzero(unclear).tolist():
            heads[i] = settle(int(drawn[i]), bracket, fresh)
    return heads


def tosses(drawn: Bits, estimates: Floats, bracket: Callable[[int], Bracket], fresh: Fresh) -> Bools:
    """Return a coin for each word, each of its own probability.

    Args:
        drawn: the first 64 bits of each coin's U, shape (n,).
        estimates: p * 2^53, off by less than `MARGIN` - 2, shape (n,).
        bracket: returns the bracket of coin i; asked only where the first 53 bits do not decide.
        fresh: more bits.
    """
    apart = (drawn >> np.uint64(WORD - MANTISSA)).astype(np.float64) - estimates
    heads = apart < 0.0
    unclear = np.abs(apart) < MARGIN
    if unclear.any():
        for i in np.flatnonzero(unclear).tolist():
            heads[i] = settle(int(drawn[i]), bracket(i), fresh)
    return heads


def ratio(numerator: int, denominator: int) -> Bracket:
    """Return the bracket of a rational probability.

    >>> ratio(1, 3)(4)
    (5, 6)
    """
    return lambda bits: ((numerator << bits) // denominator, -(-(numerator << bits) // denominator))


def decaying(factor: int, divisor: int, numerator: int, denominator: int) -> Bracket:
    """Return the bracket of factor / divisor * exp(-numerator / denominator).

    >>> decaying(3, 4, 1, 1)(10)
    (282, 283)
    """
    # A factor above 1 widens the bracket by as many bits as it has.
    more = factor.bit_length()

    def bracket(bits: int) -> tuple[int, int]:
        low, high = exp_bracket(numerator, denominator, bits + more)
        return low * factor // (divisor << more), -(-high * factor // (divisor << more))

    return bracket


def logistic(others: int, numerator: int, denominator: int) -> Bracket:
    """Return the bracket of 1 / (1 + others * exp(-numerator / denominator)).

    >>> logistic(1, 0, 1)(10)
    (512, 512)
    """

    def bracket(bits: int) -> tuple[int, int]:
        low, high = exp_bracket(numerator, denominator, bits)
        one = 1 << bits
        return (one << bits) // (one + others * high), -(-(one << bits) // (one + others * low))

    return bracket


def exp_bracket(numerator: int, denominator: int, bits: int) -> tuple[int, int]:
    """Return integers around exp(-numerator / denominator) * 2^bits, at most 3 apart.

    With x = numerator / denominator <= bits and P decimal digits, the quotient is off by x * 10^(1-P), and so is the
    exponential, in relative terms; it and the product are rounded once each, by 10^(1-P). In all that is less than
    (bits + 2) * 10^(1-P), and with the P below less than 10^-15 of a unit of the result.

    >>> exp_bracket(1, 1, 10), exp_bracket(0, 1, 10), exp_bracket(100, 1, 10)
    ((375, 378), (1024, 1024), (0, 1))
    """
    if numerator == 0:
        return 1 << bits, 1 << bits
    if numerator > bits * denominator:
        return 0, 1
    context = Context(bits * 31 // 100 + 20, ROUND_HALF_EVEN, MIN_EMIN, MAX_EMAX, traps=[])
    power = context.exp(context.divide(Decimal(-numerator), Decimal(denominator)))
    whole = int(context.multiply(power, Decimal(1 << bits)))
    return max(0, whole - 1), whole + 2
