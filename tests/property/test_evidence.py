"""Evidence is a function of counts: order, grouping and replicas change nothing; pools forget what is taken back."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.evidence.null import Null
from guard.evidence.pool import CLIP, Pool
from guard.evidence.values import BINS, BUCKET, field
from guard.evidence.wealth import Wealth, log_evidence
from guard.model.arrays import Ints
from tests.support.nulls import a_null, exact_log_e, exact_strength

SIGNALS = 5
ANSWERS = 2
"""The last signals are of answers."""
SEEDS = st.integers(0, 2**32 - 1)


@lru_cache(maxsize=1)
def null() -> Null:
    return a_null(SIGNALS)


def bins(many: int, seed: int) -> Ints:
    """Return windows, shape (many, SIGNALS), in bins that are used, low ones mostly."""
    fresh = np.random.default_rng(seed)
    return np.minimum(fresh.geometric(0.6, size=(many, SIGNALS)) - 1, null().terms.used - 1)


def fed(many: int, seed: int) -> Wealth:
    wealth = Wealth(null())
    windows = bins(many, seed)
    wealth.add(0, windows[:, :-ANSWERS])
    wealth.add(SIGNALS - ANSWERS, windows[:, -ANSWERS:])
    return wealth


def assert_same(one: Wealth, other: Wealth) -> None:
    """Same to the last bit, so replicas that have merged decide alike."""
    assert one.bucket == other.bucket
    assert one.counts() == other.counts()
    assert one.strength() == other.strength()


FIELDS = st.builds(field, st.integers(0, 90), st.integers(0, SIGNALS - 1), st.integers(0, BINS - 1))
COUNTS = st.dictionaries(FIELDS, st.integers(1, 40), max_size=30)


@given(st.integers(0, 3 * BUCKET), SEEDS, SEEDS)
def test_the_order_of_windows_inside_a_bucket_does_not_matter(many: int, seed: int, order: int) -> None:
    windows = bins(many, seed)
    fresh = np.random.default_rng(order)
    shuffled = np.concatenate([fresh.permutation(windows[i : i + BUCKET]) for i in range(0, many + 1, BUCKET)])
    one, other = Wealth(null()), Wealth(null())
    one.add(0, windows)
    for window in shuffled:
        other.add(0, window[None])
    assert_same(one, other)


@given(st.integers(0, 3 * BUCKET), SEEDS, st.lists(st.integers(1, 20), max_size=5))
def test_how_windows_are_batched_does_not_matter(many: int, seed: int, sizes: list[int]) -> None:
    windows = bins(many, seed)
    one, other = Wealth(null()), Wealth(null())
    told = one.add(0, windows)
    parts = np.split(windows, np.cumsum(sizes))
    assert told == [number for part in parts for number in other.add(0, part)]
    assert_same(one, other)


@given(st.lists(COUNTS, max_size=5), st.permutations(range(5)))
def test_merging_is_the_same_in_any_order(deltas: list[dict[int, int]], order: list[int]) -> None:
    one, other, whole = Wealth(null()), Wealth(null()), Wealth(null())
    total: dict[int, int] = {}
    for delta in deltas:
        one.merge(delta)
        for number, many in delta.items():
            total[number] = total.get(number, 0) + many
    for i in order:
        if i < len(deltas):
            other.merge(deltas[i])
    whole.merge(total)
    assert_same(one, other)
    assert_same(one, whole)


@given(st.integers(0, 40 * BUCKET), st.integers(0, 40 * BUCKET), SEEDS)
def test_two_replicas_that_merge_agree_with_one_that_saw_everything(mine: int, theirs: int, seed: int) -> None:
    one, other, whole = fed(mine, seed), fed(theirs, seed + 1), Wealth(null())
    whole.merge(one.counts())
    whole.merge(other.counts())
    before = one.counts()
    one.merge(other.counts())
    other.merge(before)
    assert_same(one, other)
    assert_same(one, whole)


@given(st.integers(0, 70 * BUCKET), SEEDS, COUNTS)
def test_evidence_that_is_kept_up_to_date_is_that_of_the_counts(many: int, seed: int, others: dict[int, int]) -> None:
    wealth = fed(many, seed)
    wealth.strength()
    wealth.merge(others)
    exact = exact_strength(null(), wealth.bucket, wealth.counts())
    assert wealth.strength().any == pytest.approx(exact.any, abs=1e-3)
    assert wealth.strength().structure == pytest.approx(exact.structure, abs=1e-3)


@given(st.lists(st.integers(0, 500), min_size=SIGNALS * BINS, max_size=SIGNALS * BINS))
def test_log_evidence_is_the_formula(flat: list[int]) -> None:
    counts = np.array(flat).reshape(SIGNALS, BINS)
    found = log_evidence(null(), counts)
    for s in range(SIGNALS):
        assert found[s] == pytest.approx(exact_log_e(null(), s, counts[s].tolist()), abs=1e-7)


@given(st.dictionaries(st.integers(), st.integers(), max_size=20))
def test_no_counts_of_others_can_break_a_client(counts: dict[int, int]) -> None:
    wealth = Wealth(null())
    wealth.merge(counts)
    wealth.add(0, bins(2, 0))
    assert all(math.isfinite(x) for x in wealth.strength())
    assert wealth.counts()


LOGS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-5, 5)


@given(st.floats(1, 5), st.lists(st.tuples(st.integers(0, 3), LOGS), max_size=12), st.permutations(range(4)))
def test_a_pool_is_that_of_its_accounts_last_words(
    nu: float, changes: list[tuple[int, float]], order: list[int]
) -> None:
    pool, plain = Pool(nu), Pool(nu)
    held: dict[int, float] = {}
    for account, value in changes:
        held[account] = pool.change(held.get(account), value)
    for account in order:
        if account in held:
            plain.change(None, held[account])
    assert pool.log_evidence == plain.log_evidence
    assert pool.accounts == plain.accounts == len(held)


@given(st.floats(1, 5), st.lists(LOGS, max_size=5), st.floats(-50, 4.6), LOGS)
def test_a_change_that_is_taken_back_leaves_nothing_behind(
    nu: float, accounts: list[float], value: float, other: float
) -> None:
    pool = Pool(nu)
    for each in accounts:
        pool.change(None, each)
    before = pool.change(None, value)
    stood = pool.log_evidence
    between = pool.change(before, other)
    if between < math.log(CLIP):
        pool.change(between, value)
        assert pool.log_evidence == stood
