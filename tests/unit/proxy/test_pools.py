from __future__ import annotations

import math

import pytest

from guard.evidence.values import Strength
from guard.proxy import pools as module
from guard.proxy.pools import Pools, Shares

DAY_S = 86400.0
WEAK = Strength(math.log(5.0), 0.0)


def told(pools: Pools, group: str, accounts: list[dict[str, Shares]], strength: Strength, now_s: float) -> float:
    found: dict[str, Strength] = {}
    for shares in accounts:
        found = pools.change(group, shares, strength, now_s, alone=False)
    return found["group"].any


def test_many_accounts_that_each_say_little_say_much_together_and_honest_ones_do_not() -> None:
    pools = Pools(1.0)
    thieves, honest = ([dict[str, Shares]() for _ in range(30)] for _ in range(2))
    assert told(pools, "thieves", thieves, WEAK, 0.0) > math.log(1000)
    assert told(pools, "honest", honest, Strength(-0.3, -0.3), 0.0) < 0
    assert dict(pools.groups())["thieves"].structure == 0.0
    assert pools.strength.any > 0


def test_an_account_counts_once_however_often_it_is_seen() -> None:
    pools, account = Pools(1.0), dict[str, Shares]()
    once = told(pools, "g", [account], WEAK, 0.0)
    assert told(pools, "g", [account] * 20, WEAK, 0.0) == once
    assert told(pools, "g", [account], Strength(), 0.0) == pytest.approx(0.0, abs=1e-8)


def test_a_pool_begins_anew_each_day_and_so_does_what_an_account_has_given() -> None:
    pools, account = Pools(1.0), dict[str, Shares]()
    once = told(pools, "g", [account], WEAK, DAY_S - 1)
    assert told(pools, "g", [account], WEAK, DAY_S + 1) == once
    assert told(pools, "other", [{}], Strength(), DAY_S + 1) == 0.0


def test_a_group_of_one_has_no_pool_of_its_own() -> None:
    found = Pools(1.0).change("alice", {}, WEAK, 0.0, alone=True)
    assert set(found) == {"all"}


def test_a_share_of_a_pool_that_was_displaced_is_not_taken_from_the_next() -> None:
    pools, account = Pools(1.0), dict[str, Shares]()
    once = told(pools, "g", [account], WEAK, 0.0)
    for number in range(module.MOST_GROUPS):
        pools.change(f"other{number}", {}, Strength(), 0.0, alone=False)
    assert "g" not in dict(pools.groups())
    assert told(pools, "g", [account], WEAK, 0.0) == once
