"""Stores of every kind, for the suites that all states run."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.support.states import KINDS, Store
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from guard.ports import State

_ledgers = (f"ledger-{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey"), "--appendonly", "no") as server:
        yield server


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    kind = str(request.param)
    server: Valkey | None = request.getfixturevalue("valkey") if kind == "redis" else None
    return Store(kind, tmp_path, server.url if server is not None else "")


@pytest.fixture
def ledger() -> str:
    return next(_ledgers)


@pytest.fixture
async def state(store: Store, ledger: str) -> AsyncIterator[State]:
    opened = store.open(ledger)
    yield opened
    await opened.aclose()
