"""The operator's way into ledgers: `guard budget` and `guard audit` read them, and rewrite them, by this.

* Reading disturbs nobody, and works while guards serve. SQLite: one consistent snapshot of the file. Redis: the keys
  are found by SCAN, and read by scripts of a bounded number of counters each; a counter is always consistent with its
  own journal, and the counters of one script with each other.
* Rewriting compares and sets: nothing is changed unless the terms, and the spends of the accounts that are rewritten,
  are still what the caller has read. SQLite: the file must be nobody else's, so guards stop first. Redis: one script.
  A guard that was told the old terms charges no privacy from then on until it agrees to the new ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.errors import StateError
from guard.state.open import REDIS_SCHEMES

if TYPE_CHECKING:
    from guard.ports import Books


def open_books(url: str, *, write: bool) -> Books:
    """Open the ledgers of the state that `url` names.

    Args:
        url: as for `guard.state.open.open_state`.
        write: `rewrite` will be called; only reading is possible otherwise.

    Raises:
        StateError: there are none, they are not to be had, or (SQLite, to write) a guard has them.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest:
        from guard.state.sqlite_books import SqliteBooks  # noqa: PLC0415 - imported when used

        return SqliteBooks(rest, write=write)
    if scheme in REDIS_SCHEMES:
        from guard.state.redis_books import RedisBooks  # noqa: PLC0415 - imported when used

        return RedisBooks(url, write=write)
    if scheme == "memory":
        raise StateError("memory: keeps its ledgers inside the guard that serves, and forgets them with it")
    raise StateError(f"there are no books to open: a state is sqlite:PATH or {'://, '.join(REDIS_SCHEMES)}://")
