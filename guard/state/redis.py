"""Ledgers in Redis or Valkey (6.2 or later), shared between replicas: one round trip a request.

Each ledger has a lane. Calls that arrive while a lane's batch is under way collect for its next one, which leaves when
the reply is there: no timer, and one EVALSHA at a time. `charge.lua` settles a batch atomically.

* Keys are `guard:{LEDGER}:…`; the hash tag keeps a ledger on one shard. Names are escaped: none reaches another's key.
* A key lives until a day after its window's end: a time to live, not a point in time, so that a server whose clock is
  ahead does not drop counters at once.
* A batch whose reply does not come is refused and never sent again: what it may have charged stays so. Those behind it
  are refused with it, so that nobody waits longer than two timeouts.
* What Redis itself forgets is refunded: it needs `maxmemory-policy noeviction`, append-only persistence to survive a
  restart, and replicas that keep up to survive a failover.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, cast

import orjson
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from guard.errors import InvariantError, StateError
from guard.model.ledger import Admission, Receipt, Spend
from guard.state.counters import check_charges, escaped
from guard.state.redis_urls import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guard.model.ledger import Charge

_SCRIPT = (files("guard.state") / "charge.lua").read_bytes()
_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()
_MOST = 2**53 - 1
_DAY_S = 86_400
_LONGEST_NAME = 256
_ADMISSIONS = (Admission.ALLOW, Admission.LABEL_ONLY, Admission.DENY)
_CALLS_A_BATCH, _DIGESTS_A_BATCH = 256, 20_000


@dataclass(slots=True)
class _Call:
    """One charge or refund on its way: what the script is told, and who waits for its reply."""

    done: asyncio.Future[Receipt | None]
    numbers: list[int]
    charges: Sequence[Charge] = ()
    keys: list[str] = field(default_factory=list[str])
    digests: list[tuple[bytes, ...]] = field(default_factory=list[tuple[bytes, ...]])

    def weight(self) -> int:
        return sum(map(len, self.digests))


@dataclass(slots=True)
class _Lane:
    """One ledger's calls that wait for the next batch, and the task that sends batches."""

    waiting: deque[_Call] = field(default_factory=deque[_Call])
    sender: asyncio.Task[None] | None = None


class RedisState:
    """A `State` in Redis.

    Args:
        url: see `guard.state.open.open_state`.
        timeout_s: for each command, connecting included.
        max_waiting: calls that may wait at once, over all ledgers; more are refused.

    Raises:
        StateError: the URL cannot be understood.
    """

    def __init__(self, url: str, *, timeout_s: float = 1.0, max_waiting: int = 10_000) -> None:
        self._clients = connect(url, timeout_s)
        self._timeout_s = timeout_s
        self._max_waiting = max_waiting
        self._waiting = 0
        self._lanes: dict[str, _Lane] = {}
        self._closed = False

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        """Charge all or none; see `guard.ports.State`."""
        check_charges(charges)
        call = _Call(asyncio.get_running_loop().create_future(), [0], charges)
        for charge in charges:
            if charge.amount > _MOST:
                raise InvariantError("a charge is larger than any budget")
            limit = min(charge.limit, _MOST)
            hard_limit = -1 if charge.hard_limit is None else min(charge.hard_limit, _MOST)
            digests = -1
            call.keys.append(_key("c", ledger, charge, now_s))
            if charge.digests is not None:
                call.keys.append(_key("d", ledger, charge, now_s))
                call.digests.append(tuple(dict.fromkeys(charge.digests)))
                digests = len(call.digests[-1])
            label_only = 1 if charge.then == "label_only" else 0
            call.numbers += (limit, charge.amount, label_only, hard_limit, _ttl_ms(charge, now_s), digests)
        receipt = await self._through(ledger, call)
        if receipt is None:
            raise InvariantError("a charge came back without a receipt")
        return receipt

    async def refund(self, ledger: str, charges: Sequence[Charge], receipt: Receipt, now_s: float) -> None:
        """Give back what `receipt` charged; see `guard.ports.State`."""
        if receipt.admission is Admission.DENY:
            return
        call = _Call(asyncio.get_running_loop().create_future(), [1])
        for charge, charged, fresh in zip(charges, receipt.charged, receipt.fresh, strict=True):
            call.keys.append(_key("c", ledger, charge, now_s))
            if fresh:
                call.keys.append(_key("d", ledger, charge, now_s))
                call.digests.append(fresh)
            call.numbers += (charged.spent, charged.total, len(fresh) or -1)
        await self._through(ledger, call)

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        """Say what has been spent; see `guard.ports.State`."""
        self._check()
        reply = await self._command("HMGET", _key("c", ledger, charge, now_s), "s", "t")
        spent, total = cast("list[bytes | None]", reply)  # a list is what HMGET replies
        return Spend(int(spent or 0), int(total or 0))

    async def ping(self) -> None:
        """Return when Redis has taken a write."""
        self._check()
        await self._command("SET", "guard:{ping}", "1", "PX", 60_000)

    async def aclose(self) -> None:
        """Refuse new calls, wait for those in the lanes, and close the connections."""
        self._closed = True
        await asyncio.gather(*[lane.sender for lane in self._lanes.values() if lane.sender is not None])
        await asyncio.gather(*[client.aclose() for client in self._clients])

    def _check(self) -> None:
        if self._closed:
            raise StateError("the state has been closed")

    async def _through(self, ledger: str, call: _Call) -> Receipt | None:
        """Put a call in its ledger's lane and wait for its reply."""
        self._check()
        if self._waiting >= self._max_waiting:
            raise StateError("too many requests wait for the state")
        self._waiting += 1
        lane = self._lanes.setdefault(ledger, _Lane())
        lane.waiting.append(call)
        if lane.sender is None:
            lane.sender = asyncio.get_running_loop().create_task(self._send(lane))
        return await call.done

    async def _send(self, lane: _Lane) -> None:
        """Send batch after batch until nobody waits."""
        batch: list[_Call] = []
        message = "the state stopped answering"
        try:
            while lane.waiting:
                batch = self._take(lane)
                numbers = iter(orjson.loads(await self._settle(batch)))
                for call in batch:
                    receipt = _receipt(call, numbers)
                    if not call.done.done():
                        call.done.set_result(receipt)
        except StateError as error:
            message = error.message
        finally:
            lane.sender = None
            # Refused with it are those who wait behind it, so that an outage does not make a queue of timeouts.
            self._waiting -= len(lane.waiting)
            for call in (*batch, *lane.waiting):
                if not call.done.done():
                    call.done.set_exception(StateError(message))
            lane.waiting.clear()

    def _take(self, lane: _Lane) -> list[_Call]:
        """Take the next batch, bounded in calls and in digests; at least one call."""
        batch = [lane.waiting.popleft()]
        weight = batch[0].weight()
        while lane.waiting and len(batch) < _CALLS_A_BATCH:
            weight += lane.waiting[0].weight()
            if weight > _DIGESTS_A_BATCH:
                break
            batch.append(lane.waiting.popleft())
        self._waiting -= len(batch)
        return batch

    async def _settle(self, batch: list[_Call]) -> bytes:
        keys = [key for call in batch for key in call.keys]
        numbers = orjson.dumps([call.numbers for call in batch])
        digests = b"".join([digest for call in batch for claim in call.digests for digest in claim])
        try:
            return await self._command("EVALSHA", _SHA, len(keys), *keys, numbers, digests)
        except _UnknownScriptError:
            # It did not run: sending it once more, in full, charges nothing twice.
            return await self._command("EVAL", _SCRIPT, len(keys), *keys, numbers, digests)

    async def _command(self, *args: bytes | str | int) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._clients[0].execute_command(*args)
        except NoScriptError as error:
            raise _UnknownScriptError("the state does not know the script") from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise StateError("the state cannot be reached") from error


class _UnknownScriptError(StateError):
    """The server has not seen `charge.lua` since it started."""


def _receipt(call: _Call, numbers: Iterator[int]) -> Receipt | None:
    """Read one call's part of the reply."""
    if call.numbers[0]:
        return None
    admission, binding = next(numbers), next(numbers)
    spends: list[Spend] = []
    charged: list[Spend] = []
    fresh: list[tuple[bytes, ...]] = []
    digests = iter(call.digests)
    for charge in call.charges:
        spends.append(Spend(next(numbers), next(numbers)))
        charged.append(Spend(next(numbers), next(numbers)))
        claimed = next(digests) if charge.digests is not None else ()
        fresh.append(tuple([claimed[next(numbers)] for _ in range(next(numbers))]))
    which = None if binding < 0 else binding
    return Receipt(_ADMISSIONS[admission], which, tuple(spends), tuple(charged), tuple(fresh))


def _key(kind: str, ledger: str, charge: Charge, now_s: float) -> str:
    """Name a counter (`c`) or a set of digests (`d`).

    >>> from guard.model.ledger import Charge
    >>> _key("c", "digits", Charge("rows/client", "client:a", 60, 10, 1), 125.0)
    'guard:{digits}:c|rows/client|client:a|60|2'
    """
    names = f"{_short(charge.budget)}|{_short(charge.scope)}"
    return f"guard:{{{_short(ledger)}}}:{kind}|{names}|{charge.window_s}|{charge.window(now_s)}"


def _short(name: str) -> str:
    """Escape a name; a long one is replaced by its hash, behind a % that no escaped name begins with so."""
    text = escaped(name)
    return text if len(text) <= _LONGEST_NAME else f"%sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def _ttl_ms(charge: Charge, now_s: float) -> int:
    """Return how long the keys of the window of `now_s` live; 0 for ever."""
    if not charge.window_s:
        return 0
    end_s = (charge.window(now_s) + 1) * charge.window_s
    return int((end_s - now_s + _DAY_S) * 1000)
