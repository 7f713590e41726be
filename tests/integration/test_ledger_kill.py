"""No overspend: processes charge shared scopes while kill -9 strikes them and the server (the benchmark, small)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from guard.model.ledger import Spend
from tests.benchmarks.overspend import NAMES, Job, accounts, problems, run, work
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from pathlib import Path

CALLS, KILLS, SEED = 20_000, 5, 4


@pytest.mark.parametrize("state", ["redis", "sqlite"])
def test_kill_9_of_guards_and_server_overspends_nothing(state: str, tmp_path: Path) -> None:
    assert run(state, CALLS, 2, KILLS, SEED, tmp_path) == []


@pytest.fixture
def charged(tmp_path: Path) -> Job:
    job = Job(f"sqlite:{tmp_path / 'guard.db'}", str(tmp_path), 1000, 1, SEED)
    asyncio.run(work(job, 0, SEED))
    return job


def test_the_comparison_finds_what_is_wrong(charged: Job) -> None:
    """A negative control: accounts that are off by one, in each of the ways that the comparison looks for."""
    found = asyncio.run(accounts(charged))
    assert list(problems(charged, found)) == []
    for i, account in enumerate(found):
        for spent in (account.spend.spent + 1, account.spend.spent - 1):
            wrong = [*found[:i], account._replace(spend=Spend(spent, spent)), *found[i + 1 :]]
            expected = spent < account.spend.spent or account.budget != "rows"
            assert bool(list(problems(charged, wrong))) is expected
        if account.entries:
            entry = account.entries[0]
            wrong = [*found[:i], account._replace(entries=(entry._replace(rows=entry.rows + 1), *account.entries[1:]))]
            assert any("rows of" in problem for problem in problems(charged, [*wrong, *found[i + 1 :]]))
    limits = charged.limits()
    over = [account._replace(spend=Spend(limits[account.budget, account.scope] + 1, 0)) for account in found]
    assert sum("limit" in problem for problem in problems(charged, over)) == len(NAMES)


def test_a_server_that_forgets_is_found_out(tmp_path: Path) -> None:
    """A negative control: without an append-only file, a kill loses what was acknowledged."""
    with Valkey(tmp_path / "valkey", "--appendonly", "no") as server:
        job = Job(server.url, str(tmp_path), 500, 1, SEED)
        asyncio.run(work(job, 0, SEED))
        assert list(problems(job, asyncio.run(accounts(job)))) == []
        server.restart()
        assert len(list(problems(job, asyncio.run(accounts(job))))) >= len(NAMES) / 2
