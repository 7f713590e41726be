"""The file behind `sqlite:`: who may open it, what is in it, and how one batch is written in one transaction.

Everything but opening runs in the one thread of `SqliteState`. Each statement writes many rows at once, because every
statement lets go of the GIL and has to win it back from a busy event loop.

* `counters` names each counter and numbers it; `spends` holds the two integers that change all the time, in narrow
  rows, so that a batch touches few pages; `digests` holds what distinct budgets have been paid for.
* One process owns the file, by `flock` on `PATH.lock`: the kernel lets go of it when the owner dies, however it dies.
  Others may read the database meanwhile.
* WAL with `synchronous=NORMAL`: what has been committed is with the kernel, so it survives the death of the process; a
  power failure may take the last commits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guard.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

APPLICATION_ID = 0x67756172  # "guar"
SCHEMA_VERSION = 1
Key = tuple[str, str, str, int, int]
"""Ledger, budget, scope, window_s, window."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', {SCHEMA_VERSION}), ('pings', 0);
CREATE TABLE counters (
    id INTEGER PRIMARY KEY, ledger TEXT NOT NULL, budget TEXT NOT NULL, scope TEXT NOT NULL,
    window_s INTEGER NOT NULL, window INTEGER NOT NULL, forgotten_after_s INTEGER,
    UNIQUE (ledger, budget, scope, window_s, window));
CREATE INDEX counters_forgotten ON counters (forgotten_after_s) WHERE forgotten_after_s IS NOT NULL;
CREATE TABLE spends (counter INTEGER PRIMARY KEY, spent INTEGER NOT NULL, total INTEGER NOT NULL);
CREATE TABLE digests (counter INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (counter, digest)) WITHOUT ROWID;
COMMIT;
"""  # noqa: S608 - two constants of this module
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
        forget_before_s: drop windows that may be forgotten by then, a bounded number at once; None drops nothing.
        ping: write something in any case.
        wanted: counters to read afterwards.
    """

    new: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    spends: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    remembered: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
    forgotten: list[tuple[object, ...]] = field(default_factory=list[tuple[object, ...]])
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
    """What came of a batch: the counters that were wanted, those dropped, and whether more are to be dropped."""

    stored: dict[Key, Stored]
    dropped: list[Key]
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
            self._db = sqlite3.connect(
                self.path, timeout=1.0, isolation_level=None, check_same_thread=False, cached_statements=512
            )
        except (OSError, sqlite3.Error) as error:
            os.close(self._lock)
            raise StateError(f"{path} cannot be opened: {error}") from error
        try:
            # SQLite takes a file that is too short for a header as empty: a ledger cut short is not a new one.
            if header and (len(header) < _HEADER_BYTES or not header.startswith(_MAGIC)):
                raise sqlite3.DatabaseError("it has no header")
            self.next_id = self._prepare(path)
        except sqlite3.Error as error:
            self.close()
            raise StateError(f"{path} is not a ledger of guard's, or it is damaged: {error}") from error
        except StateError:
            self.close()
            raise

    def _prepare(self, path: str) -> int:
        """Check whose file it is, make the tables of a new one, and return the first free id."""
        (application_id,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id != APPLICATION_ID and (application_id or tables):
            raise StateError(f"{path} is not a ledger of guard's: it belongs to another program")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA journal_size_limit = 67108864")
        if not tables:
            self._db.executescript(_SCHEMA)
        (version,) = self._db.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone() or (None,)
        if version != SCHEMA_VERSION:
            raise StateError(f"{path} has schema version {version}; this guard reads version {SCHEMA_VERSION}")
        (next_id,) = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM counters").fetchone()
        return int(next_id)

    def write(self, batch: Batch) -> Outcome:
        """Write one batch in one transaction, then read what it wants.

        Raises:
            StateError: nothing of the batch is in the file.
        """
        try:
            dropped, more = self._transact(batch)
            return Outcome({key: self._read(key) for key in batch.wanted}, dropped, more)
        except (sqlite3.Error, OverflowError) as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.rollback()
            raise StateError("budgets cannot be written") from error

    def _transact(self, batch: Batch) -> tuple[list[Key], bool]:
        dropped: list[Key] = []
        more = False
        if not (batch.spends or batch.ping or batch.forget_before_s is not None):
            return dropped, more
        self._db.execute("BEGIN IMMEDIATE")
        self._write_rows("INSERT INTO counters VALUES", "", batch.new)
        values = "ON CONFLICT (counter) DO UPDATE SET spent = excluded.spent, total = excluded.total"
        self._write_rows("INSERT INTO spends VALUES", values, batch.spends)
        self._write_rows("INSERT OR IGNORE INTO digests VALUES", "", batch.remembered)
        self._write_rows("DELETE FROM digests WHERE (counter, digest) IN (VALUES", ")", batch.forgotten)
        if batch.ping:
            self._db.execute("UPDATE meta SET value = value + 1 WHERE name = 'pings'")
        if batch.forget_before_s is not None:
            dropped, more = self._forget(batch.forget_before_s)
        self._db.execute("COMMIT")
        return dropped, more

    def _write_rows(self, before: str, after: str, rows: Sequence[tuple[object, ...]]) -> None:
        for start in range(0, len(rows), _ROWS_A_STATEMENT):
            chunk = rows[start : start + _ROWS_A_STATEMENT]
            marks = ",".join(["(" + ",".join("?" * len(chunk[0])) + ")"] * len(chunk))
            self._db.execute(f"{before} {marks} {after}", [value for row in chunk for value in row])

    def _forget(self, before_s: int) -> tuple[list[Key], bool]:
        """Drop some digests and counters of old windows; digests first, so that none is left without a counter."""
        at_once = _FORGOTTEN_AT_ONCE
        digests = self._db.execute(
            "DELETE FROM digests WHERE (counter, digest) IN (SELECT d.counter, d.digest FROM counters c"
            " CROSS JOIN digests d ON d.counter = c.id WHERE c.forgotten_after_s <= ? LIMIT ?)",
            (before_s, at_once),
        ).rowcount
        if digests >= at_once:
            return [], True
        old = self._db.execute(
            "SELECT id, ledger, budget, scope, window_s, window FROM counters WHERE forgotten_after_s <= ? LIMIT ?",
            (before_s, at_once),
        ).fetchall()
        ids = [row[:1] for row in old]
        self._write_rows("DELETE FROM spends WHERE counter IN (VALUES", ")", ids)
        self._write_rows("DELETE FROM counters WHERE id IN (VALUES", ")", ids)
        return [row[1:] for row in old], len(old) >= at_once

    def _read(self, key: Key) -> Stored:
        row = self._db.execute(
            "SELECT id, spent, total FROM counters JOIN spends ON counter = id"
            " WHERE ledger = ? AND budget = ? AND scope = ? AND window_s = ? AND window = ?",
            key,
        ).fetchone()
        if row is None:
            return Stored()
        digests = {bytes(d) for (d,) in self._db.execute("SELECT digest FROM digests WHERE counter = ?", row[:1])}
        return Stored(int(row[0]), int(row[1]), int(row[2]), digests or None)

    def close(self) -> None:
        """Close the database, then let go of the file."""
        self._db.close()
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
