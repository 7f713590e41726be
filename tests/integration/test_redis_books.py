"""Ledgers in a real Valkey in an operator's hands: reading while guards charge, rewriting, and what may be lost."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from guard.errors import InvariantError, StateError
from guard.model.ledger import TERMS_CHANGED, Account, Admission, Charge, Entry, Spend
from guard.state.books import open_books
from guard.state.redis import RedisState
from guard.state.redis_books import RedisBooks
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW_S = 1_700_000_040.0
EVENT = "gaussian(2.5)"


def private(rows: int = 1, scope: str = "client:a", window_s: int = 0) -> Charge:
    return Charge("privacy/client", scope, window_s, 10**6, 10 * rows, event=EVENT, rows=rows)


def plain(scope: str = "client:a") -> Charge:
    return Charge("rows/client", scope, 0, 10**6, 1)


@pytest.fixture
async def state(valkey: Valkey) -> AsyncIterator[RedisState]:
    opened = RedisState(valkey.url, timeout_s=5.0)
    yield opened
    await opened.aclose()


@pytest.fixture
async def books(valkey: Valkey) -> AsyncIterator[RedisBooks]:
    opened = RedisBooks(valkey.url, write=True)
    yield opened
    await opened.aclose()


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_ledgers_are_found_among_other_keys(valkey: Valkey, state: RedisState, books: RedisBooks) -> None:
    assert await books.ledgers() == []
    valkey.command("SET", "guard:{x", "1")
    valkey.command("SET", "other:{x}:c|", "1")
    await state.ping()
    await state.agree("terms-only", b"{}")
    await state.charge("a*b", [plain()], NOW_S)
    await state.charge("a}b", [plain()], NOW_S)
    await state.charge("aXb", [plain()], NOW_S)
    assert await books.ledgers() == ["a*b", "aXb", "a}b", "terms-only"]
    assert len(await books.accounts("a*b")) == 1
    assert await books.accounts("unknown") == []


@pytest.mark.lab
async def test_thousands_of_counters_are_read_while_they_are_charged(state: RedisState, books: RedisBooks) -> None:
    scopes = [f"client:{i}" for i in range(2500)]
    await asyncio.gather(*[state.charge("m", [private(1, scope)], NOW_S) for scope in scopes])

    async def charging() -> None:
        for i in range(40):
            await asyncio.gather(*[state.charge("m", [private(1 + i % 3, scope)], NOW_S) for scope in scopes[::100]])

    load = asyncio.create_task(charging())
    seen = 0
    while not load.done():
        accounts = await books.accounts("m")
        seen += 1
        assert len(accounts) == 2500
        assert all(account.spend.spent == sum(entry.amount for entry in account.entries) for account in accounts)
    await load
    assert seen
    assert sum(account.spend.spent for account in await books.accounts("m")) == 10 * (
        2500 + 25 * sum(1 + i % 3 for i in range(40))
    )


async def test_a_name_too_long_for_a_key_is_shown_as_its_hash(state: RedisState, books: RedisBooks) -> None:
    await state.charge("m", [private(1, "x" * 300)], NOW_S)
    (account,) = await books.accounts("m")
    assert account.scope.startswith("%sha256-")
    assert await books.rewrite("m", None, b"{}", [account._replace(spend=Spend(0, 0), entries=())])
    assert await state.spend("m", private(1, "x" * 300), NOW_S) == Spend(0, 0)


async def test_a_scope_that_is_called_like_anothers_hash_is_not_rewritten(state: RedisState, books: RedisBooks) -> None:
    await state.charge("m", [private(1, "x" * 300)], NOW_S)
    (victim,) = await books.accounts("m")
    await state.charge("m", [private(9, victim.scope)], NOW_S)
    with pytest.raises(StateError, match="two scopes"):
        await books.rewrite("m", None, b"{}", await books.accounts("m"))
    assert await state.spend("m", private(9, victim.scope), NOW_S) == Spend(90, 90)


async def test_what_a_journal_says_lives_as_long_as_its_counter(valkey: Valkey, state: RedisState) -> None:
    for _ in range(40):
        await state.charge("m", [private(1, window_s=60)], NOW_S)
    keys = valkey.command("KEYS", "*")
    assert keys.startswith(b"*1\r\n")
    key = f"guard:{{m}}:c|privacy/client|client:a|60|{int(NOW_S) // 60}"
    assert 86_300_000 < int(valkey.command("PTTL", key)[1:]) <= 86_460_000
    assert int(valkey.command("HLEN", key)[1:]) <= 5 + 15  # spent, total, n, two totals, and a bounded journal


async def test_counters_and_paid_queries_agree_after_an_error_amid_a_batch(valkey: Valkey, state: RedisState) -> None:
    valkey.command("SET", "guard:{m}:c|rows/client|client:bad|0|0", "x")
    digests = tuple(i.to_bytes(16, "big") for i in range(5))
    graded = Charge("information/client", "client:a", 0, 100, 5, digests=digests)
    await state.charge("m", [plain()], NOW_S)  # from now on the script is known, and those below are one batch
    calls = [
        state.charge("m", [charge], NOW_S) for charge in (plain(), graded, private(), plain("client:bad"), plain())
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, StateError) for result in results) == 5
    spent = (await state.spend("m", graded, NOW_S)).spent
    assert spent == int(valkey.command("SCARD", "guard:{m}:d|information/client|client:a|0|0")[1:])
    reader = open_books(valkey.url, write=False)
    valkey.command("DEL", "guard:{m}:c|rows/client|client:bad|0|0")
    for account in await reader.accounts("m"):
        if account.budget.startswith("privacy"):
            assert account.spend.spent == sum(entry.amount for entry in account.entries) == 10
    await reader.aclose()


# -- rewriting ---------------------------------------------------------------------------------------------------------


async def test_a_rewrite_replaces_terms_and_accounts(valkey: Valkey, state: RedisState, books: RedisBooks) -> None:
    await state.agree("m", b'{"a":1}')
    for _ in range(20):
        await state.charge("m", [private(2), private(2, window_s=3600), plain()], NOW_S)
    accounts = {(account.budget, account.window_s): account for account in await books.accounts("m")}
    account = accounts["privacy/client", 0]
    lower = account._replace(spend=Spend(0, 400), entries=(*account.entries, Entry("reset", 0, -400)))
    period = accounts["privacy/client", 3600]._replace(spend=Spend(7, 7), entries=(Entry("migrated", 0, 7),))
    today = int(time.time()) // 86_400  # a counter that a rewrite makes lives by the real clock
    fresh = Account("privacy/model", "model", 86_400, today, Spend(5, 5), (Entry("migrated", 0, 5),))
    assert await books.rewrite("m", b'{"a":1}', b'{"a":2}', [lower, period, fresh])
    now = {(account.budget, account.window_s): account for account in await books.accounts("m")}
    assert now == {
        **accounts,
        ("privacy/client", 0): lower,
        ("privacy/client", 3600): period,
        ("privacy/model", 86_400): fresh,
    }
    assert await books.terms("m") == b'{"a":2}'
    for account in (period, fresh):
        key = f"guard:{{m}}:c|{account.budget}|{account.scope}|{account.window_s}|{account.window}"
        assert int(valkey.command("PTTL", key)[1:]) > 0
    await state.agree("m", b"{}")
    await state.charge("m", [private(3)], NOW_S)
    now = {(account.budget, account.window_s): account for account in await books.accounts("m")}
    assert now["privacy/client", 0].spend == Spend(30, 430)
    assert sum(entry.amount for entry in now["privacy/client", 0].entries) == 30


async def test_a_rewrite_changes_nothing_when_anything_has_changed(
    valkey: Valkey, state: RedisState, books: RedisBooks
) -> None:
    await state.agree("m", b'{"a":1}')
    await state.charge("m", [private(1)], NOW_S)
    (account,) = await books.accounts("m")
    changed = account._replace(spend=Spend(0, 0), entries=())
    assert not await books.rewrite("m", b'{"a":0}', b'{"a":2}', [changed])
    assert not await books.rewrite("m", None, b'{"a":2}', [changed])
    await state.charge("m", [private(1)], NOW_S)  # between reading and writing
    assert not await books.rewrite("m", b'{"a":1}', b'{"a":2}', [changed])
    blind = RedisBooks(valkey.url, write=True)  # has not read what it writes
    assert not await blind.rewrite("m", b'{"a":1}', b'{"a":2}', [changed])
    await blind.aclose()
    assert await books.terms("m") == b'{"a":1}'
    (account,) = await books.accounts("m")
    assert account.spend == Spend(20, 20)
    assert await books.rewrite("m", b'{"a":1}', b'{"a":2}', [changed])


async def test_books_for_reading_cannot_be_written(valkey: Valkey) -> None:
    books = open_books(valkey.url, write=False)
    with pytest.raises(InvariantError):
        await books.rewrite("m", None, b"{}", [])
    await books.aclose()


async def test_a_server_that_is_gone_is_an_error(valkey: Valkey, books: RedisBooks) -> None:
    valkey.kill()
    for call in (books.ledgers(), books.accounts("m"), books.terms("m"), books.rewrite("m", None, b"{}", [])):
        with pytest.raises(StateError):
            await call


# -- changed terms -----------------------------------------------------------------------------------------------------


async def test_a_guard_charges_nothing_under_terms_that_it_was_not_told(state: RedisState, books: RedisBooks) -> None:
    await state.agree("m", b'{"a":1}')
    charges = [private(1), plain()]
    receipt = await state.charge("m", charges, NOW_S)
    assert await books.rewrite("m", b'{"a":1}', b'{"a":2}', [])
    for call in (state.charge("m", charges, NOW_S), state.charge("m", [private(1)], NOW_S)):
        with pytest.raises(StateError) as caught:
            await call
        assert caught.value.code == TERMS_CHANGED
    assert (await state.charge("m", [plain()], NOW_S)).admission is Admission.ALLOW
    assert await state.terms("m") == b'{"a":2}'  # to look is not to agree
    with pytest.raises(StateError):
        await state.charge("m", [private(1)], NOW_S)
    await state.refund("m", charges, receipt, NOW_S)  # the row is given back, the privacy is not
    assert [await state.spend("m", charge, NOW_S) for charge in charges] == [Spend(10, 10), Spend(1, 1)]
    assert await state.agree("m", b'{"a":1}') == b'{"a":2}'
    assert (await state.charge("m", charges, NOW_S)).spends == (Spend(20, 20), Spend(2, 2))


async def test_a_guard_that_never_asked_for_the_terms_charges_no_privacy(valkey: Valkey, state: RedisState) -> None:
    await state.agree("m", b"{}")
    other = RedisState(valkey.url)
    with pytest.raises(StateError, match="terms have changed"):
        await other.charge("m", [private(1)], NOW_S)
    await other.aclose()


async def test_a_server_that_lost_everything_is_noticed(valkey: Valkey, state: RedisState) -> None:
    await state.agree("m", b"{}")
    await state.charge("m", [private(9)], NOW_S)
    valkey.command("FLUSHALL")
    with pytest.raises(StateError, match="terms have changed"):
        await state.charge("m", [private(9)], NOW_S)
    with pytest.raises(StateError, match="lost the ledger"):
        await state.agree("m", b"{}")
    another = RedisState(valkey.url)  # a guard that starts now knows of nothing
    await another.agree("m", b"{}")
    assert (await another.charge("m", [private(1)], NOW_S)).spends == (Spend(10, 10),)
    with pytest.raises(StateError, match="terms have changed"):
        await state.charge("m", [private(9)], NOW_S)
    await another.aclose()


# -- what may be lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"maxmemory": "100mb"}, ""),
        ({"appendfsync": "everysec"}, "redis: appendfsync is not always: a crash loses the last two seconds"),
        ({"no-appendfsync-on-rewrite": "yes"}, "redis: no-appendfsync-on-rewrite is not no"),
        ({"maxmemory": "100mb", "maxmemory-policy": "volatile-lru"}, "redis: maxmemory-policy is not noeviction"),
        ({"appendonly": "no"}, "redis: appendonly is not yes"),
    ],
)
async def test_settings_that_lose_charges_are_named(
    valkey: Valkey, state: RedisState, settings: dict[str, str], said: str
) -> None:
    for name, value in settings.items():
        assert valkey.command("CONFIG", "SET", name, value).startswith(b"+OK")
    found = await state.durability()
    assert found.startswith(said)
    assert bool(found) == bool(said)


async def test_settings_that_nobody_may_read_may_lose_charges(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--rename-command", "CONFIG", "hidden") as server:
        state = RedisState(server.url)
        assert await state.durability() == "redis: CONFIG GET is refused, so that nobody knows what it keeps"
        await state.aclose()


@pytest.mark.lab
async def test_a_server_with_replicas_may_lose_charges(valkey: Valkey, state: RedisState, tmp_path: Path) -> None:
    with Valkey(tmp_path / "replica", "--replicaof", f"127.0.0.1 {valkey.port}"):
        async with asyncio.timeout(20):
            while b"state=online" not in valkey.command("INFO", "replication"):
                await asyncio.sleep(0.01)
        assert (await state.durability()).startswith("redis: replication is asynchronous")


@pytest.mark.lab
async def test_a_cluster_is_read_and_may_lose_charges(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        assert server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383").startswith(b"+OK")
        url = f"redis+cluster://127.0.0.1:{server.port}"
        state, books = RedisState(url), RedisBooks(url, write=True)
        await eventually(state.ping)
        for ledger in ("a", "b"):
            await state.agree(ledger, b"{}")
            await state.charge(ledger, [private(2), private(2, "model")], NOW_S)
            await state.remember(ledger, [(bytes(16), b"one")])
            assert await state.recall(ledger, [bytes(16)]) == [b"one"]
        assert await books.ledgers() == ["a", "b"]
        accounts = await books.accounts("b")
        assert [account.entries for account in accounts] == [(Entry(EVENT, 2, 20),)] * 2
        assert await books.rewrite("b", b"{}", b'{"a":1}', [accounts[0]._replace(spend=Spend(0, 20), entries=())])
        assert (await state.durability()).startswith("redis: replication is asynchronous")
        server.kill()
        with pytest.raises(StateError):
            await state.durability()
        with pytest.raises(StateError):
            await books.ledgers()
        server.start()
        await eventually(state.ping)
        await eventually(books.ledgers)
        await state.aclose()
        await books.aclose()
