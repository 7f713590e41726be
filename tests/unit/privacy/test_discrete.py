"""Choices have exactly the stated probabilities, at the very bits where one becomes another, and nothing repeats."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest

from guard.model.arrays import Ints
from guard.privacy import discrete
from tests.support.laws import exp_minus, seeded


def none(size: int) -> bytes:
    raise AssertionError(f"{size} bytes more were drawn than needed")


def uniform(bits: int, before: bytes = b"") -> discrete.Fresh:
    """Return a source whose U, after `before`, is `bits` / 2^128: a word as arrays hold it, then more as integers."""
    word, more = divmod(bits, 2**64)
    left = [*([before] if before else []), word.to_bytes(8, "little"), more.to_bytes(8, "big"), bytes(16)]

    def fresh(size: int) -> bytes:
        part = left.pop(0)
        assert len(part) == size
        return part

    return fresh


def edges(utilities: list[int], rate: Fraction) -> list[Fraction]:
    """Return where, in [0, 1), each column's share ends, right to 2^-290."""
    weight = {u: exp_minus((max(utilities) - u) * rate, 300)[0] for u in set(utilities)}
    sums = list(accumulate(weight[u] for u in utilities))
    return [part / sums[-1] for part in sums]


@pytest.mark.parametrize(
    ("utilities", "rate"),
    [
        ([0, 1], Fraction(1, 3)),
        ([5, 3, 0, 4, 5], Fraction(7, 10)),
        ([-(2**53), 2**53, 2**53 - 1], Fraction(1)),
        ([2**53, 0, -(2**53)], Fraction(1, 2**52)),
        ([7, 7, 7], Fraction(10**18)),
        ([0, 100, 200], Fraction(1, 10)),
        ([1, 0, 1], Fraction(1, 10**300)),
    ],
)
def test_one_column_s_share_ends_where_the_next_begins(utilities: list[int], rate: Fraction) -> None:
    table = np.array([utilities], np.int64)
    ends = edges(utilities, rate)
    for column, end in enumerate(ends[:-1]):
        bits = math.floor(end * 2**128)
        for beyond in (-(2**90), -20, 20, 2**90):
            at = bits + beyond
            if at >= 0:
                expected = next(i for i, other in enumerate(ends) if Fraction(at, 2**128) < other)
                chosen = discrete.exponential(table, rate.numerator, rate.denominator, uniform(at))
                assert chosen.tolist() == [expected], (column, beyond)


def test_the_ends_of_the_unit_interval_belong_to_the_outer_columns() -> None:
    table = np.array([[3, 1, 2]])
    assert discrete.exponential(table, 1, 2, uniform(0)).tolist() == [0]
    assert discrete.exponential(table, 1, 2, uniform(2**128 - 1)).tolist() == [2]
    assert discrete.exponential(np.array([[4]]), 1, 2, uniform(2**128 - 1)).tolist() == [0]


def test_wide_tables_are_settled_and_drawn_in_bounded_pieces() -> None:
    columns = 4096
    table = np.tile(np.arange(columns, dtype=np.int64) % 7, (100, 1))
    ends = edges(table[0].tolist(), Fraction(1, 5))
    at = math.floor(ends[2000] * 2**128)
    assert discrete.exponential(table[:1], 1, 5, uniform(at - 20_000)).tolist() == [2000]
    assert discrete.exponential(table[:1], 1, 5, uniform(at + 20_000)).tolist() == [2001]
    asked: list[int] = []
    source = seeded(1)

    def fresh(size: int) -> bytes:
        asked.append(size)
        return source(size)

    drawn = discrete.exponential(table, 1, 5, fresh)
    assert len(np.unique(drawn)) > 90
    assert asked == [8 * 32, 8 * 32, 8 * 32, 8 * 4]


@pytest.mark.parametrize(
    ("table", "numerator", "denominator"),
    [
        (np.zeros((1, 0), np.int64), 1, 1),
        (np.zeros((1, 2), np.int64), 0, 1),
        (np.zeros((1, 2), np.int64), -1, 1),
        (np.zeros((1, 2), np.int64), 1, 0),
        (np.zeros((1, 2), np.int64), 2**64 + 1, 1),
        (np.array([[0, 2**53 + 1]]), 1, 1),
        (np.array([[0, -(2**53) - 1]]), 1, 1),
        (np.array([[0, -(2**63)]]), 1, 1),
    ],
)
def test_choices_beyond_what_is_proven_are_refused(table: Ints, numerator: int, denominator: int) -> None:
    with pytest.raises(ValueError, match=r"choice|utility"):
        discrete.exponential(table, numerator, denominator, none)


@pytest.mark.parametrize("columns", [2, 3, 10])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5e-324, 40.0])
def test_a_response_is_true_up_to_the_very_bit_that_epsilon_says(columns: int, epsilon: float) -> None:
    low, _ = exp_minus(Fraction(epsilon), 400)
    bits = math.floor(2**128 / (1 + (columns - 1) * low))
    for top in (0, columns - 1):
        # The other label is drawn first, whatever comes: the first, or the second where that is the top.
        other = int(top == 0)
        for beyond, expected in ((-20_000, top), (20_000, other)):
            if bits + beyond < 2**128:
                fresh = uniform(bits + beyond, before=bytes(8))
                assert discrete.randomised_response(np.array([top]), columns, epsilon, fresh).tolist() == [expected]


def test_every_other_label_is_as_likely() -> None:
    # Words for the other label 0, 1, 2, then tosses that all say "another".
    data = [np.arange(3, dtype="<u8").tobytes(), b"\xff" * 24]
    drawn = discrete.randomised_response(np.array([1, 1, 1]), 4, 1.0, lambda _: data.pop(0))
    assert drawn.tolist() == [0, 2, 3]


def test_the_only_label_is_the_answer_and_no_rows_are_none() -> None:
    assert discrete.randomised_response(np.zeros(3, np.int64), 1, 1.0, none).tolist() == [0, 0, 0]
    assert discrete.randomised_response(np.zeros(0, np.int64), 3, 1.0, os.urandom).tolist() == []
    assert discrete.exponential(np.zeros((0, 3), np.int64), 1, 1, none).tolist() == []
    assert discrete.keep(1, 2, 0, os.urandom).tolist() == []


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        discrete.randomised_response(np.zeros(1, np.int64), 2, epsilon, none)


@pytest.mark.parametrize(("top", "columns"), [(-1, 2), (2, 2), (0, 0)])
def test_a_label_that_is_not_among_the_columns_is_refused(top: int, columns: int) -> None:
    with pytest.raises(ValueError, match="label"):
        discrete.randomised_response(np.array([top]), columns, 1.0, none)


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 2), (3, 2), (0, 0), (1, -2)])
def test_a_coin_without_a_probability_is_refused(numerator: int, denominator: int) -> None:
    with pytest.raises(ValueError, match="probability"):
        discrete.keep(numerator, denominator, 1, none)


@pytest.mark.parametrize("scale", [1, 3, 2**40])
def test_samples_are_whole_numbers_of_64_bits(scale: int) -> None:
    for sampler in (discrete.gaussian, discrete.laplace):
        drawn = sampler(scale, 5000, seeded(2))
        assert drawn.dtype == np.int64
        assert drawn.shape == (5000,)
        assert drawn.min() < 0 < drawn.max()
        assert np.abs(drawn).max() < 20 * scale
        with pytest.raises(ValueError, match="scale"):
            sampler(2**40 + 1, 1, none)


def test_two_calls_and_two_processes_draw_different_noise() -> None:
    script = (
        "import os; from guard.privacy.discrete import gaussian; print(*(gaussian(2**40, 3, os.urandom) for _ in '12'))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    seen = " ".join(run.communicate(timeout=60)[0] for run in runs).replace("[", " ").replace("]", " ").split()
    assert len(seen) == 12
    assert len(set(seen)) == 12
    # Control: two processes with one seed agree.
    assert np.array_equal(discrete.gaussian(2**40, 3, seeded(1)), discrete.gaussian(2**40, 3, seeded(1)))
