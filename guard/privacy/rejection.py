"""Rejection: integers k with probability proportional to f(|k|), for f(m) = exp(-m^2 / (2 s^2)) or exp(-m / s).

Theory of operation. Magnitudes fall into blocks of t = 2^b (scale/16 < t <= scale/8, or t = 1), up to where f is below
exp(-12); what lies beyond is the tail, in blocks of T = 2^c >= scale. A proposal takes

* one of 4,096 entries: n_j of them name block j, n_tail the tail, whose block i then has probability 2^-(i+1);
* an offset in the block, and a sign. The negative half is k = -1 - m, so there is no -0 to count twice.

It is kept by a coin of probability A f(|k|) / n_j, in the tail A f(|k|) 2^(i+1) (T/t) / n_tail. What is kept has
probability A f(|k|) / (4096 * 2 t), one and the same multiple of f for every k, provided that no coin's probability
is above 1. That holds since f falls: n_j >= A f(j t), n_tail >= 2 A (T/t) f(tail's start), and from one tail block to
the next f falls by more than 2 (laplace: exp(-T/s) <= 1/e; gaussian: exp(-T * 4.8/s) or less). Entries are whole
numbers, so proposals need no arithmetic that rounds; only coins compare with a float, and those that are too near to
it are settled by integers (`coins`). Nine proposals in ten are kept.

Rounding. In a block m < 2^44 is exact, x = m^2 / (2 s^2) < 18 is off by 3 roundings of 2^-53, so exp(-x) by 54 * 2^-53
and by what `np.exp` errs, less than 4 units in the last place; ratio and product round twice. A coin's estimate is off
by less than 2^7 of 2^-53; `coins.MARGIN` is 2^13. `np.exp` could be wrong by a thousand units in the last place and
the law would stay what it is.

Bounds. A proposal of 2^62 or more is refused, so that int64 holds every result: the law is the stated one given
|k| < 2^62, which is less than exp(-2^21) away from it in total variation (laplace, scale 2^40; all others are nearer).

Sources: Canonne, Kamath and Steinke, 2020, algorithms 1 to 3; Karney, 2016, "Sampling exactly from the normal
distribution". Differs: dyadic blocks propose, not a discrete Laplace, and a proposal has one coin, not one a factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.privacy import coins
from guard.privacy.coins import Bits, Fresh

MOST_SCALE = 2**40
ENTRY_BITS = 12
LIMIT = 2**62
"""What every magnitude is below."""
_CUT = 12.0
"""The tail begins where -log f reaches this."""
_ROOM = 1.0 + 2.0**-40
"""Covers the roundings of a height before it is rounded up to whole entries."""
_ROUND = 2**14
"""Proposals a round, at most: 256 KiB of bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """What proposes for one law, and how much of it is kept; see the top of the module.

    Args:
        power: 2: gaussian; 1: laplace.
        denominator: f(m) = exp(-m^power / denominator).
        block_bits: b: a block has 2^b magnitudes.
        tail_bits: c: a tail block has 2^c.
        tail_start: least magnitude of the tail.
        height: A.
        starts: least magnitude of each entry's block, shape (4096,); the tail's entries are the last.
        shares: n_j of each entry's block, shape (4096,).
        ratios: A / n_j * 2^53, shape (4096,); the tail's mean nothing.
    """

    power: int
    denominator: int
    block_bits: int
    tail_bits: int
    tail_start: int
    height: int
    starts: Ints
    shares: Ints
    ratios: Floats

    def kept(self, size: int, fresh: Fresh) -> Ints:
        """Return what is kept of `size` proposals, in their order."""
        drawn = coins.words(2 * size, fresh)
        return self.judge(drawn[:size], drawn[size:], fresh)

    def judge(self, proposals: Bits, tosses: Bits, fresh: Fresh) -> Ints:
        """Return what is kept of proposals: entry in the top 12 bits, then the sign, the offset in the lowest."""
        entries = (proposals >> np.uint64(64 - ENTRY_BITS)).astype(np.int64)
        signs = (proposals >> np.uint64(63 - ENTRY_BITS)).astype(np.int64) & 1
        starts = self.starts[entries]
        halves = starts + (proposals & np.uint64((1 << self.block_bits) - 1)).astype(np.int64)
        magnitudes = (halves + signs).astype(np.float64)
        if self.power == 2:
            magnitudes *= magnitudes
        estimates = np.exp(magnitudes / -float(self.denominator)) * self.ratios[entries]

        def bracket(i: int) -> coins.Bracket:
            gap = int(halves[i] + signs[i]) ** self.power
            return coins.decaying(self.height, int(self.shares[entries[i]]), gap, self.denominator)

        heads = coins.tosses(tosses, estimates, bracket, fresh)
        tails = np.flatnonzero(starts == self.tail_start)
        for i in tails.tolist():
            halves[i], heads[i] = self._tail(int(signs[i]), int(tosses[i]), fresh)
        return (halves ^ -signs)[heads]

    def _tail(self, sign: int, toss: int, fresh: Fresh) -> tuple[int, bool]:
        block = 0
        while (word := coins.number(coins.WORD, fresh)) == 0:
            block += coins.WORD
        block += coins.WORD - word.bit_length()
        offset = coins.number(coins.WORD, fresh) & ((1 << self.tail_bits) - 1)
        half = self.tail_start + (block << self.tail_bits) + offset
        if half + sign >= LIMIT:
            return 0, False
        factor = self.height << (block + 1 + self.tail_bits - self.block_bits)
        share = int(self.shares[-1])
        bracket = coins.decaying(factor, share, (half + sign) ** self.power, self.denominator)
        return half, coins.settle(toss, bracket, fresh)


@lru_cache(maxsize=64)
def envelope(power: int, scale: int) -> Envelope:
    """Return the envelope of gaussian (power 2) or laplace (power 1) noise.

    Raises:
        ValueError: scale is out of range.
    """
    if not 1 <= scale <= MOST_SCALE:
        raise ValueError("a scale lies between 1 and 2^40 grid steps")
    denominator = 2 * scale * scale if power == 2 else scale
    block_bits, tail_bits = max(0, scale.bit_length() - 4), (scale - 1).bit_length()
    heights: list[float] = []
    while (gap := (len(heights) << block_bits) ** power / denominator) < _CUT:
        heights.append(math.exp(-gap))
    tail = math.exp(-gap) * math.ldexp(2.0, tail_bits - block_bits)
    entries = 2**ENTRY_BITS
    height = int(entries / (sum(heights) + tail))
    while sum(counts := [math.ceil(height * part * _ROOM) for part in (*heights, tail)]) > entries:
        height -= 1
    counts[0] += entries - sum(counts)
    blocks = np.arange(len(counts), dtype=np.int64) << block_bits
    shares = np.repeat(np.array(counts, dtype=np.int64), counts)
    ratios = height / shares * 2.0**coins.MANTISSA
    starts = np.repeat(blocks, counts)
    return Envelope(power, denominator, block_bits, tail_bits, int(blocks[-1]), height, starts, shares, ratios)


def sample(power: int, scale: int, size: int, fresh: Fresh) -> Ints:
    """Return `size` independent numbers, shape (size,), each below 2^62 in magnitude.

    Raises:
        ValueError: scale is out of range.
    """
    source = envelope(power, scale)
    drawn = np.empty(size, np.int64)
    have = 0
    while have < size:
        missing = size - have
        # A few more than are kept on average, so that one round is mostly enough.
        taken = source.kept(min(_ROUND, missing + missing // 8 + 32), fresh)[:missing]
        drawn[have : have + len(taken)] = taken
        have += len(taken)
    return drawn
