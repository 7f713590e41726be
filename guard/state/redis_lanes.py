"""Calls that travel together: those that arrive while a batch is under way collect for the next one.

Each ledger has a lane, and each lane sends one batch at a time, which leaves when the reply to the one before is there:
no timer. A batch whose reply does not come is refused and never sent again: what it may have charged stays so. Those
behind it are refused with it, so that nobody waits longer than two timeouts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from guard.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

Call = TypeVar("Call")
Reply = TypeVar("Reply")


class _Lane(Generic[Call, Reply]):
    """One ledger's calls that wait for the next batch, and the task that sends batches."""

    __slots__ = ("ledger", "sender", "waiting")

    def __init__(self, ledger: str) -> None:
        self.ledger = ledger
        self.waiting: deque[tuple[Call, asyncio.Future[Reply]]] = deque()
        self.sender: asyncio.Task[None] | None = None


class Lanes(Generic[Call, Reply]):
    """A lane for each ledger.

    Args:
        send: sends a ledger's batch; returns a reply, or an error to raise, for each call.
        weigh: what a call weighs.
        most_weight: of a batch of several calls.
        most_calls: in a batch.
        most_waiting: calls that may wait at once, over all ledgers; more are refused.
    """

    def __init__(
        self,
        send: Callable[[str, list[Call]], Awaitable[Sequence[Reply | StateError]]],
        weigh: Callable[[Call], int],
        most_weight: int,
        most_calls: int,
        most_waiting: int,
    ) -> None:
        self._send_batch = send
        self._weigh = weigh
        self._most_weight = most_weight
        self._most_calls = most_calls
        self._most_waiting = most_waiting
        self._waiting = 0
        self._lanes: dict[str, _Lane[Call, Reply]] = {}

    async def through(self, ledger: str, call: Call) -> Reply:
        """Put a call in its ledger's lane and wait for its reply.

        Raises:
            StateError: the state did not answer, or too many wait.
        """
        if self._waiting >= self._most_waiting:
            raise StateError("too many requests wait for the state")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Reply] = loop.create_future()
        self._waiting += 1
        lane = self._lanes.get(ledger)
        if lane is None:
            lane = self._lanes[ledger] = _Lane(ledger)
        lane.waiting.append((call, done))
        if lane.sender is None:
            lane.sender = loop.create_task(self._send(lane))
        return await done

    async def drained(self) -> None:
        """Wait until nobody waits."""
        await asyncio.gather(*[lane.sender for lane in self._lanes.values() if lane.sender is not None])

    async def _send(self, lane: _Lane[Call, Reply]) -> None:
        """Send batch after batch until nobody waits."""
        batch: list[tuple[Call, asyncio.Future[Reply]]] = []
        message = "the state stopped answering"
        try:
            while lane.waiting:
                batch = self._take(lane)
                replies = await self._send_batch(lane.ledger, [call for call, _ in batch])
                for (_, done), reply in zip(batch, replies, strict=True):
                    if done.done():
                        continue
                    if isinstance(reply, StateError):
                        done.set_exception(reply)
                    else:
                        done.set_result(reply)
        except StateError as error:
            message = error.message
        finally:
            lane.sender = None
            # Refused with it are those who wait behind it, so that an outage does not make a queue of timeouts.
            self._waiting -= len(lane.waiting)
            for _, done in (*batch, *lane.waiting):
                if not done.done():
                    done.set_exception(StateError(message))
            lane.waiting.clear()

    def _take(self, lane: _Lane[Call, Reply]) -> list[tuple[Call, asyncio.Future[Reply]]]:
        """Take the next batch, bounded in calls and in weight; at least one call."""
        batch = [lane.waiting.popleft()]
        weight = self._weigh(batch[0][0])
        while lane.waiting and len(batch) < self._most_calls:
            weight += self._weigh(lane.waiting[0][0])
            if weight > self._most_weight:
                break
            batch.append(lane.waiting.popleft())
        self._waiting -= len(batch)
        return batch
