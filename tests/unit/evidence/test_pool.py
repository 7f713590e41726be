"""Evidence of many accounts together."""

from __future__ import annotations

import math

import pytest

from guard.evidence.pool import SHARES, Pool


def test_an_empty_pool_knows_nothing() -> None:
    assert (Pool(2.0).log_evidence, Pool(2.0).accounts) == (0.0, 0)


def test_a_pool_is_the_mean_over_shares_of_products_over_accounts() -> None:
    pool = Pool(1.7)
    logs = [0.3, -1.2, 2.0, 9.0]
    for value in logs:
        pool.change(None, value)
    clipped = [min(math.exp(value), 100.0) / 1.7 for value in logs]
    exact = sum(math.prod(1 - f + f * e for e in clipped) for f in SHARES) / len(SHARES)
    assert pool.log_evidence == pytest.approx(math.log(exact), abs=1e-7)
    assert pool.accounts == 4


def test_many_accounts_that_each_say_little_are_loud_together_and_honest_ones_are_not() -> None:
    thieves, customers = Pool(1.2), Pool(1.2)
    for _ in range(100):
        thieves.change(None, 1.5)
        customers.change(None, -0.5)
    assert thieves.log_evidence > math.log(1000)
    assert customers.log_evidence < 0


def test_one_odd_account_does_not_alarm_a_pool() -> None:
    pool = Pool(1.0)
    for _ in range(200):
        pool.change(None, -1.0)
    pool.change(None, 5000.0)
    assert pool.log_evidence < math.log(100)


def test_an_account_is_frozen_at_a_hundred() -> None:
    pool = Pool(1.0)
    before = pool.change(None, 99.0)
    assert before == math.log(100)
    loud = pool.log_evidence
    assert pool.change(before, -50.0) == before
    assert pool.log_evidence == loud


def test_evidence_beyond_all_numbers_is_borne() -> None:
    pool = Pool(0.0)
    for value in (math.inf, -math.inf, math.nan, 1e308, -1e308):
        pool.change(None, value)
    assert math.isfinite(pool.log_evidence)
    big = Pool(1.0)
    for _ in range(20_000):
        big.change(None, 1e9)
    assert big.log_evidence == pytest.approx(20_000 * math.log(0.1 + 0.9 * 100) - math.log(5), rel=1e-6)
