"""Ledgers in a file of this host: the embedded default. A restart refunds nothing, not even after kill -9.

Decisions are made here, on the event loop, on a mirror of the counters in use; a charge returns only when the
transaction that holds it has been committed. Writing is one thread's work and coalesces by itself: while one batch is
being committed, the charges that arrive collect for the next. There is no timer. Mirror and file stay the same by this:

* A counter is read from the file once, before its first use. This process owns the file, so nobody else changes it.
* A counter leaves the mirror (oldest use first) only when what it holds has been committed.
* When a commit fails, everybody who waits gets `StateError`, and the whole mirror is forgotten: the file is what holds.

Entries of the journal go with the charge that they are of, in the same transaction; nothing of them is kept here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from guard.errors import StateError
from guard.model.ledger import Admission, Spend
from guard.state.counters import Counter, check_charges, escaped, forgotten_after_s, rows_back, settle, take_off
from guard.state.sqlite_file import Batch, Key, LedgerFile
from guard.state.sqlite_memo import SqliteMemo
from guard.state.sqlite_records import MERGED_AT_ONCE, Merge
from guard.state.tally import check_deltas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.model.evidence import Delta, Record
    from guard.model.ledger import Charge, Receipt
    from guard.state.sqlite_file import Outcome, Stored
    from guard.state.sqlite_journal import Folded

_FORGET_EVERY_S = 60


class _Row(Counter):
    """A counter in the mirror.

    Args:
        key: its name.
        stored: what the file has; `id` 0 is a counter that the file does not know yet.
    """

    __slots__ = ("batch", "folded", "id", "is_new", "key")

    def __init__(self, key: Key, stored: Stored) -> None:
        super().__init__(stored.spent, stored.total, stored.digests)
        self.key = key
        self.id = stored.id
        self.is_new = not stored.id
        self.folded: Sequence[Folded] = ()  # what is to be written of its journal when it is named anew
        self.batch = 0  # number of the last batch that it changed in


class SqliteState:
    """A `State` in one SQLite file, owned by this process.

    Args:
        path: the file; made when there is none, mode 0600.
        max_mirrored: counters and digests held in memory beyond those being written.
        max_waiting: calls that may wait for a commit; more are refused.

    Raises:
        StateError: the file is another guard's, not a ledger, damaged or out of reach.
    """

    def __init__(self, path: str, *, max_mirrored: int = 500_000, max_waiting: int = 10_000) -> None:
        self._file = LedgerFile(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="guard-sqlite")
        self._max_mirrored = max_mirrored
        self._max_waiting = max_waiting
        self._mirror: OrderedDict[Key, _Row] = OrderedDict()
        self._mirrored_digests = 0
        self._changed: dict[Key, _Row] = {}
        self._digests: dict[tuple[int, bytes], bool] = {}  # whether it is now paid for
        self._entries: list[tuple[object, ...]] = []
        self._memo = SqliteMemo(self._file, self._thread)
        self._merges: list[Merge] = []
        self._wanted: set[Key] = set()
        self._pinned: set[Key] = set()  # what the batch under way is to bring or to keep
        self._waiting: list[asyncio.Future[None]] = []
        self._ping = False
        self._batch = 1  # number of the batch that is being collected
        self._committed = 0
        self._next_id = self._file.next_id
        self._now_s = 0.0
        self._forgot_at_s: float | None = None
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        """Charge all or none and return when that is in the file; see `guard.ports.State`."""
        check_charges(charges)
        rows = await self._rows(ledger, charges, now_s)
        receipt = settle(charges, rows)
        if receipt.admission is not Admission.DENY:
            for charge, row, charged, fresh in zip(charges, rows, receipt.charged, receipt.fresh, strict=True):
                self._note(row)
                if charge.event is not None and charged.spent:
                    self._entries.append((row.id, charge.event, charge.rows, charged.spent))
                for digest in fresh:
                    self._digests[row.id, digest] = True
                self._mirrored_digests += len(fresh)
            await self._written()
        return receipt

    async def refund(self, ledger: str, charges: Sequence[Charge], receipt: Receipt, now_s: float) -> None:
        """Give back what `receipt` charged; see `guard.ports.State`."""
        if receipt.admission is Admission.DENY:
            return
        rows = await self._rows(ledger, charges, now_s)
        for charge, row, charged, fresh in zip(charges, rows, receipt.charged, receipt.fresh, strict=True):
            if row.is_new and row.id == 0:
                continue
            before = row.spent
            forgotten = take_off(row, charged, fresh)
            self._mirrored_digests -= len(forgotten)
            for digest in forgotten:
                self._digests[row.id, digest] = False
            if charge.event is not None and (taken := before - row.spent):
                back = rows_back(charge.rows, charged.spent, taken)
                self._entries.append((row.id, charge.event, -back, -taken))
            self._note(row)
        await self._written()

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        """Say what has been spent; see `guard.ports.State`."""
        (row,) = await self._rows(ledger, [charge], now_s)
        return Spend(row.spent, row.total)

    async def recall(self, ledger: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return memoised releases; see `guard.ports.State`."""
        self._check()
        return await self._memo.recall(escaped(ledger), keys)

    async def remember(self, ledger: str, releases: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep releases; see `guard.ports.State`."""
        self._check()
        await self._memo.remember(escaped(ledger), releases)

    async def merge(self, space: str, deltas: Sequence[Delta], now_s: float) -> list[Record]:
        """Merge counts and marks, and return when that is in the file; see `guard.ports.State`."""
        check_deltas(deltas)
        named = [delta._replace(key=escaped(delta.key)) for delta in deltas]
        records: list[Record] = []
        for start in range(0, len(named), MERGED_AT_ONCE):
            self._check()
            self._now_s = now_s
            one = Merge(escaped(space), named[start : start + MERGED_AT_ONCE], now_s)
            self._merges.append(one)
            await self._written()
            records += one.records
        return records

    async def terms(self, ledger: str) -> bytes | None:
        """Return the ledger's terms; see `guard.ports.State`."""
        self._check()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._file.terms, escaped(ledger))

    async def agree(self, ledger: str, terms: bytes) -> bytes:
        """Put terms down where there are none; see `guard.ports.State`."""
        self._check()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._file.agree, escaped(ledger), terms)

    async def durability(self) -> str:
        """Return nothing: a privacy charge is on the disk before it is answered."""
        return ""

    async def ping(self) -> None:
        """Return when something has been committed."""
        self._check()
        self._ping = True
        await self._written()

    async def aclose(self) -> None:
        """Write what is pending and let go of the file."""
        if self._closed:
            return
        self._closed = True
        if self._memo.waits():
            with contextlib.suppress(StateError):
                await self._written()
        if self._writer is not None:
            await self._writer
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()

    def _check(self) -> None:
        if self._closed:
            raise StateError("the state has been closed")
        if len(self._waiting) >= self._max_waiting:
            raise StateError("too many requests wait for the state")

    async def _rows(self, ledger: str, charges: Sequence[Charge], now_s: float) -> list[_Row]:
        """Return the charges' rows, read from the file where the mirror has none. Nothing suspends after the look."""
        self._now_s = now_s
        names = [(escaped(ledger), escaped(c.budget), escaped(c.scope), c.window_s, c.window(now_s)) for c in charges]
        while True:
            self._check()
            if all(key in self._mirror for key in names):
                break
            self._wanted.update(names)  # all of them: those that are there must not leave before the others come
            await self._written()
        rows: list[_Row] = []
        for key in names:
            self._mirror.move_to_end(key)
            rows.append(self._mirror[key])
        return rows

    def _note(self, row: _Row) -> None:
        if not row.id:
            row.id, self._next_id = self._next_id, self._next_id + 1
        row.batch = self._batch
        self._changed[row.key] = row

    async def _written(self) -> None:
        """Wait for the batch that is being collected now: its changes are committed, its rows are in the mirror."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        if self._writer is None:
            self._writer = loop.create_task(self._write())
        await future

    async def _write(self) -> None:
        """Write batch after batch until nobody waits."""
        loop = asyncio.get_running_loop()
        waiting: list[asyncio.Future[None]] = []
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                number, batch = self._batch, self._collect()
                try:
                    outcome = await loop.run_in_executor(self._thread, self._file.write, batch)
                except StateError as error:
                    self._fail(waiting + self._waiting, error.message)
                    continue
                self._committed = number
                self._take_in(outcome)
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
        finally:
            self._writer = None
            left = [future for future in waiting + self._waiting if not future.done()]
            if left:  # cancelled, or a bug: nobody may wait for ever
                self._fail(left, "the state stopped writing")

    def _collect(self) -> Batch:
        """Turn what has changed into a batch and begin the next one."""
        batch = Batch(ping=self._ping, wanted=[key for key in self._wanted if key not in self._mirror])
        for row in self._changed.values():
            if row.is_new:
                window_s, window = row.key[3:]
                batch.new.append((row.id, *row.key, forgotten_after_s(window_s, window) if window_s else None))
                batch.folded += [(row.id, *entry) for entry in row.folded]
                row.is_new, row.folded = False, ()
            batch.spends.append((row.id, row.spent, row.total))
        for digest, paid in self._digests.items():
            (batch.remembered if paid else batch.forgotten).append(digest)
        if self._forgot_at_s is None or abs(self._now_s - self._forgot_at_s) >= _FORGET_EVERY_S:
            batch.forget_before_s = int(self._now_s)
            self._forgot_at_s = self._now_s
        batch.entries, self._entries = self._entries, []
        batch.memo = self._memo.collect()
        batch.merges, self._merges = self._merges, []
        self._pinned = self._wanted
        self._changed, self._digests, self._wanted, self._ping = {}, {}, set(), False
        self._batch += 1
        return batch

    def _take_in(self, outcome: Outcome) -> None:
        """Bring the mirror in line with what was written: windows dropped, room made, rows read."""
        if outcome.more:
            self._forgot_at_s = None
        for key, folded in outcome.dropped.items():
            if key in self._mirror and not self._drop(self._mirror[key]):
                # A late charge has changed it since: it is written anew, with what its journal said.
                self._mirror[key].is_new, self._mirror[key].folded = True, folded
        for key in self._pinned & self._mirror.keys():
            self._mirror.move_to_end(key)
        while len(self._mirror) + self._mirrored_digests > self._max_mirrored:
            key = next(iter(self._mirror))
            if key in self._pinned or not self._drop(self._mirror[key]):
                break
        # After making room: what has just been read stays until those who want it have been here.
        for key, stored in outcome.stored.items():
            if key not in self._mirror:
                self._mirror[key] = _Row(key, stored)
                self._mirrored_digests += len(stored.digests or ())

    def _drop(self, row: _Row) -> bool:
        """Take a row out of the mirror if the file has all of it."""
        if row.batch > self._committed:
            return False
        del self._mirror[row.key]
        self._mirrored_digests -= len(row.digests or ())
        return True

    def _fail(self, waiting: list[asyncio.Future[None]], message: str) -> None:
        """Forget everything that is not in the file, and tell everybody who waits."""
        self._waiting = []
        self._mirror.clear()
        self._mirrored_digests = 0
        self._changed, self._digests, self._entries, self._wanted = {}, {}, [], set()
        self._merges = []
        self._memo.forget()
        self._forgot_at_s = self._now_s
        for future in waiting:
            if not future.done():
                future.set_exception(StateError(message))
