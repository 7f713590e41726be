"""Coins fall on the side that exact arithmetic says, also where floats or the first bits do not tell."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from guard.errors import InvariantError
from guard.privacy import coins
from tests.support.laws import exp_minus, seeded

GAPS = [
    Fraction(0),
    Fraction(1, 10**30),
    Fraction(1, 3),
    Fraction(1),
    Fraction(25, 18),
    Fraction((2**44 - 1) ** 2, 2 * (2**40 - 1) ** 2),
    Fraction(63),
    Fraction(127, 2),
    Fraction(64),
    Fraction(641, 10),
    Fraction(2000),
]


def none(size: int) -> bytes:
    raise AssertionError(f"{size} bytes more were drawn than needed")


def once(*parts: bytes) -> coins.Fresh:
    """Return a source that gives each part once, and is asked for nothing else."""
    left = deque(parts)

    def fresh(size: int) -> bytes:
        part = left.popleft()
        assert len(part) == size
        return part

    return fresh


@pytest.mark.parametrize("bits", [64, 128, 512])
@pytest.mark.parametrize("gap", GAPS)
def test_brackets_of_exponentials_hold_the_exact_value_and_stay_narrow(gap: Fraction, bits: int) -> None:
    low, high = coins.exp_bracket(gap.numerator, gap.denominator, bits)
    least, most = exp_minus(gap, bits + 100)
    assert low <= least * 2**bits
    assert most * 2**bits <= high
    assert 0 <= high - low <= 3
    for factor, divisor in ((1, 7), (386, 401), (2**70, 3)):
        low, high = coins.decaying(factor, divisor, gap.numerator, gap.denominator)(bits)
        assert low <= least * 2**bits * factor / divisor
        assert most * 2**bits * factor / divisor <= high
        assert high - low <= 5
    for others in (1, 9, 4095):
        low, high = coins.logistic(others, gap.numerator, gap.denominator)(bits)
        assert low <= 2**bits / (1 + others * most)
        assert 2**bits / (1 + others * least) <= high
        assert high - low <= 3 * others + 2


def test_a_coin_is_settled_by_as_many_bits_as_it_takes() -> None:
    bracket = coins.decaying(1, 1, 1, 1)
    digits = floor(exp_minus(Fraction(1), 300)[0] * 2**256)
    first, second, third = digits >> 192, (digits >> 128) & (2**64 - 1), digits & (2**128 - 1)
    assert coins.settle(first - 2, bracket, none)
    assert not coins.settle(first + 2, bracket, none)
    for change in (-2, 2):
        assert coins.settle(first, bracket, once((second + change).to_bytes(8, "big"))) == (change < 0)
        more = once(second.to_bytes(8, "big"), (third + change).to_bytes(16, "big"))
        assert coins.settle(first, bracket, more) == (change < 0)


def test_coins_of_one_probability_fall_at_its_very_bits() -> None:
    third = 2**64 // 3
    drawn = np.array([0, third - 1, third, third, third + 1, 2**64 - 1], np.uint64).tobytes()
    next_bits = third.to_bytes(8, "big")
    fresh = once(drawn, (third - 1).to_bytes(8, "big"), next_bits, bytes(15) + b"\1")
    heads = coins.alike(coins.ratio(1, 3), 6, fresh)
    assert heads.tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize(("numerator", "heads"), [(0, False), (7, True)])
def test_certain_coins_are_certain_for_every_word(numerator: int, *, heads: bool) -> None:
    ends = np.array([0, 2**63, 2**64 - 1], np.uint64).tobytes()
    assert coins.alike(coins.ratio(numerator, 7), 3, once(ends)).tolist() == [heads] * 3


def test_an_estimate_within_its_margin_never_changes_what_a_coin_shows() -> None:
    gaps = [Fraction(i, 7) for i in range(1, 80)]
    exact = [exp_minus(gap)[0] for gap in gaps]
    brackets = [coins.decaying(1, 1, gap.numerator, gap.denominator) for gap in gaps]
    for away in (-(2**30), -(2**20), -5, 5, 2**20, 2**30):
        drawn = np.array([floor(p * 2**64) + away for p in exact], np.uint64)
        for error in (coins.MARGIN - 3, 3 - coins.MARGIN, 0.0):
            estimates = np.array([float(p * 2**53) for p in exact]) + error
            assert (coins.tosses(drawn, estimates, lambda i: brackets[i], none) == (away < 0)).all()


def test_coins_ask_for_more_only_where_a_float_cannot_tell() -> None:
    asked: list[int] = []

    def bracket(i: int) -> coins.Bracket:
        asked.append(i)
        return coins.ratio(1, 2)

    middle = 2**63
    drawn = np.array([0, middle - 2**26, middle - 2**20, middle + 2**20, middle + 2**26, 2**64 - 1], np.uint64)
    heads = coins.tosses(drawn, np.full(6, 2.0**52), bracket, none)
    assert heads.tolist() == [True] * 3 + [False] * 3
    assert asked == [2, 3]
    coins.tosses(coins.words(200_000, seeded(1)), np.full(200_000, 2.0**52), bracket, none)
    assert asked == [2, 3]


@pytest.mark.parametrize("bound", [1, 2, 3, 5, 8, 4095])
def test_uniform_integers_have_no_bias(bound: int) -> None:
    span = 1 << (bound - 1).bit_length()
    # Every value of the bits that count, once, under bits that do not; refused ones are drawn again.
    every = (np.arange(span, dtype=np.uint64) + np.uint64(2**63)).tobytes()
    again = np.zeros(span - bound, np.uint64).tobytes()
    drawn = coins.below(bound, span, once(every, again) if again else once(every))
    assert drawn.tolist() == list(range(bound)) + [0] * (span - bound)


@pytest.mark.parametrize("bound", [0, 2**62 + 1])
def test_a_bound_that_int64_cannot_hold_is_refused(bound: int) -> None:
    with pytest.raises(ValueError, match="bound"):
        coins.below(bound, 1, none)


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_source_that_gives_another_number_of_bytes_is_refused(extra: int) -> None:
    with pytest.raises(InvariantError, match="randomness"):
        coins.words(2, lambda size: bytes(size + extra))
    with pytest.raises(InvariantError, match="randomness"):
        coins.number(64, lambda size: bytes(size + extra))
