"""Ledgers in Redis, in an operator's hands. Semantics: `guard.state.books`; how a counter looks: `charge.lua`.

No set of counters is kept beside them, which would cost every first charge: operators' commands look through the
server's keys, a bounded number at a time.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import orjson
from redis.exceptions import RedisClusterException, RedisError

from guard.errors import InvariantError, StateError
from guard.model.ledger import Account, Entry, Spend
from guard.state.redis_keys import Name, counter_key, counter_prefix, ledger_in, lives_ms, name_in, terms_key
from guard.state.redis_urls import Command, connect, primaries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_REWRITE = (files("guard.state") / "rewrite.lua").read_bytes()
_READ = "local out = {} for i, key in ipairs(KEYS) do out[i] = redis.call('HGETALL', key) end return out"
_KEYS_A_SCRIPT = 1000
_SCANNED_AT_ONCE = 1000
_ENTRY = re.compile(rb"j\d+")
_Fields = dict[bytes, bytes]


class RedisBooks:
    """`Books` of one Redis.

    Args:
        url: as for `guard.state.redis.RedisState`.
        write: `rewrite` will be called.
        timeout_s: for each command.

    Raises:
        StateError: the URL cannot be understood.
    """

    def __init__(self, url: str, *, write: bool, timeout_s: float = 30.0) -> None:
        self._clients = connect(url, timeout_s)
        self._write = write
        self._timeout_s = timeout_s
        self._seen: dict[tuple[str, Name], list[tuple[str, str, str]]] = {}  # key, spent and total by what is shown

    async def ledgers(self) -> list[str]:
        """Return the names of all ledgers; see `guard.ports.Books`."""
        return sorted({name async for key in self._scan("guard:{*}:*") if (name := ledger_in(key)) is not None})

    async def accounts(self, ledger: str) -> list[Account]:
        """Return every counter of a ledger, each with its own journal; see `guard.ports.Books`."""
        prefix = counter_prefix(ledger)
        # A name may hold a star, which SCAN takes for a pattern.
        keys = sorted({key async for key in self._scan(f"{prefix}*") if key.startswith(prefix)})
        self._seen = {place: seen for place, seen in self._seen.items() if place[0] != ledger}
        accounts: list[Account] = []
        for start in range(0, len(keys), _KEYS_A_SCRIPT):
            chunk = keys[start : start + _KEYS_A_SCRIPT]
            replies = cast("list[list[bytes]]", await self._command("EVAL", _READ, len(chunk), *chunk))
            for key, reply in zip(chunk, replies, strict=True):
                fields = dict(zip(reply[::2], reply[1::2], strict=True))
                if b"s" in fields:  # it has not expired since it was found
                    accounts.append(self._account(ledger, key, fields))
        return sorted(accounts)

    def _account(self, ledger: str, key: str, fields: _Fields) -> Account:
        name = name_in(key)
        spent, total = fields[b"s"].decode(), fields[b"t"].decode()
        self._seen.setdefault((ledger, name), []).append((key, spent, total))
        return Account(*name, Spend(int(spent), int(total)), _entries(fields))

    async def terms(self, ledger: str) -> bytes | None:
        """Return a ledger's terms; see `guard.ports.Books`."""
        return cast("bytes | None", await self._command("HGET", terms_key(ledger), "terms"))

    async def rewrite(self, ledger: str, old: bytes | None, new: bytes | None, accounts: Sequence[Account]) -> bool:
        """Replace terms and accounts in one script; see `guard.ports.Books`."""
        if not self._write:
            raise InvariantError("books that were opened for reading are being written")
        keys = [terms_key(ledger)]
        payload: list[object] = []
        for account in accounts:
            name = Name(account.budget, account.scope, account.window_s, account.window)
            seen = self._seen.get((ledger, name), [])
            if len(seen) > 1:
                raise StateError(f"{account.scope} stands for two scopes; rename the one that is called so")
            key, spent, total = seen[0] if seen else (counter_key(ledger, name), "", "")
            keys.append(key)
            entries = [[entry.event, str(entry.rows), str(entry.amount)] for entry in account.entries]
            payload.append([spent, total, *map(str, account.spend), str(lives_ms(*name[2:], time.time())), entries])
        terms = (b"0", b"") if old is None else (b"1", old)
        by = secrets.token_hex(8)
        reply = await self._command("EVAL", _REWRITE, len(keys), *keys, *terms, new or b"", by, orjson.dumps(payload))
        return reply == 1

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*[client.aclose() for client in self._clients])

    async def _scan(self, pattern: str) -> AsyncIterator[str]:
        for command in await self._primaries():
            cursor = 0
            while True:
                reply = await self._command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED_AT_ONCE, by=command)
                at, keys = cast("tuple[int | dict[str, int], list[bytes]]", reply)
                # Of a cluster the cursors come by node, of which one was asked.
                cursor = next(iter(at.values())) if isinstance(at, dict) else at
                for key in keys:
                    yield key.decode()
                if not cursor:
                    break

    async def _primaries(self) -> list[Command]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await primaries(self._clients[0])
        except (RedisError, RedisClusterException, OSError) as error:
            raise StateError("the state cannot be reached") from error

    async def _command(self, *args: bytes | str | int, by: Command | None = None) -> Any:  # Any: as redis-py has it
        try:
            async with asyncio.timeout(self._timeout_s):
                return await (by or self._clients[0].execute_command)(*args)
        except (RedisError, RedisClusterException, OSError) as error:
            raise StateError(f"the state cannot be read: {type(error).__name__}") from error


def _entries(fields: _Fields) -> tuple[Entry, ...]:
    """Add up totals and journal of one counter by event.

    >>> _entries({b"s": b"30", b"r|a(1)": b"2", b"a|a(1)": b"20", b"n": b"9", b"j8": b"1 10 a(1)"})
    (Entry(event='a(1)', rows=3, amount=30),)
    """
    sums: dict[str, tuple[int, int]] = {}

    def add(event: str, rows: int, amount: int) -> None:
        before = sums.get(event, (0, 0))
        sums[event] = (before[0] + rows, before[1] + amount)

    for field, value in fields.items():
        if field.startswith(b"r|"):
            add(field[2:].decode(), int(value), 0)
        elif field.startswith(b"a|"):
            add(field[2:].decode(), 0, int(value))
        elif _ENTRY.fullmatch(field):
            rows, amount, event = value.decode().split(" ", 2)
            add(event, int(rows), int(amount))
    return tuple(Entry(event, *sums[event]) for event in sorted(sums))
