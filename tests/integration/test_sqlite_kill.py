"""kill -9 while charges are under way: what was confirmed is spent after reopening, round after round on one file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from guard.errors import StateError
from guard.model.evidence import Delta
from guard.model.ledger import Charge
from guard.state.sqlite import SqliteState

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_700_000_040.0
MOST = 10**9
ROUNDS = 6
CONFIRMED_A_ROUND = 150

# Each of eight loops charges one row and one new query at a time, and says which as soon as the charge has returned.
PROGRAM = f"""
import asyncio, os, sys
from guard.model.ledger import Charge
from guard.state.sqlite import SqliteState

async def loop(state, which):
    for i in range({MOST}):
        digest = (int(sys.argv[2]) << 64 | which << 32 | i).to_bytes(16, "big")
        row = Charge("rows/client", f"client:{{which % 3}}", 0, {MOST}, 1)
        query = Charge("information/group", "group:g", 0, {MOST}, 1, digests=(digest,))
        await state.charge("m", [row, query], {NOW_S})
        os.write(1, f"{{which % 3}} {{digest.hex()}}\\n".encode())

async def main():
    state = SqliteState(sys.argv[1], max_mirrored=500)
    await asyncio.gather(*[loop(state, which) for which in range(8)])

asyncio.run(main())
"""


# Four loops merge one count at a time into two clients' records, and say so as soon as the merge has returned.
MERGES = f"""
import asyncio, os, sys
from guard.model.evidence import Delta
from guard.state.sqlite import SqliteState

async def loop(state, which):
    for i in range({MOST}):
        await state.merge("evidence/m/f", [Delta(f"{{which % 2}}#0", {{which: 1}})], {NOW_S})
        os.write(1, f"{{which}}\\n".encode())

async def main():
    state = SqliteState(sys.argv[1])
    await asyncio.gather(*[loop(state, which) for which in range(4)])

asyncio.run(main())
"""


def rows(client: int) -> Charge:
    return Charge("rows/client", f"client:{client}", 0, MOST, 1)


def test_kill_9_refunds_nothing_that_was_confirmed(tmp_path: Path) -> None:
    path = str(tmp_path / "guard.db")
    confirmed = [0, 0, 0]
    digests: list[bytes] = []
    for number in range(ROUNDS):
        with subprocess.Popen([sys.executable, "-c", PROGRAM, path, str(number)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(CONFIRMED_A_ROUND + 37 * number)]
            with pytest.raises(StateError, match=f"process {process.pid}"):
                SqliteState(path)
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
            assert process.wait() == -signal.SIGKILL
        for line in lines:
            client, digest = line.decode().split()
            confirmed[int(client)] += 1
            digests.append(bytes.fromhex(digest))
        check(path, confirmed, digests)
    assert len(digests) >= ROUNDS * CONFIRMED_A_ROUND


def check(path: str, confirmed: list[int], digests: list[bytes]) -> None:
    """The dead owner does not stand in the way; nothing confirmed is missing, at most what was under way is added."""

    async def go() -> None:
        state = SqliteState(path)
        spent = [(await state.spend("m", rows(client), NOW_S)).spent for client in range(3)]
        for had, has in zip(confirmed, spent, strict=True):
            assert had <= has <= had + 8 * ROUNDS
        paid = tuple(digests)
        receipt = await state.charge(
            "m", [Charge("information/group", "group:g", 0, MOST, len(paid), digests=paid)], NOW_S
        )
        assert receipt.fresh == ((),)
        assert receipt.spends[0].spent == sum(spent)
        await state.aclose()

    asyncio.run(go())


def test_kill_9_forgets_no_evidence_that_was_confirmed(tmp_path: Path) -> None:
    path = str(tmp_path / "guard.db")
    confirmed = [0, 0, 0, 0]

    async def merged() -> list[int]:
        state = SqliteState(path)
        records = await state.merge("evidence/m/f", [Delta("0#0"), Delta("1#0")], NOW_S)
        await state.aclose()
        return [records[which % 2].counts[which] for which in range(4)]

    for number in range(2):
        with subprocess.Popen([sys.executable, "-c", MERGES, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(CONFIRMED_A_ROUND)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        for line in lines:
            confirmed[int(line)] += 1
        for had, has in zip(confirmed, asyncio.run(merged()), strict=True):
            assert had <= has <= had + number + 1
