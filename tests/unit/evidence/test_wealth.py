"""A client's evidence: buckets, starts, merging, what cannot be counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from guard.evidence.null import Null
from guard.evidence.values import BINS, BUCKET, KEPT, Strength, field, unfield
from guard.evidence.wealth import CEILING, MOST_COUNT, MOST_STARTS, Wealth, starts
from guard.model.arrays import Ints
from tests.support.nulls import a_null, exact_strength


def windows(null: Null, many: int, seed: int = 1, *, attack: bool = False) -> Ints:
    """Return bins of windows, shape (many, S): of a client as the first prototype has it, or all in the top bin."""
    if attack:
        return np.tile(null.terms.used - 1, (many, 1))
    fresh = np.random.default_rng(seed)
    chances = null.terms.pseudo[:, :BINS, 0] * (np.arange(BINS) < null.terms.used[:, None])
    return np.stack([fresh.choice(BINS, many, p=row / row.sum()) for row in chances], axis=1)


def near(found: Strength, exact: Strength) -> bool:
    return all(math.isclose(x, y, abs_tol=1e-3) for x, y in zip(found, exact, strict=True))


def test_nothing_is_known_of_a_new_client() -> None:
    wealth = Wealth(a_null())
    assert wealth.strength() == Strength(0.0, 0.0)
    assert (wealth.bucket, wealth.counts(), wealth.spoke()) == (0, {}, [])


def test_an_attack_gathers_evidence_and_an_honest_client_does_not() -> None:
    null = a_null()
    thief, customer = Wealth(null), Wealth(null)
    thief.add(0, windows(null, 20, attack=True))
    customer.add(0, windows(null, 20))
    assert min(thief.strength()) > math.log(1000) > math.log(20) > max(customer.strength())


def test_bins_are_counted_in_the_bucket_and_told_as_fields() -> None:
    wealth = Wealth(a_null())
    assert wealth.add(0, np.array([[1, 0, 2], [1, 3, 2]])) == [
        field(0, 0, 1),
        field(0, 1, 0),
        field(0, 2, 2),
        field(0, 0, 1),
        field(0, 1, 3),
        field(0, 2, 2),
    ]
    assert wealth.add(3, np.array([[1, 1]])) == [field(0, 3, 1), field(0, 4, 1)]
    assert wealth.counts()[field(0, 0, 1)] == 2


def test_a_full_bucket_ends_with_the_next_query_window_and_answers_go_to_the_newest() -> None:
    null = a_null()
    wealth = Wealth(null)
    wealth.add(0, np.zeros((BUCKET, 3), dtype=np.int64))
    assert wealth.bucket == 0
    assert unfield(wealth.add(3, np.zeros((1, 2), dtype=np.int64))[0])[0] == 0
    assert unfield(wealth.add(0, np.zeros((1, 3), dtype=np.int64))[0])[0] == 1
    assert unfield(wealth.add(3, np.zeros((40, 2), dtype=np.int64))[-1])[0] == 1
    assert wealth.bucket == 1


def test_at_most_six_starts_are_kept_and_none_comes_back() -> None:
    gone: set[int] = set()
    before: set[int] = set()
    for newest in range(300):
        kept = starts(newest)
        ages = [newest - b for b in kept]
        assert sorted(kept) == sorted(
            b for b in range(max(0, newest - KEPT + 1), newest + 1) if b % 2 ** int(math.log2(max(newest - b, 1))) == 0
        )
        assert len(kept) <= MOST_STARTS
        assert max(ages) < KEPT
        gone |= before - set(kept)
        assert not gone & set(kept)
        before = set(kept)


def test_evidence_is_what_the_formula_says_after_ten_thousand_windows() -> None:
    null = a_null()
    wealth = Wealth(null)
    bins = windows(null, 10_000)
    checked = 0
    for i in range(0, 10_000, 125):
        wealth.add(0, bins[i : i + 125])
        if i % 2000 == 0 or i == 9_875:
            assert near(wealth.strength(), exact_strength(null, wealth.bucket, wealth.counts()))
            checked += 1
    assert checked == 6
    assert wealth.bucket == 10_000 // BUCKET - 1


def test_a_client_that_turns_bad_is_caught_by_a_later_start() -> None:
    null = a_null()
    turned, always = Wealth(null), Wealth(null)
    turned.add(0, windows(null, 20 * BUCKET))
    assert max(turned.strength()) < math.log(100)
    turned.add(0, windows(null, 10, attack=True))
    assert turned.strength().structure > math.log(1000)
    always.add(0, windows(null, 20 * BUCKET + 10, seed=2))
    assert max(always.strength()) < math.log(100)


def test_evidence_falls_again_so_the_greatest_so_far_is_what_a_level_bounds() -> None:
    null = a_null()
    wealth = Wealth(null)
    seen: list[float] = []
    for window in np.concatenate([windows(null, 10, attack=True), windows(null, 150 * BUCKET)]):
        wealth.add(0, window[None])
        seen.append(wealth.strength().any)
    assert max(seen) > math.log(1000)
    assert seen[-1] < math.log(100)


def test_an_exception_leaves_its_signals_out() -> None:
    null = a_null()
    wealth = Wealth(null)
    bins = windows(null, 12)
    bins[:, 0] = null.terms.used[0] - 1
    wealth.add(0, bins)
    assert wealth.strength().structure > math.log(1000) > math.log(100) > max(wealth.strength(frozenset({0})))
    assert wealth.strength(frozenset({0, 1})).structure == 0.0
    assert wealth.strength(frozenset(range(5))) == Strength(0.0, 0.0)
    assert wealth.strength().structure > math.log(1000)


def test_signals_that_spoke_are_named_loudest_first() -> None:
    null = a_null()
    wealth = Wealth(null)
    bins = np.zeros((12, 5), dtype=np.int64)
    bins[:, 3] = null.terms.used[3] - 1
    wealth.add(0, bins)
    spoke = wealth.spoke()
    assert spoke[0][0] == 3
    assert spoke[0][1] > math.log(1000)
    assert all(value > 0 for _, value in spoke)
    assert [value for _, value in spoke] == sorted((value for _, value in spoke), reverse=True)
    assert len(wealth.spoke(1)) == 1


def test_a_newer_bucket_of_others_becomes_the_newest_and_old_ones_are_dropped() -> None:
    wealth = Wealth(a_null())
    wealth.add(0, np.zeros((1, 3), dtype=np.int64))
    wealth.merge({field(7, 0, 1): 3})
    assert wealth.bucket == 7
    assert wealth.counts() == {field(0, 0, 0): 1, field(0, 1, 0): 1, field(0, 2, 0): 1, field(7, 0, 1): 3}
    wealth.merge({field(KEPT + 3, 0, 1): 1, field(3, 0, 1): 5, field(4, 0, 1): 2})
    assert wealth.counts() == {field(7, 0, 1): 3, field(KEPT + 3, 0, 1): 1, field(4, 0, 1): 2}
    wealth.merge({field(10 * KEPT, 4, 0): 1})
    assert wealth.counts() == {field(10 * KEPT, 4, 0): 1}


@pytest.mark.parametrize(
    "counts",
    [
        {-1: 5},
        {field(0, 5, 0): 1},
        {field(9, 1, 7): 1},
        {field(0, 0, 0): 0},
        {field(0, 0, 0): -3},
        {2**80: 1},
        {field(2**31, 0, 0): 1},
    ],
)
def test_what_is_no_count_of_this_null_is_dropped(counts: dict[int, int]) -> None:
    wealth = Wealth(a_null())
    wealth.merge(counts)
    assert (wealth.bucket, wealth.counts(), wealth.strength()) == (0, {}, Strength(0.0, 0.0))


def test_huge_counts_stop_at_a_bound_and_evidence_stays_a_number() -> None:
    null = a_null()
    wealth = Wealth(null)
    for _ in range(2):
        wealth.merge({field(b, s, 0): 2**70 for b in range(KEPT) for s in range(5)})
    wealth.add(3, np.zeros((3, 2), dtype=np.int64))
    assert set(wealth.counts().values()) == {MOST_COUNT}
    assert len(wealth.counts()) == KEPT * 5
    assert all(math.isfinite(x) for x in wealth.strength())
    assert near(wealth.strength(), exact_strength(null, wealth.bucket, wealth.counts()))


def test_evidence_beyond_all_numbers_counts_as_the_ceiling() -> None:
    null = a_null(1, structure=1)
    null.prototypes[:, :, -1] = 1e-306
    wealth = Wealth(replace(null))
    wealth.add(0, np.full((14, 1), BINS - 1))
    assert wealth.spoke()[0][1] > 709
    assert wealth.strength().structure == pytest.approx(CEILING - math.log(2))


def test_overfull_buckets_have_the_evidence_of_the_formula() -> None:
    null = a_null()
    wealth = Wealth(null)
    wealth.add(0, windows(null, 6 * BUCKET))
    others = dict(wealth.counts())
    for _ in range(9):
        wealth.merge(others)
    assert near(wealth.strength(), exact_strength(null, wealth.bucket, wealth.counts()))


def test_a_client_s_evidence_does_not_grow_in_size() -> None:
    null = a_null(13)
    wealth = Wealth(null)
    wealth.add(0, windows(null, 100 * BUCKET))
    wealth.merge({field(b, s, 0): 10**9 for b in range(0, 4000, 3) for s in range(32)})
    wealth.add(0, windows(null, 100 * BUCKET))
    assert len(wealth.counts()) <= KEPT * 13 * BINS


def test_a_null_without_signals_says_nothing() -> None:
    wealth = Wealth(a_null(0, structure=0))
    wealth.merge({field(3, 0, 0): 2})
    assert (wealth.strength(), wealth.spoke()) == (Strength(0.0, 0.0), [])
