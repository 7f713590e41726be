"""Servers that hang, with others to take their place: a real cluster, and a real master with sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import pytest

from guard.errors import StateError
from guard.model.ledger import Charge
from guard.state.redis import RedisState
from tests.support.valkey import Valkey, free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW_S = 1_700_000_040.0
ROW = Charge("rows/client", "client:a", 0, 1_000_000, 1)
RECOVERY_S = 5.0
SENTINEL = """sentinel monitor models 127.0.0.1 {master} 2
sentinel down-after-milliseconds models 500
sentinel failover-timeout models 3000
"""

pytestmark = pytest.mark.real


async def charge(state: RedisState, ledger: str = "m") -> int:
    return (await state.charge(ledger, [ROW], NOW_S)).spends[0].spent


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


async def meanwhile(state: RedisState, ledger: str) -> tuple[int, int]:
    """Charge a ledger until cancelled; return how often it was charged, and how often that was refused."""
    charged = refused = 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            try:
                await charge(state, ledger)
                charged += 1
            except StateError:
                refused += 1
    return charged, refused


async def charged_again_in_time(state: RedisState, capsys: pytest.CaptureFixture[str]) -> None:
    """Assert that a charge passes soon, counted from a failover that has happened."""
    began = time.monotonic()
    await eventually(lambda: charge(state))
    took_s = time.monotonic() - began
    with capsys.disabled():
        print(f"\nrecovered {took_s:.2f} s after the failover")
    assert took_s < RECOVERY_S


async def test_a_shard_that_hangs_is_left_for_its_replica(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.ExitStack() as stack:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
        )
        servers: list[Valkey] = []
        for number in range(4):
            bus = ("--cluster-port", str(free_port()))
            servers.append(stack.enter_context(Valkey(tmp_path / f"{number}", *options, *bus)))
        *primaries, replica = servers
        for number, server in enumerate(primaries):
            server.command("CLUSTER", "ADDSLOTSRANGE", str(number * 5461), str(number * 5461 + 5460 + number // 2))
            server.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            bus = server.command("CONFIG", "GET", "cluster-port").split(b"\r\n")[-2].decode()
            servers[0].command("CLUSTER", "MEET", "127.0.0.1", str(server.port), bus)
        bus = replica.command("CONFIG", "GET", "cluster-port").split(b"\r\n")[-2].decode()
        servers[0].command("CLUSTER", "MEET", "127.0.0.1", str(replica.port), bus)

        def shard(ledger: str) -> int:
            slot = servers[0].command("CLUSTER", "KEYSLOT", f"guard:{{{ledger}}}:c")
            return min(2, int(slot.strip(b":\r\n")) // 5461)

        owner = primaries[shard("m")]
        other = next(name for name in "abcdefgh" if shard(name) != shard("m"))
        name = owner.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()
        await until(lambda: name.encode() in replica.command("CLUSTER", "NODES"))
        await until(lambda: b"+OK" in replica.command("CLUSTER", "REPLICATE", name))
        await until(lambda: all(b"cluster_state:ok" in one.command("CLUSTER", "INFO") for one in servers))
        await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        state = RedisState(f"redis+cluster://127.0.0.1:{primaries[0].port},127.0.0.1:{primaries[2].port}")
        await eventually(state.ping)
        assert await charge(state) == 1
        owner.signal(signal.SIGSTOP)
        with pytest.raises(StateError):
            await charge(state)
        both = [asyncio.create_task(meanwhile(state, ledger)) for ledger in ("m", other)]
        await until(lambda: b"role:master" in replica.command("INFO", "replication"))
        await charged_again_in_time(state, capsys)
        for task in both:
            task.cancel()
        (_, refused), (charged, broken) = [await task for task in both]
        with capsys.disabled():
            print(f"meanwhile: {refused} refused, of another shard {charged} charged and {broken} refused")
        assert refused > 0
        assert charged > 100 > 50 * broken
        owner.signal(signal.SIGCONT)
        await state.aclose()


async def test_a_master_and_a_sentinel_that_hang_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(Valkey(tmp_path / "master"))
        replica = stack.enter_context(Valkey(tmp_path / "replica", "--replicaof", f"127.0.0.1 {master.port}"))
        config = SENTINEL.replace("{master}", str(master.port))
        sentinels = [stack.enter_context(Valkey(tmp_path / f"s{n}", sentinel=config)) for n in range(3)]
        await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        for sentinel in sentinels:
            await until(lambda sentinel=sentinel: b"sentinels=3" in sentinel.command("INFO", "sentinel"))
            await until(lambda sentinel=sentinel: b"slaves=1" in sentinel.command("INFO", "sentinel"))
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        sentinels[0].signal(signal.SIGSTOP)
        state = RedisState(f"redis+sentinel://{hosts}/models")
        assert await charge(state) == 1
        master.signal(signal.SIGSTOP)
        with pytest.raises(StateError):
            await charge(state)
        await until(lambda: b"role:master" in replica.command("INFO", "replication"))
        await charged_again_in_time(state, capsys)
        for stopped in (master, sentinels[0]):
            stopped.signal(signal.SIGCONT)
        await state.aclose()
