"""Which state a URL names. Adapters are imported only when used: `memory:` needs no SQLite, neither needs Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.errors import StateError

if TYPE_CHECKING:
    from guard.ports import State

REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def open_state(url: str) -> State:
    """Open the state that `url` names.

    Args:
        url: `memory:`, `sqlite:PATH`, `redis://…`, `rediss://…`, `redis+sentinel://host:port,…/service[/db]` or
            `redis+cluster://host:port,…` (`rediss+…` for TLS).

    Raises:
        StateError: unknown scheme; for SQLite also a file that cannot be used. Redis is not asked yet: `ping` does.

    >>> type(open_state("memory:")).__name__
    'MemoryState'
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory":
        from guard.state.memory import MemoryState  # noqa: PLC0415 - imported when used

        return MemoryState()
    if colon and scheme == "sqlite":
        if not rest:
            raise StateError("sqlite: needs a path, such as sqlite:guard.db")
        from guard.state.sqlite import SqliteState  # noqa: PLC0415 - imported when used

        return SqliteState(rest)
    if colon and scheme in REDIS_SCHEMES:
        from guard.state.redis import RedisState  # noqa: PLC0415 - imported when used

        return RedisState(url)
    # The URL itself may hold a password: only what stands before the colon is repeated, and only where there is one.
    named = f"{scheme!r} is unknown" if colon else "it has no scheme"
    raise StateError(f"a state is memory:, sqlite:PATH or {'://, '.join(REDIS_SCHEMES)}://; {named}")
