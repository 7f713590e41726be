"""The SQLite file under privacy budgets: what is on the disk when, what is folded, and what version 1 becomes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from guard.errors import StateError
from guard.model.evidence import Delta
from guard.model.ledger import Charge, Entry, Spend
from guard.state.sqlite import SqliteState
from guard.state.sqlite_books import SqliteBooks
from guard.state.sqlite_file import Batch, LedgerFile
from guard.state.sqlite_journal import FOLDED_AT_ONCE, JOURNAL_ROWS

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_700_000_040.0
EVENT = "gaussian(2.5)"
VERSION_1 = """
BEGIN IMMEDIATE;
PRAGMA application_id = 1735745906;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema_version', 1), ('pings', 0);
CREATE TABLE counters (
    id INTEGER PRIMARY KEY, ledger TEXT NOT NULL, budget TEXT NOT NULL, scope TEXT NOT NULL,
    window_s INTEGER NOT NULL, window INTEGER NOT NULL, forgotten_after_s INTEGER,
    UNIQUE (ledger, budget, scope, window_s, window));
CREATE INDEX counters_forgotten ON counters (forgotten_after_s) WHERE forgotten_after_s IS NOT NULL;
CREATE TABLE spends (counter INTEGER PRIMARY KEY, spent INTEGER NOT NULL, total INTEGER NOT NULL);
CREATE TABLE digests (counter INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (counter, digest)) WITHOUT ROWID;
COMMIT;
INSERT INTO counters VALUES (7, 'm', 'rows/client', 'client:a', 0, 0, NULL);
INSERT INTO spends VALUES (7, 41, 41);
"""
"""What a guard of schema version 1 wrote, word for word, with one counter in it."""


def private(rows: int = 1, window_s: int = 0, event: str = EVENT, scope: str = "client:a") -> Charge:
    return Charge("privacy/client", scope, window_s, 10**9, 10 * rows, event=event, rows=rows)


def plain(amount: int = 1) -> Charge:
    return Charge("rows/client", "client:a", 0, 10**9, amount)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.db"


def query(path: Path, sql: str) -> list[tuple[int, ...]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql).fetchall()


def content(path: Path) -> bytes:
    return path.read_bytes()


async def entries(path: Path) -> list[tuple[Spend, tuple[Entry, ...]]]:
    books = SqliteBooks(str(path), write=False)
    accounts = await books.accounts("m")
    await books.aclose()
    return [(account.spend, account.entries) for account in accounts if account.budget == "privacy/client"]


# -- what is on the disk when ------------------------------------------------------------------------------------------


def test_only_what_privacy_needs_waits_for_the_disk(path: Path) -> None:
    file = LedgerFile(str(path))
    said: list[str] = []
    file.db.set_trace_callback(said.append)
    new: list[tuple[object, ...]] = [(1, "m", "privacy/client", "client:a", 0, 0, None)]
    file.write(Batch(new=new, spends=[(1, 10, 10)], entries=[(1, EVENT, 1, 10)]))
    assert not [line for line in said if "synchronous" in line]  # it is opened under FULL
    file.write(Batch(spends=[(1, 10, 11)]))
    assert [line for line in said if "synchronous" in line] == ["PRAGMA synchronous = NORMAL"]
    file.write(Batch(spends=[(1, 20, 21)], entries=[(1, EVENT, 1, 10)]))
    file.agree("m", b"{}")
    changes = [line for line in said if "synchronous" in line or line == "COMMIT"]
    assert changes[-3:] == ["PRAGMA synchronous = FULL", "COMMIT", "COMMIT"]
    assert file.db.execute("PRAGMA synchronous").fetchone() == (2,)
    file.close()


async def test_a_commit_that_fails_enters_nothing(path: Path) -> None:
    same_slot = b"\1" + bytes(15)
    state = SqliteState(str(path))
    await state.charge("m", [private(1)], NOW_S)
    await state.remember("m", [(bytes(16), b"old")])
    await state.charge("m", [private(1)], NOW_S)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await state.remember("m", [(same_slot, b"new")])
        under_way = asyncio.ensure_future(state.charge("m", [private(1)], NOW_S))
        for _ in range(3):
            await asyncio.sleep(0)  # the writer has taken its batch by then, so that the second is of the next one
        waits = state.charge("m", [private(1)], NOW_S)
        results = await asyncio.gather(under_way, waits, return_exceptions=True)
        assert [str(result) for result in results] == ["budgets cannot be written"] * 2
        with pytest.raises(StateError, match="cannot be written"):
            await state.agree("m", b"{}")
        other.execute("ROLLBACK")
    assert await state.recall("m", [bytes(16)]) == [b"old"]
    assert await state.recall("m", [same_slot]) == [None]
    assert await state.terms("m") is None
    await state.ping()  # writes whatever would still be waiting
    await state.charge("m", [private(1)], NOW_S)
    await state.aclose()
    assert await entries(path) == [(Spend(30, 30), (Entry(EVENT, 3, 30),))]


async def test_what_is_remembered_last_is_written_when_the_state_closes(path: Path) -> None:
    state = SqliteState(str(path))
    await state.remember("m", [(bytes(16), b"one")])
    await state.aclose()
    with pytest.raises(StateError, match="closed"):
        await state.recall("m", [bytes(16)])
    state = SqliteState(str(path))
    assert await state.recall("m", [bytes(16)]) == [b"one"]
    await state.aclose()


async def test_releases_that_wait_are_bounded(path: Path) -> None:
    state = SqliteState(str(path))
    releases = [(i.to_bytes(16, "big"), bytes(16_000)) for i in range(2200)]
    with pytest.raises(StateError, match="too many releases"):
        await state.remember("m", releases)
    await state.charge("m", [plain()], NOW_S)
    await state.remember("m", releases[:9])
    assert await state.recall("m", [releases[0][0]]) == [bytes(16_000)]
    await state.aclose()


# -- the journal -------------------------------------------------------------------------------------------------------


async def test_a_journal_stays_bounded_and_says_the_same(path: Path) -> None:
    state = SqliteState(str(path))
    calls = JOURNAL_ROWS + 3 * FOLDED_AT_ONCE
    for start in range(0, calls, 512):
        charges = [private(1 + i % 2, event=f"pure(0.{i % 5})") for i in range(start, start + 512)]
        await asyncio.gather(*[state.charge("m", [charge], NOW_S) for charge in charges])
        ((rows,),) = query(path, "SELECT count(*) FROM journal")
        assert rows < JOURNAL_ROWS + FOLDED_AT_ONCE + 512
    await state.aclose()
    ((folded,),) = query(path, "SELECT sum(rows) FROM checkpoints")
    assert 0 < folded < 1.5 * calls
    ((spend, found),) = await entries(path)
    assert spend.spent == 15 * calls == sum(entry.amount for entry in found)
    assert [entry.event for entry in found] == [f"pure(0.{i})" for i in range(5)]


async def test_old_periods_take_their_journal_with_them(path: Path) -> None:
    state = SqliteState(str(path))
    for i in range(3):
        await state.charge("m", [private(1, window_s=60, scope=f"client:{i}"), private(2)], NOW_S)
    await state.aclose()
    books = SqliteBooks(str(path), write=True)
    assert await books.rewrite("m", None, None, (await books.accounts("m"))[:2])  # which makes checkpoints of them
    await books.aclose()
    state = SqliteState(str(path))
    await state.charge("m", [private(3)], NOW_S + 240)
    await state.aclose()
    assert await entries(path) == [(Spend(90, 90), (Entry(EVENT, 9, 90),))]
    for table in ("journal", "checkpoints"):
        assert query(path, f"SELECT DISTINCT counter FROM {table} EXCEPT SELECT id FROM counters") == []


async def test_a_late_charge_on_a_period_that_is_being_dropped_keeps_its_journal(path: Path) -> None:
    state = SqliteState(str(path))
    await state.charge("m", [private(3, window_s=60)], NOW_S)
    await state.spend("m", private(window_s=60), NOW_S)

    async def a_turn_later() -> None:
        await asyncio.sleep(0)  # the writer has taken its batch by then, and cannot have been told that it is written
        await state.charge("m", [private(1, 60, "pure(0.1)")], NOW_S)

    await asyncio.gather(state.charge("m", [plain()], NOW_S + 240), a_turn_later())
    await state.aclose()
    assert await entries(path) == [(Spend(40, 40), (Entry(EVENT, 3, 30), Entry("pure(0.1)", 1, 10)))]


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def version_1(path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(VERSION_1)
    return path


async def test_a_ledger_of_version_1_keeps_what_is_in_it_and_takes_privacy(version_1: Path) -> None:
    for number in range(2):
        state = SqliteState(str(version_1))
        assert (await state.charge("m", [plain(), private(2)], NOW_S)).spends[0] == Spend(42 + number, 42 + number)
        assert await state.agree("m", b"%d" % number) == b"0"
        await state.aclose()
    assert await entries(version_1) == [(Spend(40, 40), (Entry(EVENT, 4, 40),))]
    assert query(version_1, "SELECT value FROM meta WHERE name = 'schema_version'") == [(3,)]


async def test_a_ledger_of_version_2_keeps_what_is_in_it_and_takes_records(path: Path) -> None:
    state = SqliteState(str(path))
    await state.charge("m", [plain(), private(2)], NOW_S)
    await state.agree("m", b"terms")
    await state.aclose()
    query(path, "DROP TABLE records")
    query(path, "UPDATE meta SET value = 2 WHERE name = 'schema_version'")
    books = SqliteBooks(str(path), write=False)
    assert (await books.ledgers(), await books.terms("m"), len(await books.accounts("m"))) == (["m"], b"terms", 2)
    await books.aclose()
    state = SqliteState(str(path))
    (record,) = await state.merge("marks/m", [Delta("a", {1: 1}, {4: 9})], NOW_S)
    assert (record.counts, record.marks) == ({1: 1}, {4: 9})
    assert await state.agree("m", b"others") == b"terms"
    await state.aclose()
    assert query(path, "SELECT value FROM meta WHERE name = 'schema_version'") == [(3,)]


async def test_a_ledger_of_version_1_can_be_read_as_it_is(version_1: Path) -> None:
    before = content(version_1)
    books = SqliteBooks(str(version_1), write=False)
    assert await books.ledgers() == ["m"]
    (account,) = await books.accounts("m")
    assert (account.spend, account.entries, await books.terms("m")) == (Spend(41, 41), (), None)
    await books.aclose()
    assert content(version_1) == before


async def test_a_version_1_that_cannot_be_upgraded_stays_as_it_is(version_1: Path) -> None:
    query(version_1, "CREATE TABLE journal (theirs)")
    with pytest.raises(StateError, match="damaged"):
        SqliteState(str(version_1))
    assert query(version_1, "SELECT value FROM meta WHERE name = 'schema_version'") == [(1,)]
    assert query(version_1, "SELECT count(*) FROM sqlite_schema WHERE name = 'terms'") == [(0,)]
