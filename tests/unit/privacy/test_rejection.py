"""Proposals and coins together have exactly the stated law: every entry is looked at, with rational arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from guard.privacy import coins, rejection
from tests.support.laws import exp_minus, seeded

LAWS = {"gaussian": 2, "laplace": 1}
SCALES = [*range(1, 10), 15, 16, 25, 1000, 2**32, 2**32 + 12345, 2**34 - 1, 2**40 - 1, 2**40]
ENTRIES = 2**rejection.ENTRY_BITS


def gap(power: int, scale: int, magnitude: int) -> Fraction:
    return Fraction(magnitude**power, 2 * scale**2 if power == 2 else scale)


def proposals(entries: Sequence[int], signs: Sequence[int], offsets: Sequence[int]) -> coins.Bits:
    words = [(e << 52) | (s << 51) | o for e, s, o in zip(entries, signs, offsets, strict=True)]
    return np.array(words, np.uint64)


def none(size: int) -> bytes:
    raise AssertionError(f"{size} bytes more were drawn than needed")


def zeros(size: int) -> bytes:
    return bytes(size)


def ones(size: int) -> bytes:
    return b"\xff" * size


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("power", LAWS.values(), ids=LAWS)
def test_every_block_has_the_entries_that_its_coins_assume_and_no_coin_needs_more_than_certainty(
    power: int, scale: int
) -> None:
    source = rejection.envelope(power, scale)
    block, tail = 1 << source.block_bits, 1 << source.tail_bits
    assert block == 1 or scale < 16 * block <= 2 * scale
    assert tail >= scale
    starts, counts = np.unique(source.starts, return_counts=True)
    assert len(source.starts) == ENTRIES
    # Blocks meet without a gap, and their entries are as many as the coins' probabilities divide by.
    assert starts.tolist() == [j * block for j in range(len(starts))]
    assert np.repeat(counts, counts).tolist() == source.shares.tolist()
    for start, count in zip(starts[:-1].tolist(), counts[:-1].tolist(), strict=True):
        assert source.height * exp_minus(gap(power, scale, start), 60)[1] <= count
    start = source.tail_start
    assert start == starts[-1]
    heights = [exp_minus(gap(power, scale, start + i * tail), 60) for i in range(2)]
    assert 2 * source.height * Fraction(tail, block) * heights[0][1] <= int(counts[-1])
    # f falls ever faster, so what holds for the first two blocks of the tail holds for all others.
    assert 2 * heights[1][1] <= heights[0][0]
    assert source.tail_start + tail * 2**21 < rejection.LIMIT < 2**63


@pytest.mark.parametrize("scale", [1, 3, 8])
@pytest.mark.parametrize("power", LAWS.values(), ids=LAWS)
def test_each_proposal_is_kept_at_exactly_its_probability(power: int, scale: int) -> None:
    source = rejection.envelope(power, scale)
    first = [int(e) for e in np.unique(source.starts, return_index=True)[1][:-1]]
    entries, signs = first * 2, [0] * len(first) + [1] * len(first)
    values = [int(source.starts[e]) ^ -s for e, s in zip(entries, signs, strict=True)]
    drawn = proposals(entries, signs, [0] * len(entries))
    bounds = [
        tuple(bound * source.height / int(source.shares[e]) for bound in exp_minus(gap(power, scale, abs(k)), 100))
        for e, k in zip(entries, values, strict=True)
    ]
    for beyond in (-3, -1, 0, 1, 3):
        tosses = [min(2**64 - 1, max(0, math.floor(low * 2**64) + beyond)) for low, _ in bounds]
        for fresh, more in ((zeros, 0), (ones, 1)):
            # U is the word itself, or just below the next one.
            kept = [
                k
                for k, toss, (low, high) in zip(values, tosses, bounds, strict=True)
                if (Fraction(toss + more, 2**64) <= low if more else Fraction(toss, 2**64) < high)
            ]
            assert source.judge(drawn, np.array(tosses, np.uint64), fresh).tolist() == kept


@pytest.mark.parametrize("scale", [3, 2**32 + 12345, 2**40])
@pytest.mark.parametrize("power", LAWS.values(), ids=LAWS)
def test_every_entry_draws_its_block_and_compares_with_its_probability(power: int, scale: int) -> None:
    source = rejection.envelope(power, scale)
    entries = np.flatnonzero(source.starts < source.tail_start)
    generator = np.random.default_rng(1)
    offsets = generator.integers(0, 1 << source.block_bits, len(entries))
    signs = generator.integers(0, 2, len(entries))
    drawn = proposals(entries.tolist(), signs.tolist(), offsets.tolist())
    values = (source.starts[entries] + offsets) ^ -signs
    p = [
        source.height / int(source.shares[e]) * math.exp(-gap(power, scale, abs(k)))
        for e, k in zip(entries.tolist(), values.tolist(), strict=True)
    ]
    # Beyond the margin of 2^-40 floats decide, alone.
    below = np.array([max(0, int((x - 2.0**-39) * 2**64)) for x in p], np.uint64)
    above = np.array([min(2**64 - 1, int((x + 2.0**-39) * 2**64)) for x in p], np.uint64)
    assert source.judge(drawn, below, none).tolist() == values.tolist()
    unsure = np.array(p) < 1 - 2.0**-38
    assert np.count_nonzero(unsure) > ENTRIES / 2
    assert not source.judge(drawn[unsure], above[unsure], none).size


def test_each_sign_has_its_own_half_and_zero_is_in_one_of_them() -> None:
    source = rejection.envelope(2, 3)
    first = proposals([0, 0], [0, 1], [0, 0])
    assert source.judge(first, np.zeros(2, np.uint64), none).tolist() == [0, -1]


@pytest.mark.parametrize("scale", [1, 3, 2**32 + 12345])
@pytest.mark.parametrize("power", LAWS.values(), ids=LAWS)
def test_the_tail_is_kept_at_exactly_its_probability(power: int, scale: int) -> None:
    source = rejection.envelope(power, scale)
    tail = 1 << source.tail_bits
    for block in (0, 1, 3, 64, 70):
        for sign in (0, 1):
            offset = tail // 3
            magnitude = source.tail_start + block * tail + offset + sign
            factor = source.height * Fraction(2 ** (block + 1) * tail, int(source.shares[-1]) << source.block_bits)
            threshold = math.floor(factor * exp_minus(gap(power, scale, magnitude), 300)[0] * 2**128)
            # Zeros, of which as many lead as there are blocks; the offset, under bits that do not count; more of U.
            run = bytes(8) * (block // 64) + (2 ** (63 - block % 64)).to_bytes(8, "big")
            for beyond in (-3, 3):
                word, more = divmod(max(0, threshold + beyond), 2**64)
                stream = run + (offset + 7 * tail).to_bytes(8, "big") + more.to_bytes(8, "big")
                rest = memoryview(stream + seeded(1)(64))

                def fresh(size: int) -> bytes:
                    nonlocal rest
                    part, rest = bytes(rest[:size]), rest[size:]
                    return part

                kept = source.judge(proposals([ENTRIES - 1], [sign], [0]), np.array([word], np.uint64), fresh)
                expected = [magnitude if not sign else -magnitude]
                assert kept.tolist() == (expected if beyond < 0 and threshold > 3 else [])


def test_what_int64_could_not_hold_is_refused() -> None:
    source = rejection.envelope(1, 2**40)
    left = 2**22 // 64

    def fresh(size: int) -> bytes:
        nonlocal left
        left -= 1
        return bytes(size) if left >= 0 else b"\xff" * size

    assert not source.judge(proposals([ENTRIES - 1], [0], [0]), np.zeros(1, np.uint64), fresh).size


@pytest.mark.parametrize("power", LAWS.values(), ids=LAWS)
def test_a_round_draws_no_more_than_its_bound(power: int) -> None:
    asked: list[int] = []
    source = seeded(3)

    def fresh(size: int) -> bytes:
        asked.append(size)
        return source(size)

    assert len(rejection.sample(power, 1000, 100_000, fresh)) == 100_000
    assert max(asked) == 2**18
    # One proposal is two words; fewer than one in ten was refused.
    assert sum(asked) < 1.1 * 16 * 100_000
    asked.clear()
    assert len(rejection.sample(power, 1000, 1, fresh)) == 1
    assert sum(asked) < 1024


@pytest.mark.parametrize("fresh", [zeros, ones], ids=["zeros", "ones"])
def test_no_sample_takes_nothing(fresh: coins.Fresh) -> None:
    assert rejection.sample(2, 5, 0, fresh).tolist() == []


@pytest.mark.parametrize("scale", [-1, 0, 2**40 + 1])
def test_a_scale_out_of_range_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="scale"):
        rejection.sample(2, scale, 1, none)


def test_this_platform_s_exponential_is_as_good_as_the_margins_assume() -> None:
    points = np.concatenate([-np.arange(1, 18 * 16) / 16.0, -np.random.default_rng(4).random(500) * 18])
    seen = np.exp(points)
    for point, value in zip(points.tolist(), seen.tolist(), strict=True):
        least, most = exp_minus(Fraction(-point), 100)
        assert abs(Fraction(value) - (least + most) / 2) < 4 * Fraction(math.ulp(value))
