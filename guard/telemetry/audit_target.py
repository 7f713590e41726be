"""Where an audit log is written, and when: what its writer asks of a file, a pipe or a syslog server."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from guard.telemetry.audit_chain import Chain


class Origin(NamedTuple):
    """Where a chain goes on.

    Args:
        chain: its end.
        log: the log's id; empty for one that begins.
        found: for the start line: `state` is `new`, `clean`, `crash` (with `unsigned` lines and `torn_bytes`) or
            `mismatch` (with the `problem`), `other_key` (with the `key`: Guard's secret has changed, or somebody else
            has written it).
    """

    chain: Chain
    log: str
    found: dict[str, object]


class Target(Protocol):
    """Where lines are written; every method may block and raises OSError."""

    @property
    def origin(self) -> Origin:
        """Where the chain goes on."""
        ...

    @property
    def full(self) -> bool:
        """Whether `rotate` should be called."""
        ...

    def write(self, data: bytes) -> None:
        """Write whole lines; what was not written will be asked for again, in the same bytes."""
        ...

    def sync(self, head: bytes) -> None:
        """Bring what was written to where it stays, and keep the head."""
        ...

    def rotate(self) -> int:
        """Begin a new file; return the number of the oldest line that is kept from now on."""
        ...

    def prune(self) -> None:
        """Delete what is not kept."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Pace(NamedTuple):
    """When things are done.

    Args:
        gather_s: how long entries gather before they are written.
        sync_s: what was written is brought to the disk, and the head signed, at most so often.
        retry_s: from a failure to the next try.
        patience_s: how long an entry may wait before there is no room for others; and what the end may take.
        checkpoint_lines: a signature comes after so many lines.
        checkpoint_s: and after so long, if there were any.
    """

    gather_s: float = 0.1
    sync_s: float = 1.0
    retry_s: float = 0.5
    patience_s: float = 5.0
    checkpoint_lines: int = 1000
    checkpoint_s: float = 60.0


PACE = Pace()
