"""What befalls the guard: Redis and the model die, policies come and go, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.soak.notes import Notes
from tests.soak.stage import Stage

AWAY_S = 2.0
STALL_S = 0.3
"""Lateness of the load's own event loop that tells that the machine has not kept up, Redis and the guard included."""


@dataclass
class Faults:
    """All faults.

    Args:
        stage: what they befall.
        notes: where they are told of.
    """

    stage: Stage
    notes: Notes

    def __post_init__(self) -> None:
        self.ended = asyncio.Event()

    def all(self) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(way)
            for way in (self.redis(), self.model(), self.reloads(), self.hang_ups(), self.stalls())
        ]

    async def rest(self, seconds: float) -> bool:
        """Wait; return whether the run goes on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)
        return not self.ended.is_set()

    async def redis(self) -> None:
        """Kill it and start it again; or let it hang."""
        for number in itertools.count():
            if not await self.rest(40.0):
                return
            self.notes.fault("redis", 30.0)
            if number % 3 == 2:
                self.stage.valkey.signal(signal.SIGSTOP)
                await asyncio.sleep(AWAY_S)
                self.stage.valkey.signal(signal.SIGCONT)
            else:
                await asyncio.to_thread(self.stage.valkey.kill)
                await asyncio.sleep(AWAY_S)
                await asyncio.to_thread(self.stage.valkey.start)
            self.notes.over("redis")

    async def stalls(self) -> None:
        """Strike nothing: notice when the machine does."""
        while not self.ended.is_set():
            due = time.monotonic() + 0.1
            await asyncio.sleep(0.1)
            if time.monotonic() - due > STALL_S:
                self.notes.fault("stall", 0.0)

    async def model(self) -> None:
        """Let it die, and come back on the same port."""
        await self.rest(20.0)
        while await self.rest(55.0):
            self.notes.fault("model", 30.0)
            await asyncio.to_thread(self.stage.model.close)
            await asyncio.sleep(AWAY_S)
            await asyncio.to_thread(self.stage.revive)
            self.notes.over("model")

    async def reloads(self) -> None:
        """Write the policy anew, in turn good and bad, in one step and in two."""
        good = [self.stage.text(3), self.stage.text(4)]
        bad = ["version: [", "", good[0].replace("limit:", "limits_:"), good[0].replace("profile.json", "none.json")]
        for number in itertools.count():
            if not await self.rest(7.0):
                break
            self.notes.faults["reload"] = number + 1
            text = good[number // 2 % 2] if number % 2 else bad[number // 2 % len(bad)]
            await asyncio.to_thread(_write, self.stage.policy, text, in_place=number % 3 == 0)
        self.stage.policy.write_text(good[0])

    async def hang_ups(self) -> None:
        """Ask for a reload although nothing has changed."""
        while await self.rest(11.0):
            self.stage.guard.running.send_signal(signal.SIGHUP)


def _write(path: Path, text: str, *, in_place: bool) -> None:
    if in_place:
        path.write_text(text)
        return
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)
