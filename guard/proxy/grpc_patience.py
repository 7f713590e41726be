"""Lets go of clients that send or read too slowly: one look a second at all RPCs, instead of timers for each."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from time import monotonic
from typing import Any

PERIOD_S = 1.0
Task = asyncio.Task[Any]  # Any: the library's tasks and Guard's


@dataclass(slots=True)
class Wait:
    """How long the task of one RPC may wait for its client.

    Args:
        task: the task.
        until_s: when it is cancelled, by the monotonic clock, whether it is Guard that waits in it or the library.
        overdue: it was.
    """

    task: Task
    until_s: float = math.inf
    overdue: bool = False

    def wait(self, seconds: float) -> None:
        """Give it so many seconds from now on."""
        self.until_s = monotonic() + seconds

    def rest(self) -> None:
        """Let it take its time: it waits for no client."""
        self.until_s = math.inf


class Patience:
    """All RPCs that wait."""

    def __init__(self) -> None:
        self.stalled = 0
        """How many were let go that did not read: the library keeps what they were sent until their server ends."""
        self._waits: dict[Task, Wait] = {}

    @property
    def waiting(self) -> int:
        """How many RPCs are known."""
        return len(self._waits)

    def of(self) -> Wait:
        """Return the wait of the RPC whose task calls; it ends with the task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("called outside of a task")
        found = self._waits[task] = Wait(task)
        task.add_done_callback(self._waits.pop)
        return found

    def forgiven(self, wait: Wait) -> bool:
        """Say whether a task was cancelled because its time was over; it goes on, to say so."""
        if not wait.overdue:
            return False
        wait.overdue = False
        wait.task.uncancel()
        self.stalled -= 1
        return True

    async def run(self) -> None:
        """Look once a second; runs until it is cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            self.look(monotonic())

    def look(self, now_s: float) -> None:
        """Cancel what is overdue."""
        for wait in [wait for wait in self._waits.values() if wait.until_s < now_s]:
            wait.rest()
            wait.overdue = True
            self.stalled += 1
            wait.task.cancel()
