"""The SQLite file: whose it is, what is refused, what is dropped, and what a failed commit leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from guard.errors import StateError
from guard.model.evidence import Delta
from guard.model.ledger import Admission, Charge, Spend
from guard.state.sqlite import SqliteState

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_700_000_040.0


def rows(amount: int = 1, scope: str = "client:a", window_s: int = 0) -> Charge:
    return Charge("rows/client", scope, window_s, 10_000, amount)


def graded(*digests: int, window_s: int = 0) -> Charge:
    paid = tuple(d.to_bytes(16, "big") for d in digests)
    return Charge("information/client", "client:a", window_s, 10_000, len(paid), digests=paid)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.db"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        return db.execute(sql).fetchall()


async def make(path: Path) -> None:
    state = SqliteState(str(path))
    await state.charge("m", [rows(3)], NOW_S)
    await state.aclose()


async def test_a_second_owner_is_refused_until_the_first_has_closed(path: Path) -> None:
    state = SqliteState(str(path))
    with pytest.raises(StateError, match=rf"guard\.db is in use: another guard \(process {os.getpid()}\) has it"):
        SqliteState(str(path))
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StateError, match="another guard"):
        SqliteState(str(link))
    await state.aclose()
    await SqliteState(str(path)).aclose()


@pytest.fixture
def readable_path(path: Path) -> Path:
    path.touch(mode=0o644)
    return path


async def test_only_the_owner_can_read_the_files(readable_path: Path) -> None:
    path = readable_path
    state = SqliteState(str(path))
    await state.charge("m", [rows()], NOW_S)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert set(modes) >= {"guard.db", "guard.db-wal", "guard.db.lock"}
    assert set(modes.values()) == {0o600}
    await state.aclose()


async def test_spends_and_paid_queries_are_there_after_reopening(path: Path) -> None:
    state = SqliteState(str(path))
    await state.charge("m", [rows(3), graded(1, 2)], NOW_S)
    await state.aclose()
    state = SqliteState(str(path))
    assert await state.spend("m", rows(), NOW_S) == Spend(3, 3)
    receipt = await state.charge("m", [rows(2), graded(1, 2, 3)], NOW_S)
    assert receipt.spends == (Spend(5, 5), Spend(3, 3))
    await state.aclose()


@pytest.mark.parametrize("content", [b"x", b"not a database " * 100, b"SQLite format 3\0" + b"\0" * 4000])
def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"guard\.db is not a ledger of guard's, or it is damaged"):
        SqliteState(str(path))
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    query(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(StateError, match=r"guard\.db is not a ledger of guard's: it belongs to another program"):
        SqliteState(str(path))
    assert path.read_bytes() == before


async def test_another_schema_version_is_refused(path: Path) -> None:
    await make(path)
    query(path, "UPDATE meta SET value = 4 WHERE name = 'schema_version'")
    with pytest.raises(StateError, match=r"guard\.db has schema version 4; this guard reads version 3"):
        SqliteState(str(path))
    query(path, "DROP TABLE meta")
    with pytest.raises(StateError, match="damaged"):
        SqliteState(str(path))


def test_a_damaged_page_is_an_error_and_not_a_refund(path: Path) -> None:
    asyncio.run(make(path))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"guard\.db"):
        SqliteState(str(path))


async def test_damage_found_while_serving_is_an_error(path: Path) -> None:
    await make(path)
    state = SqliteState(str(path))
    query(path, "DROP TABLE spends")
    with pytest.raises(StateError, match="budgets cannot be read"):
        await state.charge("m", [rows(1, "client:new")], NOW_S)
    await state.aclose()


@pytest.mark.parametrize("name", ["missing/guard.db", ".", "a\0b"])
def test_a_path_that_cannot_be_opened_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StateError, match="cannot be opened"):
        SqliteState(f"{tmp_path}/{name}")


def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StateError, match="cannot be opened"):
        SqliteState(str(path))
    path.rmdir()
    SqliteState(str(path))


async def test_a_commit_that_fails_charges_nobody(path: Path) -> None:
    state = SqliteState(str(path))
    await state.charge("m", [rows(3)], NOW_S)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        calls = [state.charge("m", [rows(1)], NOW_S), state.charge("m", [rows(1, "client:b")], NOW_S), state.ping()]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [StateError] * 3
        other.execute("ROLLBACK")
    assert await state.spend("m", rows(), NOW_S) == Spend(3, 3)
    assert (await state.charge("m", [rows(1)], NOW_S)).spends == (Spend(4, 4),)
    await state.aclose()
    assert query(path, "SELECT spent, total FROM spends") == [(4, 4)]


async def test_a_number_too_large_for_the_file_charges_nobody(path: Path) -> None:
    state = SqliteState(str(path))
    with pytest.raises(StateError):
        await state.charge("m", [Charge("rows/client", "client:a", 0, 2**70, 2**65)], NOW_S)
    assert (await state.charge("m", [rows(1)], NOW_S)).spends == (Spend(1, 1),)
    await state.aclose()


async def test_a_closed_state_charges_nothing(path: Path) -> None:
    state = SqliteState(str(path))
    pending = asyncio.ensure_future(state.ping())
    await asyncio.sleep(0)
    await state.aclose()
    await pending
    for call in (state.charge("m", [rows()], NOW_S), state.spend("m", rows(), NOW_S), state.ping()):
        with pytest.raises(StateError, match="closed"):
            await call


async def test_more_waiting_calls_than_allowed_are_refused(path: Path) -> None:
    state = SqliteState(str(path), max_waiting=3)
    await state.charge("m", [rows()], NOW_S)
    results = await asyncio.gather(*[state.charge("m", [rows()], NOW_S) for _ in range(9)], return_exceptions=True)
    refused = sum(isinstance(result, StateError) for result in results)
    assert refused == 6
    assert await state.spend("m", rows(), NOW_S) == Spend(4, 4)
    await state.aclose()


async def test_a_writer_that_is_cancelled_leaves_nobody_waiting(path: Path) -> None:
    state = SqliteState(str(path))
    call = asyncio.ensure_future(state.ping())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    (writer,) = asyncio.all_tasks() - {asyncio.current_task(), call}
    writer.cancel()
    with pytest.raises(StateError, match="stopped writing"):
        await call
    await state.ping()
    await state.aclose()


async def test_old_windows_leave_the_file_bit_by_bit(path: Path) -> None:
    state = SqliteState(str(path))
    scopes = [f"client:{i}" for i in range(1200)]
    await asyncio.gather(*[state.charge("m", [rows(1, scope, 60)], NOW_S) for scope in scopes])
    await state.charge("m", [graded(*range(900), window_s=60), rows(1, "for ever")], NOW_S)
    assert query(path, "SELECT count(*) FROM counters") == [(1202,)]
    left: list[object] = []
    while not left or left[-1] != 2:
        await state.charge("m", [rows(1, "client:0", 60)], NOW_S + 240)
        left.append(query(path, "SELECT count(*) FROM counters")[0][0])
    assert len(left) >= 3
    assert query(path, "SELECT count(*) FROM digests") == [(0,)]
    assert query(path, "SELECT count(*) FROM spends") == [(2,)]
    assert await state.spend("m", rows(1, "for ever"), NOW_S + 240) == Spend(1, 1)
    assert (await state.spend("m", rows(1, "client:0", 60), NOW_S + 240)).spent == len(left)
    await state.aclose()


async def while_writing(path: Path, max_mirrored: int, first_s: float) -> Spend:
    """Charge a mirrored counter while a batch of `first_s` is being written; return what the file then has."""
    state = SqliteState(str(path), max_mirrored=max_mirrored)
    await state.charge("m", [rows(3, window_s=60)], NOW_S)
    await state.spend("m", rows(window_s=60), NOW_S)

    async def a_turn_later() -> None:
        await asyncio.sleep(0)  # the writer has taken its batch by then, and cannot have been told that it is written
        await state.charge("m", [rows(1, window_s=60)], NOW_S)

    await asyncio.gather(state.charge("m", [rows(1, "client:b", 60)], first_s), a_turn_later())
    await state.aclose()
    state = SqliteState(str(path))
    spend = await state.spend("m", rows(window_s=60), NOW_S)
    await state.aclose()
    return spend


async def test_a_late_charge_on_a_window_that_is_being_dropped_is_written_anew(path: Path) -> None:
    assert await while_writing(path, 1000, first_s=NOW_S + 240) == Spend(4, 4)
    assert query(path, "SELECT count(*) FROM counters") == [(2,)]


async def test_a_counter_that_is_being_changed_stays_in_a_mirror_that_is_full(path: Path) -> None:
    assert await while_writing(path, 0, first_s=NOW_S) == Spend(4, 4)


async def test_a_scope_larger_than_the_mirror_is_charged_all_the_same(path: Path) -> None:
    state = SqliteState(str(path), max_mirrored=5)
    for _ in range(2):
        receipts = await asyncio.gather(
            *[state.charge("m", [graded(*range(20)), rows(1, f"client:{i}")], NOW_S) for i in range(10)]
        )
        assert {receipt.admission for receipt in receipts} == {Admission.ALLOW}
    assert (await state.spend("m", graded(), NOW_S)) == Spend(20, 20)
    await state.aclose()


async def test_two_scopes_larger_than_the_mirror_do_not_push_each_other_out_for_ever(path: Path) -> None:
    state = SqliteState(str(path), max_mirrored=5)
    client, group = graded(*range(20)), graded(*range(20))._replace(scope="group:g")
    async with asyncio.timeout(20):
        for _ in range(3):
            await state.charge("m", [client], NOW_S)
            await state.charge("m", [group], NOW_S)
            await state.spend("m", client, NOW_S)  # one is there, the other is not
            receipt = await state.charge("m", [client, group], NOW_S)
            assert receipt.spends == (Spend(20, 20), Spend(20, 20))
    await state.aclose()


# -- clients' records --------------------------------------------------------------------------------------------------

KEPT_S = 30 * 86_400


async def test_records_that_were_not_added_to_for_a_month_leave_the_file(path: Path) -> None:
    state = SqliteState(str(path))
    await state.merge("marks/m", [Delta(f"c{i}", {1: 1}) for i in range(600)], NOW_S)
    await state.merge("marks/m", [Delta("later", {1: 1})], NOW_S + KEPT_S)
    await state.merge("marks/m", [Delta("later", {1: 1})], NOW_S + KEPT_S + 1)
    await state.ping()
    await state.aclose()
    assert query(path, "SELECT key FROM records") == [("later",)]


async def test_a_read_of_records_writes_nothing(path: Path) -> None:
    state = SqliteState(str(path))
    await state.merge("marks/m", [Delta("a", {1: 1})], NOW_S)
    before = (
        query(path, "SELECT total_changes(), (SELECT count(*) FROM records)"),
        path.with_name("guard.db-wal").stat(),
    )
    await state.merge("marks/m", [Delta("a"), Delta("b")], NOW_S)
    after = query(path, "SELECT total_changes(), (SELECT count(*) FROM records)"), path.with_name("guard.db-wal").stat()
    assert (before[0], before[1].st_size, before[1].st_mtime_ns) == (after[0], after[1].st_size, after[1].st_mtime_ns)
    await state.aclose()


async def test_a_merge_that_fails_has_added_nothing(path: Path) -> None:
    state = SqliteState(str(path))
    await state.merge("marks/m", [Delta("a", {1: 1})], NOW_S)
    query(path, "ALTER TABLE records RENAME TO hidden")
    with pytest.raises(StateError):
        await state.merge("marks/m", [Delta("a", {1: 1})], NOW_S)
    with pytest.raises(StateError):
        await state.merge("marks/m", [Delta("a")], NOW_S)
    query(path, "ALTER TABLE hidden RENAME TO records")
    (record,) = await state.merge("marks/m", [Delta("a", {1: 1})], NOW_S)
    assert record.counts == {1: 2}
    await state.aclose()
