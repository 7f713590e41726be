"""Ledgers in a SQLite file, in an operator's hands. Semantics: `guard.state.books`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

from guard.errors import InvariantError, StateError
from guard.model.ledger import Account, Entry, Spend
from guard.state.counters import escaped, forgotten_after_s, unescaped
from guard.state.sqlite_file import LedgerFile
from guard.state.sqlite_journal import entries_of
from guard.state.sqlite_schema import PRIVACY_VERSION, version_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


class SqliteBooks:
    """`Books` of one file.

    Args:
        path: the file, which must be there.
        write: own it, which no guard may do meanwhile; otherwise it is opened for reading alone.

    Raises:
        StateError: it is not there, not a ledger of ours, damaged, or a guard's while it is to be written.
    """

    def __init__(self, path: str, *, write: bool) -> None:
        if not os.path.isfile(path):
            raise StateError(f"{path} is not there: no guard has kept a ledger in it yet")
        self._path = path
        self._file = LedgerFile(path) if write else None
        self._db = self._file.db if self._file is not None else _readable(path)

    async def ledgers(self) -> list[str]:
        """Return the names of all ledgers; see `guard.ports.Books`."""
        with self._snapshot() as privacy:
            terms = " UNION SELECT ledger FROM terms" if privacy else ""
            rows = self._db.execute(f"SELECT ledger FROM counters{terms}").fetchall()  # noqa: S608 - a constant
        return sorted({unescaped(str(name)) for (name,) in rows})

    async def accounts(self, ledger: str) -> list[Account]:
        """Return every counter of a ledger, all as of one moment; see `guard.ports.Books`."""
        with self._snapshot() as privacy:
            rows = self._db.execute(
                "SELECT id, budget, scope, window_s, window, spent, total FROM counters JOIN spends ON counter = id"
                " WHERE ledger = ?",
                (escaped(ledger),),
            ).fetchall()
            entries = entries_of(self._db, [row[0] for row in rows]) if privacy else {}
        return sorted(
            Account(
                unescaped(budget),
                unescaped(scope),
                window_s,
                window,
                Spend(spent, total),
                tuple(Entry(*entry) for entry in entries.get(id_, ())),
            )
            for id_, budget, scope, window_s, window, spent, total in rows
        )

    async def terms(self, ledger: str) -> bytes | None:
        """Return a ledger's terms; see `guard.ports.Books`."""
        with self._snapshot() as privacy:
            return self._terms(ledger) if privacy else None

    def _terms(self, ledger: str) -> bytes | None:
        row = self._db.execute("SELECT terms FROM terms WHERE ledger = ?", (escaped(ledger),)).fetchone()
        return None if row is None else bytes(row[0])

    async def rewrite(self, ledger: str, old: bytes | None, new: bytes | None, accounts: Sequence[Account]) -> bool:
        """Replace terms and accounts in one transaction, on the disk when this returns; see `guard.ports.Books`."""
        if self._file is None:
            raise InvariantError("books that were opened for reading are being written")
        with self._file.transaction(full=True):
            if self._terms(ledger) != old:
                return False
            if new is not None:
                self._db.execute("INSERT OR REPLACE INTO terms VALUES (?, ?)", (escaped(ledger), new))
            for account in accounts:
                self._put(ledger, account)
        return True

    def _put(self, ledger: str, account: Account) -> None:
        window_s, window = account.window_s, account.window
        key = (escaped(ledger), escaped(account.budget), escaped(account.scope), window_s, window)
        self._db.execute(
            "INSERT OR IGNORE INTO counters (ledger, budget, scope, window_s, window, forgotten_after_s)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (*key, forgotten_after_s(window_s, window) if window_s else None),
        )
        (counter,) = self._db.execute(
            "SELECT id FROM counters WHERE ledger = ? AND budget = ? AND scope = ? AND window_s = ? AND window = ?", key
        ).fetchone()
        self._db.execute("INSERT OR REPLACE INTO spends VALUES (?, ?, ?)", (counter, *account.spend))
        self._db.execute("DELETE FROM journal WHERE counter = ?", (counter,))
        self._db.execute("DELETE FROM checkpoints WHERE counter = ?", (counter,))
        self._db.executemany(
            "INSERT INTO checkpoints VALUES (?, ?, ?, ?)", [(counter, *entry) for entry in account.entries]
        )

    @contextlib.contextmanager
    def _snapshot(self) -> Generator[bool]:
        """Read as of one moment; gives whether the file has what privacy needs, as it had not in version 1."""
        try:
            self._db.execute("BEGIN")
            try:
                yield version_of(self._db, self._path) >= PRIVACY_VERSION
            finally:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StateError(f"{self._path} cannot be read: {error}") from error

    async def aclose(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        else:
            self._db.close()


def _readable(path: str) -> sqlite3.Connection:
    """Open a ledger for reading, whoever writes it meanwhile."""
    try:
        db = sqlite3.connect(
            f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, timeout=5.0, isolation_level=None
        )
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be opened: {error}") from error
    try:
        if not version_of(db, path):
            raise StateError(f"{path} is empty")
    except sqlite3.Error as error:
        db.close()
        raise StateError(f"{path} is not a ledger of guard's, or it is damaged: {error}") from error
    except StateError:
        db.close()
        raise
    return db
