"""A SQLite ledger in an operator's hands, beside a guard that serves and instead of one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from guard.errors import InvariantError, StateError
from guard.model.ledger import Account, Charge, Entry, Spend
from guard.state.books import open_books
from guard.state.sqlite import SqliteState
from guard.state.sqlite_books import SqliteBooks

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_700_000_040.0
EVENT = "gaussian(2.5)"


def private(rows: int = 1, scope: str = "client:a", window_s: int = 0) -> Charge:
    return Charge("privacy/client", scope, window_s, 10**9, 10 * rows, event=EVENT, rows=rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.db"


async def make(path: Path) -> None:
    state = SqliteState(str(path))
    await state.agree("m", b'{"a":1}')
    await state.charge("m", [private(2), private(3, window_s=60), Charge("rows/client", "x", 0, 9, 1)], NOW_S)
    await state.aclose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory:", "forgets them"),
        ("sqlite:", "no books"),
        ("mysql://u:secret@h", "no books"),
        ("sqlite:/nowhere/guard.db", "is not there"),
        ("redis://:secret@host:port", "cannot be understood"),
    ],
)
@pytest.mark.parametrize("write", [True, False])
def test_what_keeps_no_books_is_refused(url: str, said: str, write: bool) -> None:
    with pytest.raises(StateError, match=said) as caught:
        open_books(url, write=write)
    assert "secret" not in caught.value.message


async def test_nobody_can_write_while_a_guard_serves_and_anybody_can_read(path: Path) -> None:
    await make(path)
    state = SqliteState(str(path))
    with pytest.raises(StateError, match=rf"in use: another guard \(process {os.getpid()}\)"):
        open_books(f"sqlite:{path}", write=True)
    books = open_books(f"sqlite:{path}", write=False)
    await state.charge("m", [private(5)], NOW_S)
    (account,) = [account for account in await books.accounts("m") if account[:3] == ("privacy/client", "client:a", 0)]
    assert (account.spend, account.entries) == (Spend(70, 70), (Entry(EVENT, 7, 70),))
    with pytest.raises(InvariantError):
        await books.rewrite("m", None, b"{}", [])
    await books.aclose()
    await state.aclose()


async def test_a_guard_cannot_start_while_the_books_are_being_written(path: Path) -> None:
    await make(path)
    books = open_books(f"sqlite:{path}", write=True)
    with pytest.raises(StateError, match="in use"):
        SqliteState(str(path))
    await books.aclose()
    await SqliteState(str(path)).aclose()


async def test_reading_sees_one_moment_while_charges_go_on(path: Path) -> None:
    """Every call charges the client and the model alike: a reader who saw two moments would see them differ."""
    state = SqliteState(str(path))
    await state.charge("m", [private(1), private(1, "model")], NOW_S)

    async def charging() -> None:
        for i in range(200):
            calls = [state.charge("m", [private(j), private(j, "model")], NOW_S) for j in range(1, 4 + i % 5)]
            await asyncio.gather(*calls)

    load = asyncio.create_task(charging())
    seen: set[int] = set()
    books = SqliteBooks(str(path), write=False)
    while not load.done():
        client, model = await books.accounts("m")
        assert client[4:] == model[4:]
        assert client.spend.spent == sum(entry.amount for entry in client.entries)
        seen.add(client.spend.spent)
        await asyncio.sleep(0)
    await load
    assert len(seen) > 2
    await books.aclose()
    await state.aclose()


async def test_a_rewrite_replaces_terms_and_accounts(path: Path) -> None:
    await make(path)
    books = SqliteBooks(str(path), write=True)
    before = await books.accounts("m")
    lower = before[0]._replace(spend=Spend(0, 20), entries=(*before[0].entries, Entry("reset", 0, -20)))
    fresh = Account("privacy/model", "mod|el", 86_400, 19_675, Spend(5, 5), (Entry("migrated", 0, 5),))
    assert not await books.rewrite("m", None, b'{"a":2}', [lower])
    assert not await books.rewrite("m", b'{"a":0}', b'{"a":2}', [lower])
    assert await books.accounts("m") == before
    assert await books.rewrite("m", b'{"a":1}', b'{"a":2}', [lower, fresh])
    assert await books.accounts("m") == sorted([lower, *before[1:], fresh])
    assert await books.rewrite("other", None, b"{}", [])
    assert await books.ledgers() == ["m", "other"]
    await books.aclose()
    state = SqliteState(str(path))
    assert await state.terms("m") == b'{"a":2}'
    assert (await state.charge("m", [private(1)], NOW_S)).spends == (Spend(10, 30),)
    assert (await state.charge("m", [Charge("privacy/model", "mod|el", 86_400, 9, 4)], 19_675 * 86_400.0)).spends == (
        Spend(9, 9),
    )
    await state.aclose()


async def test_a_rewrite_that_fails_changes_nothing(path: Path) -> None:
    await make(path)
    books = SqliteBooks(str(path), write=True)
    before = await books.accounts("m")
    too_large = before[0]._replace(spend=Spend(2**70, 0))
    with pytest.raises(StateError):
        await books.rewrite("m", b'{"a":1}', b'{"a":2}', [before[1]._replace(spend=Spend(0, 0)), too_large])
    assert await books.accounts("m") == before
    assert await books.terms("m") == b'{"a":1}'
    await books.aclose()


@pytest.mark.parametrize(
    ("content", "write"),
    [(b"", False), (b"x", False), (b"x", True), (b"not a database " * 100, False), (b"not a database " * 100, True)],
)
def test_a_file_that_is_no_ledger_is_refused(path: Path, content: bytes, write: bool) -> None:
    path.write_bytes(content)
    with pytest.raises(StateError):
        SqliteBooks(str(path), write=write)


async def test_damage_is_an_error(path: Path) -> None:
    await make(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE journal")
    books = SqliteBooks(str(path), write=False)
    with pytest.raises(StateError, match="cannot be read"):
        await books.accounts("m")
    await books.aclose()
