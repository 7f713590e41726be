"""Splitting a stream of bytes into events: server-sent events, and newline-delimited JSON. Pure, bounded.

Whatever the pieces in which the bytes arrive, the events are the same.
"""

from __future__ import annotations

from typing import Protocol

from guard.wire.base import Event, Framing


class Splitter(Protocol):
    """Takes bytes, gives events."""

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes as they come and return the events that are complete.

        Raises:
            UpstreamError: code `unreadable_answer`: an event is longer than the bound.
        """
        ...

    def end(self) -> list[Event]:
        """Return what the end of the stream completes: a last line of NDJSON; never half a server-sent event."""
        ...


def splitter(framing: Framing, most_bytes: int) -> Splitter:
    """Return the splitter for a framing.

    Args:
        framing: how events stand in the stream.
        most_bytes: of one event, framing included.
    """
    raise NotImplementedError
