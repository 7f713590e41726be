"""Lets go of clients that send or read too slowly: one look a second at all RPCs, instead of timers for each."""

from __future__ import annotations

import asyncio
import math
from typing import Any

PERIOD_S = 1.0
Task = asyncio.Task[Any]  # Any: the library's tasks and Guard's


class Patience:
    """Until when the tasks of RPCs may wait for their clients."""

    def __init__(self) -> None:
        self.stalled = 0
        """How many were let go that did not read: the library keeps what they were sent until their server ends."""
        self._until: dict[Task, float] = {}
        self._overdue: set[Task] = set()

    @property
    def waiting(self) -> int:
        """How many tasks are known."""
        return len(self._until)

    def wait(self, seconds: float) -> None:
        """Give the task that calls so many seconds from now on; whatever it was given before no longer counts.

        When they are over it is cancelled, whether it is Guard that waits in it or the library.
        """
        task = asyncio.current_task()
        if task is None:
            return
        if task not in self._until:
            task.add_done_callback(self._forget)
        self._until[task] = asyncio.get_running_loop().time() + seconds

    def rest(self) -> None:
        """Let the task that calls take its time: it waits for no client."""
        self.wait(math.inf)

    def overdue(self) -> bool:
        """Say whether the task that calls was cancelled because its time was over; it may go on, once."""
        task = asyncio.current_task()
        if task is None or task not in self._overdue:
            return False
        self._overdue.discard(task)
        self.stalled -= 1
        task.uncancel()
        return True

    async def run(self) -> None:
        """Look once a second; runs until it is cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            self.look(asyncio.get_running_loop().time())

    def look(self, now_s: float) -> None:
        """Cancel what is overdue."""
        for task in [task for task, until_s in self._until.items() if until_s < now_s]:
            self._until[task] = math.inf
            self._overdue.add(task)
            self.stalled += 1
            task.cancel()

    def _forget(self, task: Task) -> None:
        self._until.pop(task, None)
        self._overdue.discard(task)
