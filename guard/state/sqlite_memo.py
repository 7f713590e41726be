"""Remembered releases in a ledger's file: which key each slot holds is known here, the releases themselves are read.

A query that was never asked, which is what most are, costs no look at the file. New releases are written with the next
batch of charges: those that a crash takes are drawn and charged again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from guard.errors import StateError
from guard.state.memo import KEY_BYTES, found, kept, slot_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from guard.state.sqlite_file import LedgerFile

_MOST_WAITING_BYTES = 32 * 1024 * 1024


class SqliteMemo:
    """The releases of all ledgers in one file.

    Args:
        file: where they are.
        thread: the one thread that may use it.
    """

    def __init__(self, file: LedgerFile, thread: Executor) -> None:
        self._file = file
        self._thread = thread
        self._keys: dict[str, dict[int, bytes]] = {}
        self._fresh: dict[tuple[str, int], bytes] = {}
        self._fresh_bytes = 0

    async def recall(self, ledger: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the releases of `keys`, where they are still held."""
        known = await self._known(ledger)
        held: dict[int, bytes] = {}
        unread: list[int] = []
        for key in keys:
            slot = slot_of(key)
            if known.get(slot) != key:
                continue
            if (fresh := self._fresh.get((ledger, slot))) is not None:
                held[slot] = fresh
            else:
                unread.append(slot)
        if unread:
            loop = asyncio.get_running_loop()
            held |= await loop.run_in_executor(self._thread, self._file.memo, ledger, unread)
        return [found(key, held.get(slot_of(key))) for key in keys]

    async def remember(self, ledger: str, releases: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep releases here until the next batch takes them."""
        known = await self._known(ledger)
        for slot, release in kept(releases).items():
            if self._fresh_bytes + len(release) > _MOST_WAITING_BYTES:
                raise StateError("too many releases wait for the state")
            self._fresh_bytes += len(release)
            self._fresh[ledger, slot] = release
            known[slot] = release[:KEY_BYTES]

    async def _known(self, ledger: str) -> dict[int, bytes]:
        if ledger not in self._keys:
            read = await asyncio.get_running_loop().run_in_executor(self._thread, self._file.memo_keys, ledger)
            self._keys.setdefault(ledger, read)
        return self._keys[ledger]

    def waits(self) -> bool:
        """Say whether a release waits for a batch."""
        return bool(self._fresh)

    def collect(self) -> list[tuple[object, ...]]:
        """Return what is to be written; the file's thread reads it only after that."""
        rows: list[tuple[object, ...]] = [(*where, release) for where, release in self._fresh.items()]
        self._fresh, self._fresh_bytes = {}, 0
        return rows

    def forget(self) -> None:
        """Forget everything that may not be in the file."""
        self._keys, self._fresh, self._fresh_bytes = {}, {}, 0
