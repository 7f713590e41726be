"""RedisState on a real Valkey: shared budgets, outages, lost scripts, Cluster and Sentinel."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from guard.errors import InvariantError, StateError
from guard.model.ledger import Admission, Charge, Spend
from guard.state.redis import RedisState
from tests.support.relay import Relay
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW_S = 1_700_000_040.0


def rows(amount: int = 1, scope: str = "client:a", window_s: int = 0, limit: int = 1_000_000) -> Charge:
    return Charge("rows/client", scope, window_s, limit, amount)


def graded(first: int, count: int, window_s: int = 0) -> Charge:
    digests = tuple(i.to_bytes(16, "big") for i in range(first, first + count))
    return Charge("information/client", "client:a", window_s, 1_000_000, count, digests=digests)


@pytest.fixture
async def state(valkey: Valkey) -> AsyncIterator[RedisState]:
    opened = RedisState(valkey.url, timeout_s=3.0)
    yield opened
    await opened.aclose()


async def test_two_replicas_never_overspend(valkey: Valkey) -> None:
    replicas = [RedisState(valkey.url), RedisState(valkey.url)]
    calls = [replicas[i % 2].charge("m", [rows(limit=150)], NOW_S) for i in range(400)]
    receipts = await asyncio.gather(*calls)
    assert sum(receipt.admission is Admission.ALLOW for receipt in receipts) == 150
    assert [await replica.spend("m", rows(), NOW_S) for replica in replicas] == [Spend(150, 150)] * 2
    for replica in replicas:
        await replica.aclose()


async def test_concurrent_calls_are_few_batches(valkey: Valkey, state: RedisState) -> None:
    await state.charge("m", [rows()], NOW_S)
    valkey.command("CONFIG", "RESETSTAT")
    await asyncio.gather(*[state.charge("m", [rows()], NOW_S) for _ in range(500)])
    assert b"cmdstat_evalsha:calls=2," in valkey.command("INFO", "commandstats")


async def test_batches_are_bounded_in_digests(valkey: Valkey, state: RedisState) -> None:
    receipts = await asyncio.gather(*[state.charge("m", [graded(i * 3000, 4000)], NOW_S) for i in range(12)])
    assert [len(receipt.fresh[0]) for receipt in receipts] == [4000] + [3000] * 11
    assert b"cmdstat_eval" in valkey.command("INFO", "commandstats")
    await state.refund("m", [graded(0, 4000)], receipts[0], NOW_S)
    assert (await state.spend("m", graded(0, 0), NOW_S)).spent == 33_000


async def test_a_server_that_lost_the_script_is_told_it_again(valkey: Valkey, state: RedisState) -> None:
    await state.charge("m", [rows()], NOW_S)
    assert valkey.command("SCRIPT", "FLUSH").startswith(b"+OK")
    receipts = await asyncio.gather(*[state.charge("m", [rows()], NOW_S) for _ in range(10)])
    assert receipts[-1].spends == (Spend(11, 11),)


async def test_keys_live_a_day_longer_than_their_window(valkey: Valkey, state: RedisState) -> None:
    await state.charge("m", [rows(window_s=60), graded(0, 3, window_s=60)], NOW_S + 20)
    await state.charge("m", [rows(window_s=0)], NOW_S)
    window = int(NOW_S // 60)
    for kind, budget in (("c", "rows/client"), ("c", "information/client"), ("d", "information/client")):
        reply = valkey.command("PTTL", f"guard:{{m}}:{kind}|{budget}|client:a|60|{window}")
        assert 86_300_000 < int(reply[1:]) <= 86_440_000
    assert valkey.command("PTTL", "guard:{m}:c|rows/client|client:a|0|0") == b":-1\r\n"
    assert b"guard:{m}:" in valkey.command("KEYS", "*")


async def test_a_killed_server_is_an_error_and_its_restart_refunds_nothing(valkey: Valkey, state: RedisState) -> None:
    confirmed = 0
    for _ in range(3):
        receipts = await asyncio.gather(*[state.charge("m", [rows()], NOW_S) for _ in range(50)])
        confirmed += len(receipts)
        under_way = asyncio.gather(*[state.charge("m", [rows()], NOW_S) for _ in range(50)], return_exceptions=True)
        await asyncio.sleep(0)
        valkey.kill()
        results = await under_way
        confirmed += sum(not isinstance(result, StateError) for result in results)
        for call in (state.charge("m", [rows()], NOW_S), state.spend("m", rows(), NOW_S), state.ping()):
            with pytest.raises(StateError):
                await call
        valkey.start()
        await eventually(state.ping)
        spent = (await state.spend("m", rows(), NOW_S)).spent
        assert confirmed <= spent <= confirmed + 150


async def test_a_charge_whose_reply_is_lost_is_not_sent_again() -> None:
    charges = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal charges
        while data := await reader.read(65536):
            if b"EVALSHA" in data:
                charges += 1
                break
            writer.write(b"+OK\r\n" * data.count(b"*"))  # what a client says of itself when it connects
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    state = RedisState(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=10.0)
    with pytest.raises(StateError):
        await state.charge("m", [rows()], NOW_S)
    assert charges == 1
    await state.aclose()
    server.close()
    await server.wait_closed()


async def test_a_server_that_hangs_is_an_error_and_what_it_took_stays_taken(valkey: Valkey) -> None:
    state = RedisState(valkey.url, timeout_s=0.2)
    await state.charge("m", [rows()], NOW_S)
    valkey.signal(signal.SIGSTOP)
    calls = [asyncio.ensure_future(state.charge("m", [rows()], NOW_S)) for _ in range(300)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {StateError}
    valkey.signal(signal.SIGCONT)
    await eventually(state.ping)
    assert (await state.charge("m", [rows()], NOW_S)).spends[0].spent in {2, 258}
    await state.aclose()


async def test_connections_that_have_died_in_silence_cost_one_call_and_not_one_each(valkey: Valkey) -> None:
    async with Relay(valkey.port) as relay:
        state = RedisState(relay.url, timeout_s=1.0)
        ledgers = [f"m{number}" for number in range(20)]
        await asyncio.gather(*[state.charge(ledger, [rows()], NOW_S) for ledger in ledgers])
        relay.become("forget")
        with pytest.raises(StateError):
            await state.charge("m0", [rows()], NOW_S)
        receipts = await asyncio.gather(*[state.charge(ledger, [rows()], NOW_S) for ledger in ledgers])
        assert {receipt.spends[0].spent for receipt in receipts} == {2}
        await state.aclose()


async def test_more_waiting_calls_than_allowed_are_refused(valkey: Valkey) -> None:
    state = RedisState(valkey.url, timeout_s=0.2, max_waiting=3)
    results = await asyncio.gather(*[state.charge("m", [rows()], NOW_S) for _ in range(9)], return_exceptions=True)
    assert sum(isinstance(result, StateError) for result in results) == 6
    assert (await state.charge("m", [rows()], NOW_S)).spends == (Spend(4, 4),)
    await state.aclose()


async def test_a_key_of_the_wrong_kind_is_an_error(valkey: Valkey, state: RedisState) -> None:
    valkey.command("SET", "guard:{m}:c|rows/client|client:a|0|0", "x")
    with pytest.raises(StateError):
        await state.charge("m", [rows()], NOW_S)
    assert (await state.charge("m", [rows(scope="client:b")], NOW_S)).admission is Admission.ALLOW


async def test_an_amount_beyond_exact_numbers_is_a_bug(state: RedisState) -> None:
    with pytest.raises(InvariantError):
        await state.charge("m", [rows(2**53)], NOW_S)


async def test_totals_stay_where_numbers_are_exact(state: RedisState) -> None:
    charge = Charge("rows/client", "client:a", 0, 1, 2**53 - 1, "label_only")
    for _ in range(2):
        await state.charge("m", [charge], NOW_S)
    assert await state.spend("m", charge, NOW_S) == Spend(0, 2**53 - 1)


async def test_closing_answers_those_who_wait_and_refuses_the_rest(valkey: Valkey) -> None:
    state = RedisState(valkey.url)
    calls = [asyncio.ensure_future(state.charge("m", [rows()], NOW_S)) for _ in range(300)]
    await asyncio.sleep(0)
    await state.aclose()
    assert max(receipt.spends[0].spent for receipt in await asyncio.gather(*calls)) == 300
    for call in (state.charge("m", [rows()], NOW_S), state.spend("m", rows(), NOW_S), state.ping()):
        with pytest.raises(StateError, match="closed"):
            await call


async def test_a_lane_that_is_cancelled_leaves_nobody_waiting(state: RedisState) -> None:
    call = asyncio.ensure_future(state.charge("m", [rows()], NOW_S))
    await asyncio.sleep(0)
    (sender,) = asyncio.all_tasks() - {asyncio.current_task(), call}
    await asyncio.sleep(0)
    sender.cancel()
    with pytest.raises(StateError, match="stopped answering"):
        await call
    await state.charge("m", [rows()], NOW_S)


async def test_a_caller_that_went_away_disturbs_nobody(state: RedisState) -> None:
    calls = [asyncio.ensure_future(state.charge("m", [rows()], NOW_S)) for _ in range(10)]
    await asyncio.sleep(0)
    calls[3].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [i == 3 for i in range(10)]
    assert await state.spend("m", rows(), NOW_S) == Spend(10, 10)


async def test_cluster(tmp_path: Path) -> None:
    with Valkey(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        assert server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383").startswith(b"+OK")
        state = RedisState(f"redis+cluster://127.0.0.1:{server.port}")
        await eventually(state.ping)
        for ledger in ("a", "b", "c}d", ""):
            calls = [state.charge(ledger, [rows(limit=5), graded(i, 2)], NOW_S) for i in range(9)]
            receipts = await asyncio.gather(*calls)
            assert sum(receipt.admission is Admission.ALLOW for receipt in receipts) == 5
            await state.refund(ledger, [rows(limit=5), graded(0, 2)], receipts[0], NOW_S)
            assert await state.spend(ledger, rows(), NOW_S) == Spend(4, 4)
        server.kill()
        with pytest.raises(StateError):
            await state.charge("a", [rows()], NOW_S)
        server.start()
        await eventually(state.ping)
        assert await state.spend("a", rows(), NOW_S) == Spend(4, 4)
        await state.aclose()


async def test_sentinel(valkey: Valkey, tmp_path: Path) -> None:
    with Valkey(tmp_path / "sentinel", sentinel=f"sentinel monitor models 127.0.0.1 {valkey.port} 1\n") as sentinel:
        state = RedisState(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/models/2", timeout_s=2.0)
        await eventually(state.ping)
        assert (await state.charge("m", [rows(3)], NOW_S)).spends == (Spend(3, 3),)
        await state.aclose()
        state = RedisState(f"{valkey.url}/2")
        assert await state.spend("m", rows(), NOW_S) == Spend(3, 3)
        await state.aclose()
        lost = RedisState(f"redis+sentinel://127.0.0.1:{sentinel.port}/unknown")
        with pytest.raises(StateError):
            await lost.ping()
        with contextlib.suppress(StateError):
            await lost.aclose()
