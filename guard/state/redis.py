"""Ledgers in Redis or Valkey (6.2 or later), shared between replicas: one round trip a request.

Calls travel in batches (`redis_lanes`), one EVALSHA at a time for each ledger; `charge.lua` settles a batch atomically,
and enters what privacy budgets pay in the journal.

* A key lives until a day after its window's end: a time to live, not a point in time, so that a server whose clock is
  ahead does not drop counters at once.
* Privacy is charged only under the terms that this process has been told. When they have changed, or are gone together
  with everything else that the server has lost, every such charge is refused until they have been agreed on again.
* What Redis itself forgets is refunded: `durability` says what it may forget.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import orjson
from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from guard.errors import InvariantError, StateError
from guard.model.ledger import TERMS_CHANGED, Admission, Receipt, Spend
from guard.state.counters import check_charges
from guard.state.memo import found, kept, slot_of
from guard.state.redis_durability import SETTINGS, in_words, may_lose
from guard.state.redis_keys import key_of, ledger_of, memo_key, terms_key, ttl_ms
from guard.state.redis_lanes import Lanes
from guard.state.redis_records import MERGE, MERGE_SHA, MOST_CALLS, MOST_WEIGHT, Merge, arguments, merges, record
from guard.state.redis_urls import Command, connect, let_go, primaries
from guard.state.tally import check_deltas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from guard.model.evidence import Delta, Record
    from guard.model.ledger import Charge

_SCRIPT = (files("guard.state") / "charge.lua").read_bytes()
_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()
_AGREE = (files("guard.state") / "agree.lua").read_bytes()
_MOST = 2**53 - 1
_ADMISSIONS = (Admission.ALLOW, Admission.LABEL_ONLY, Admission.DENY)
_CHANGED = 3
_PLAIN, _JOURNALLED = -1, -2
_NO_TERMS = "-"
_RECORDS_A_STEP = 4  # long records take a tenth of a millisecond each
_CALLS_A_BATCH, _DIGESTS_A_BATCH, _RELEASES_A_BATCH, _BYTES_A_BATCH = 256, 20_000, 1_000, 4 * 1024 * 1024


@dataclass(slots=True)
class _Call:
    """One charge or refund on its way: what the script is told."""

    numbers: list[int | str]
    charges: Sequence[Charge] = ()
    keys: list[str] = field(default_factory=list[str])
    digests: list[tuple[bytes, ...]] = field(default_factory=list[tuple[bytes, ...]])
    journalled: bool = False

    def weight(self) -> int:
        return sum(map(len, self.digests))

    def add(self, ledger: str, charge: Charge, digests: tuple[bytes, ...] | None, now_s: float) -> None:
        """Name a claim's keys, and say of what kind it is."""
        self.keys.append(key_of("c", ledger, charge, now_s))
        if digests is not None:
            self.keys.append(key_of("d", ledger, charge, now_s))
            self.digests.append(digests)
            self.numbers.append(len(digests))
        elif charge.event is not None:
            self.journalled = True
            self.numbers += (_JOURNALLED, charge.rows, charge.event)
        else:
            self.numbers.append(_PLAIN)


class RedisState:
    """A `State` in Redis.

    Args:
        url: see `guard.state.open.open_state`.
        timeout_s: for each command, connecting included.
        max_waiting: calls of one kind that may wait at once, over all ledgers; more are refused.

    Raises:
        StateError: the URL cannot be understood.
    """

    def __init__(self, url: str, *, timeout_s: float = 1.0, max_waiting: int = 10_000) -> None:
        self._clients = connect(url, timeout_s)
        self._kind = url.partition(":")[0].partition("+")[2]
        self._timeout_s = timeout_s
        self._terms: dict[str, str] = {}  # what the terms are known by that this process was told
        self._charges: Lanes[_Call, Receipt | None] = Lanes(
            self._settle, _Call.weight, _DIGESTS_A_BATCH, _CALLS_A_BATCH, max_waiting
        )
        self._recalls: Lanes[list[int], list[bytes | None]] = Lanes(
            self._read, len, _RELEASES_A_BATCH, _CALLS_A_BATCH, max_waiting
        )
        self._releases: Lanes[dict[int, bytes], None] = Lanes(
            self._keep, _bytes_of, _BYTES_A_BATCH, _CALLS_A_BATCH, max_waiting
        )
        self._merges: Lanes[Merge, list[Record]] = Lanes(
            self._merge, Merge.weight, MOST_WEIGHT, MOST_CALLS, max_waiting
        )
        self._closed = False

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        """Charge all or none; see `guard.ports.State`."""
        self._check()
        check_charges(charges)
        call = _Call([0], charges)
        for charge in charges:
            if charge.amount > _MOST:
                raise InvariantError("a charge is larger than any budget")
            limit = min(charge.limit, _MOST)
            hard_limit = -1 if charge.hard_limit is None else min(charge.hard_limit, _MOST)
            label_only = 1 if charge.then == "label_only" else 0
            call.numbers += (limit, charge.amount, label_only, hard_limit, ttl_ms(charge, now_s))
            digests = None if charge.digests is None else tuple(dict.fromkeys(charge.digests))
            call.add(ledger, charge, digests, now_s)
        receipt = await self._charges.through(ledger, call)
        if receipt is None:
            raise InvariantError("a charge came back without a receipt")
        return receipt

    async def refund(self, ledger: str, charges: Sequence[Charge], receipt: Receipt, now_s: float) -> None:
        """Give back what `receipt` charged; see `guard.ports.State`."""
        self._check()
        if receipt.admission is Admission.DENY:
            return
        call = _Call([1])
        for charge, charged, fresh in zip(charges, receipt.charged, receipt.fresh, strict=True):
            call.numbers += (charged.spent, charged.total)
            call.add(ledger, charge, fresh or None, now_s)
        await self._charges.through(ledger, call)

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        """Say what has been spent; see `guard.ports.State`."""
        self._check()
        reply = await self._command("HMGET", key_of("c", ledger, charge, now_s), "s", "t")
        spent, total = cast("list[bytes | None]", reply)  # a list is what HMGET replies
        return Spend(int(spent or 0), int(total or 0))

    async def recall(self, ledger: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return memoised releases; see `guard.ports.State`."""
        self._check()
        if not keys:
            return []
        held = await self._recalls.through(ledger, [slot_of(key) for key in keys])
        return [found(key, release) for key, release in zip(keys, held, strict=True)]

    async def remember(self, ledger: str, releases: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep releases; see `guard.ports.State`."""
        self._check()
        if slots := kept(releases):
            await self._releases.through(ledger, slots)

    async def merge(self, space: str, deltas: Sequence[Delta], now_s: float) -> list[Record]:
        """Merge counts and marks; see `guard.ports.State`. A ledger's evidence and marks travel in one lane."""
        self._check()
        check_deltas(deltas)
        ledger = ledger_of(space)
        calls = merges(space, deltas, now_s)
        found = await asyncio.gather(*[self._merges.through(ledger, call) for call in calls])
        return [one for records in found for one in records]

    async def terms(self, ledger: str) -> bytes | None:
        """Return the ledger's terms; see `guard.ports.State`. Who only looks has not agreed to them."""
        self._check()
        live = await self._command("HGET", terms_key(ledger), "terms")
        return cast("bytes | None", live)  # what HGET replies

    async def agree(self, ledger: str, terms: bytes) -> bytes:
        """Put terms down where there are none; see `guard.ports.State`."""
        self._check()
        known = self._terms.get(ledger, "")
        reply = await self._command("EVAL", _AGREE, 1, terms_key(ledger), terms, known, secrets.token_hex(8))
        live, by = cast("list[bytes | None]", reply)  # a list of two is what the script returns
        if live is None or by is None:
            raise StateError("the state has lost the ledger, and with it what was charged", code=TERMS_CHANGED)
        self._terms[ledger] = by.decode()
        return live

    async def durability(self) -> str:
        """Return why acknowledged charges may be lost; see `guard.state.redis_durability`."""
        self._check()
        try:
            async with asyncio.timeout(self._timeout_s):
                servers = [await self._may_lose(command) for command in await primaries(self._clients[0])]
        except (RedisError, RedisClusterException, OSError) as error:
            raise StateError("the state cannot be reached") from error
        return in_words(self._kind, servers)

    @staticmethod
    async def _may_lose(command: Command) -> list[str]:
        config: dict[str, str] | None = {}
        try:
            for name in SETTINGS:
                config |= await command("CONFIG GET", name)
        except ResponseError:
            config = None
        info = await command("INFO", "replication")
        return may_lose(config, int(info.get("connected_slaves", 0)))

    async def ping(self) -> None:
        """Return when Redis has taken a write."""
        self._check()
        await self._command("SET", "guard:{ping}", "1", "PX", 60_000)

    async def aclose(self) -> None:
        """Refuse new calls, wait for those in the lanes, and close the connections."""
        self._closed = True
        lanes = (self._charges, self._recalls, self._releases, self._merges)
        await asyncio.gather(*[lane.drained() for lane in lanes])
        await asyncio.gather(*[client.aclose() for client in self._clients])

    def _check(self) -> None:
        if self._closed:
            raise StateError("the state has been closed")

    async def _settle(self, ledger: str, batch: list[_Call]) -> list[Receipt | StateError | None]:
        """Run the script on a batch of charges and refunds."""
        keys = [key for call in batch for key in call.keys]
        known = ""
        if any(call.journalled for call in batch):
            keys.append(terms_key(ledger))
            known = self._terms.get(ledger, _NO_TERMS)
        numbers = orjson.dumps([call.numbers for call in batch])
        digests = b"".join([digest for call in batch for claim in call.digests for digest in claim])
        try:
            reply = await self._command("EVALSHA", _SHA, len(keys), *keys, numbers, digests, known)
        except _UnknownScriptError:
            # It did not run: sending it once more, in full, charges nothing twice.
            reply = await self._command("EVAL", _SCRIPT, len(keys), *keys, numbers, digests, known)
        figures = iter(orjson.loads(reply))
        return [_receipt(call, figures) for call in batch]

    async def _read(self, ledger: str, batch: list[list[int]]) -> list[list[bytes | None]]:
        """Read the slots of several recalls at once."""
        held = iter(await self._command("HMGET", memo_key(ledger), *[slot for slots in batch for slot in slots]))
        return [[next(held) for _ in slots] for slots in batch]

    async def _keep(self, ledger: str, batch: list[dict[int, bytes]]) -> list[None]:
        """Write the slots of several calls at once."""
        await self._command(
            "HSET", memo_key(ledger), *[part for slots in batch for pair in slots.items() for part in pair]
        )
        return [None] * len(batch)

    async def _merge(self, ledger: str, batch: list[Merge]) -> list[list[Record]]:
        """Run the script on a batch of deltas; each knows itself again, so it may be sent twice."""
        del ledger
        given = arguments(batch)
        try:
            reply = await self._command("EVALSHA", MERGE_SHA, *given)
        except _UnknownScriptError:
            reply = await self._command("EVAL", MERGE, *given)
        found: list[Record] = []
        for one in cast("list[bytes]", reply):  # a text for each delta is what the script returns
            found.append(record(one))
            if len(found) % _RECORDS_A_STEP == 0:
                await asyncio.sleep(0)
        replies = iter(found)
        return [[next(replies) for _ in call.deltas] for call in batch]

    async def _command(self, *args: bytes | str | int) -> Any:  # Any: the reply's type depends on the command
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._clients[0].execute_command(*args)
        except NoScriptError as error:
            raise _UnknownScriptError("the state does not know the script") from error
        except (TimeoutError, RedisTimeoutError) as error:
            with contextlib.suppress(RedisError, RedisClusterException, OSError):
                await let_go(self._clients[0], noticed=isinstance(error, RedisTimeoutError))
            raise StateError("the state cannot be reached") from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise StateError("the state cannot be reached") from error


class _UnknownScriptError(StateError):
    """The server has not seen the script since it started."""


def _bytes_of(slots: dict[int, bytes]) -> int:
    return sum(map(len, slots.values()))


def _receipt(call: _Call, numbers: Iterator[int]) -> Receipt | StateError | None:
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
    if admission == _CHANGED:
        return StateError("the ledger's terms have changed", code=TERMS_CHANGED)
    which = None if binding < 0 else binding
    return Receipt(_ADMISSIONS[admission], which, tuple(spends), tuple(charged), tuple(fresh))
