"""The three states behind one interface, for suites that every state runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.state.books import open_books
from guard.state.memory import MemoryState
from guard.state.open import open_state
from guard.state.sqlite import SqliteState

if TYPE_CHECKING:
    from pathlib import Path

    from guard.model.ledger import Account
    from guard.ports import State

KINDS = ("memory", "sqlite", "sqlite-small", "redis")


@dataclass(frozen=True)
class Store:
    """Where one kind of state keeps ledgers.

    Args:
        kind: `sqlite-small` has a mirror that never holds what is used next.
        directory: of SQLite's files, one for each name.
        redis: URL of the server.
    """

    kind: str
    directory: Path
    redis: str

    def url(self, name: str) -> str:
        """What names the ledgers of `name` to `open_state` and `open_books`."""
        if self.kind == "redis":
            return self.redis
        return "memory:" if self.kind == "memory" else f"sqlite:{self.directory / name}.db"

    def open(self, name: str) -> State:
        """Open a state by the name of a ledger: the same name opens the same counters again, except in memory."""
        if self.kind == "sqlite-small":
            return SqliteState(f"{self.directory / name}.db", max_mirrored=1)
        return open_state(self.url(name))

    async def accounts(self, state: State, name: str) -> list[Account]:
        """Return a ledger's accounts as an operator sees them while `state` serves."""
        if isinstance(state, MemoryState):
            return await state.accounts(name)
        books = open_books(self.url(name), write=False)
        try:
            return await books.accounts(name)
        finally:
            await books.aclose()
