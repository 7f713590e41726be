"""The file behind `sqlite:`: who may open it, what is in it, and how one batch is written in one transaction.

Everything but opening runs in the one thread of `SqliteState`. Each statement writes many rows at once, because every
statement lets go of the GIL and has to win it back from a busy event loop.

* One process owns the file, by `flock` on `PATH.lock`: the kernel lets go of it when the owner dies, however it dies.
  Others may read the database meanwhile.
* WAL. What has been committed is with the kernel, so it survives the death of the process. A transaction that holds a
  privacy charge, or terms, is committed under `synchronous=FULL`: it is on the disk, with all that went before it, and
  survives a power failure. Others are committed under NORMAL, and a power failure may take the last of those.
* The journal keeps its latest rows; older ones are folded into checkpoints, a bounded number for each row that comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guard.errors import StateError
from guard.state.memo import KEY_BYTES
from guard.state.sqlite_journal import FOLDED_AT_ONCE, entries_of, fold
from guard.state.sqlite_records import Merge, forget, merge
from guard.state.sqlite_schema import prepare

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from guard.state.sqlite_journal import Folded

Key = tuple[str, str, str, int, int]
"""Ledger, budget, scope, window_s, window."""

_MAGIC, _HEADER_BYTES = b"SQLite format 3\0", 100
_ROWS_A_STATEMENT = 128
_FORGOTTEN_AT_ONCE = 500


@dataclass(slots=True)
class Batch:
    """What one transaction does, in this order.

    Args:
        new: counters to name: (id, *key, forgotten_after_s).
        spends: counters' values: (id, spent, total).
        remembered: digests paid for: (id, digest).
        forgotten: digests refunded: (id, digest).
        entries: privacy charges and refunds for the journal: (id, event, rows, amount).
        folded: checkpoints of counters that are named anew: (id, event, rows, amount).
        memo: releases to keep: (ledger, slot, held).
        merges: deltas of clients' records; they take their records with them.
        forget_before_s: drop windows that may be forgotten by then, a bounded number at once; None drops nothing.
        ping: write something in any case.
        wanted: counters to read afterwards.
    """

    new: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    spends: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    remembered: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    forgotten: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    entries: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    folded: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    memo: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    merges: list[Merge] = field(default_factory=list[Merge])
    forget_before_s: int | None = None
    ping: bool = False
    wanted: list[Key] = field(default_factory=list[Key])


@dataclass(slots=True)
class Stored:
    """A counter as the file has it; `id` is 0 for one that the file does not know."""

    id: int = 0
    spent: int = 0
    total: int = 0
    digests: set[bytes] | None = None


@dataclass(slots=True)
class Outcome:
    """What came of a batch.

    Args:
        stored: the counters that were wanted.
        dropped: those dropped, with what journal and checkpoints said of them: (event, rows, amount).
        more: more are to be dropped.
    """

    stored: dict[Key, Stored]
    dropped: dict[Key, list[Folded]]
    more: bool


class LedgerFile:
    """One SQLite database of counters, owned by this process.

    Args:
        path: the file; made with mode 0600 when there is none.

    Raises:
        StateError: another guard has it, it is not a ledger of ours, it is damaged, or it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        try:
            self.path = os.path.realpath(path)
            self._lock = _lock(self.path)
        except (OSError, ValueError) as error:
            raise StateError(f"{path} cannot be opened: {error}") from error
        try:
            with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as file:
                os.fchmod(file.fileno(), 0o600)
                header = file.read(_HEADER_BYTES)
            self.db = sqlite3.connect(
                self.path, timeout=1.0, isolation_level=None, check_same_thread=False, cached_statements=512
            )
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise StateError(f"{path} cannot be opened: {error}") from error
        try:
            # SQLite takes a file that is too short for a header as empty: a ledger cut short is not a new one.
            if header and (len(header) < _HEADER_BYTES or not header.startswith(_MAGIC)):
                raise sqlite3.DatabaseError("it has no header")
            prepare(self.db, path)
            self._is_full = True
            self._entered = 0  # rows of the journal since it was looked at
            (next_id,) = self.db.execute("SELECT coalesce(max(id), 0) + 1 FROM counters").fetchone()
            self.next_id = int(next_id)
        except sqlite3.Error as error:
            self.close()
            raise StateError(f"{path} is not a ledger of guard's, or it is damaged: {error}") from error
        except StateError:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self, *, full: bool) -> Generator[None]:
        """Commit what is done inside; `full` has it on the disk by then.

        Raises:
            StateError: nothing of it is in the file.
        """
        try:
            if full is not self._is_full:
                self.db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                self._is_full = full
            self.db.execute("BEGIN IMMEDIATE")
            yield
            self.db.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            with contextlib.suppress(sqlite3.Error):
                self.db.rollback()
            raise StateError("budgets cannot be written") from error

    def write(self, batch: Batch) -> Outcome:
        """Write one batch in one transaction, then read what it wants.

        Raises:
            StateError: nothing of the batch is in the file, or it cannot be read.
        """
        outcome = Outcome({}, {}, False)
        adding = any(one.adds() for one in batch.merges)
        if batch.spends or batch.memo or batch.ping or adding or batch.forget_before_s is not None:
            with self.transaction(full=bool(batch.entries)):
                self._write_batch(batch, outcome)
        with self._reading():
            for one in batch.merges:
                if not one.adds():
                    merge(self.db, one)
            outcome.stored = {key: self._read(key) for key in batch.wanted}
        return outcome

    def _write_batch(self, batch: Batch, outcome: Outcome) -> None:
        self._write_rows("INSERT INTO counters VALUES", "", batch.new)
        values = "ON CONFLICT (counter) DO UPDATE SET spent = excluded.spent, total = excluded.total"
        self._write_rows("INSERT INTO spends VALUES", values, batch.spends)
        self._write_rows("INSERT OR IGNORE INTO digests VALUES", "", batch.remembered)
        self._write_rows("DELETE FROM digests WHERE (counter, digest) IN (VALUES", ")", batch.forgotten)
        self._write_rows("INSERT INTO checkpoints VALUES", "", batch.folded)
        self._write_rows("INSERT INTO journal (counter, event, rows, amount) VALUES", "", batch.entries)
        self._write_rows("INSERT OR REPLACE INTO memo (ledger, slot, held) VALUES", "", batch.memo)
        for one in batch.merges:
            if one.adds():
                merge(self.db, one)
        self._entered += len(batch.entries)
        if self._entered >= FOLDED_AT_ONCE:
            fold(self.db)
            self._entered = 0
        if batch.ping:
            self.db.execute("UPDATE meta SET value = value + 1 WHERE name = 'pings'")
        if batch.forget_before_s is not None:
            outcome.dropped, outcome.more = self._forget(batch.forget_before_s)
            outcome.more |= forget(self.db, batch.forget_before_s)

    def _write_rows(self, before: str, after: str, rows: Sequence[tuple[object, ...]]) -> None:
        for start in range(0, len(rows), _ROWS_A_STATEMENT):
            chunk = rows[start : start + _ROWS_A_STATEMENT]
            marks = ",".join(["(" + ",".join("?" * len(chunk[0])) + ")"] * len(chunk))
            self.db.execute(f"{before} {marks} {after}", [value for row in chunk for value in row])

    def _forget(self, before_s: int) -> tuple[dict[Key, list[Folded]], bool]:
        """Drop some digests and counters of old windows; digests first, so that none is left without a counter."""
        at_once = _FORGOTTEN_AT_ONCE
        digests = self.db.execute(
            "DELETE FROM digests WHERE (counter, digest) IN (SELECT d.counter, d.digest FROM counters c"
            " CROSS JOIN digests d ON d.counter = c.id WHERE c.forgotten_after_s <= ? LIMIT ?)",
            (before_s, at_once),
        ).rowcount
        if digests >= at_once:
            return {}, True
        old = self.db.execute(
            "SELECT id, ledger, budget, scope, window_s, window FROM counters WHERE forgotten_after_s <= ? LIMIT ?",
            (before_s, at_once),
        ).fetchall()
        ids = [row[:1] for row in old]
        folded = entries_of(self.db, [row[0] for row in old])
        for column in (
            "spends WHERE counter",
            "journal WHERE counter",
            "checkpoints WHERE counter",
            "counters WHERE id",
        ):
            self._write_rows(f"DELETE FROM {column} IN (VALUES", ")", ids)  # noqa: S608 - names from above
        return {row[1:]: folded.get(row[0], []) for row in old}, len(old) >= at_once

    def _read(self, key: Key) -> Stored:
        row = self.db.execute(
            "SELECT id, spent, total FROM counters JOIN spends ON counter = id"
            " WHERE ledger = ? AND budget = ? AND scope = ? AND window_s = ? AND window = ?",
            key,
        ).fetchone()
        if row is None:
            return Stored()
        digests = {bytes(d) for (d,) in self.db.execute("SELECT digest FROM digests WHERE counter = ?", row[:1])}
        return Stored(int(row[0]), int(row[1]), int(row[2]), digests or None)

    def terms(self, ledger: str) -> bytes | None:
        """Return a ledger's terms."""
        with self._reading():
            row = self.db.execute("SELECT terms FROM terms WHERE ledger = ?", (ledger,)).fetchone()
            return None if row is None else bytes(row[0])

    def agree(self, ledger: str, terms: bytes) -> bytes:
        """Put a ledger's terms down where there are none, and return those in force."""
        with self.transaction(full=True):
            self.db.execute("INSERT OR IGNORE INTO terms VALUES (?, ?)", (ledger, terms))
        return self.terms(ledger) or terms

    def memo_keys(self, ledger: str) -> dict[int, bytes]:
        """Return whose release each slot holds."""
        with self._reading():
            rows = self.db.execute("SELECT slot, substr(held, 1, ?) FROM memo WHERE ledger = ?", (KEY_BYTES, ledger))
            return {int(slot): bytes(key) for slot, key in rows}

    def memo(self, ledger: str, slots: Sequence[int]) -> dict[int, bytes]:
        """Return what some slots hold."""
        held: dict[int, bytes] = {}
        with self._reading():
            for slot in slots:
                row = self.db.execute("SELECT held FROM memo WHERE ledger = ? AND slot = ?", (ledger, slot)).fetchone()
                if row is not None:
                    held[slot] = bytes(row[0])
        return held

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise StateError("budgets cannot be read") from error

    def close(self) -> None:
        """Close the database, then let go of the file."""
        self.db.close()
        os.close(self._lock)


def _lock(path: str) -> int:
    """Return a descriptor that owns `path`; raise `StateError` when another guard does."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StateError(f"{path} is in use: another guard (process {owner or 'unknown'}) has it") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
