"""Splitting a stream of bytes into events: server-sent events, and newline-delimited JSON. Pure, bounded.

Whatever the pieces in which the bytes arrive, the events are the same, and so is the event that is too long: what came
before it is handed out first, then every call fails. A byte is looked at once, however small the pieces: what waits for
the end of its line is never searched again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, assert_never

from guard.errors import UpstreamError
from guard.wire.base import Event, Framing

_STEP_BYTES = 64 * 1024  # Bounds the lists of lines, however large the pieces are.
_BOM = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Takes bytes, gives events."""

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes as they come and return the events that are complete.

        Raises:
            UpstreamError: code `unreadable_answer`: an event is longer than the bound.
        """
        ...

    def end(self) -> list[Event]:
        """Return what the end of the stream completes: a last line of NDJSON; never half a server-sent event.

        Raises:
            UpstreamError: as for `feed`.
        """
        ...


def splitter(framing: Framing, most_bytes: int) -> Splitter:
    r"""Return the splitter for a framing.

    Args:
        framing: how events stand in the stream.
        most_bytes: of one event, framing included; a line end counts as one byte.

    >>> events = splitter("sse", 1000)
    >>> events.feed(b"event: ping\r\ndata: 1\r"), events.feed(b"\ndata: 2\n\ndata: 3")
    ([], [Event(data=b'1\n2', name=b'ping')])
    >>> lines = splitter("ndjson", 1000)
    >>> lines.feed(b'{"a":1}\r\n\n{"a"'), lines.feed(b":2}"), lines.end()
    ([Event(data=b'{"a":1}', name=b'')], [], [Event(data=b'{"a":2}', name=b'')])
    """
    match framing:
        case "sse":
            return _ServerSent(most_bytes)
        case "ndjson":
            return _Lines(most_bytes)
        case _:
            assert_never(framing)


class _TooLong(Exception):
    pass


def _steps(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), _STEP_BYTES):
        yield bytes(view[start : start + _STEP_BYTES])


def _too_long() -> UpstreamError:
    return UpstreamError("upstream sent an event that is too long", code="unreadable_answer")


class _Bounded:
    """What both framings share: the unfinished line, and an error that waits until the events before it are out."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._line = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        if self._broken:
            raise _too_long()
        events: list[Event] = []
        try:
            if len(data) <= _STEP_BYTES:
                self._take(data, events)
            else:
                for step in _steps(data):
                    self._take(step, events)
        except _TooLong:
            self._broken = True
            if not events:
                raise _too_long() from None
        return events

    def _take(self, data: bytes, events: list[Event]) -> None:
        raise NotImplementedError


class _Lines(_Bounded):
    """Newline-delimited JSON."""

    def end(self) -> list[Event]:
        """Return the last line, if it lacks its line feed."""
        if self._broken:
            raise _too_long()
        line = bytes(self._line).strip(b" \t\r")
        self._line.clear()
        return [Event(line)] if line else []

    def _take(self, data: bytes, events: list[Event]) -> None:
        *lines, rest = data.split(b"\n")
        if lines and self._line:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        for line in lines:
            if len(line) >= self._most_bytes:
                raise _TooLong
            if line := line.strip(b" \t\r"):
                events.append(Event(line))
        if len(self._line) + len(rest) > self._most_bytes:
            raise _TooLong
        self._line.extend(rest)


class _ServerSent(_Bounded):
    """Server-sent events, as WHATWG HTML section 9.2 reads them; `id` and `retry` are nothing to Guard."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(most_bytes)
        self._start: bytes | None = b""  # The stream's first bytes, as long as they may be a byte order mark.
        self._after_cr = False
        self._data: bytes | bytearray | None = None
        self._name = b""
        self._size = 0  # Of the finished lines since the last blank one.

    def end(self) -> list[Event]:
        """Return nothing: an event that its blank line does not end is dropped."""
        if self._broken:
            raise _too_long()
        return []

    def _take(self, data: bytes, events: list[Event]) -> None:
        if self._start is not None and not (data := self._begun(data)):
            return
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if not data:
            return
        lines = data.splitlines()  # Of bytes: at LF, CR and CRLF, and nowhere else.
        last = data[-1]
        rest = b"" if last in (10, 13) else lines.pop()
        self._after_cr = last == 13
        if lines and self._line:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        for line in lines:
            self._size += len(line) + 1
            if self._size > self._most_bytes:
                raise _TooLong
            if line:
                self._field(line)
            else:
                self._dispatch(events)
        if rest:
            if self._size + len(self._line) + len(rest) > self._most_bytes:
                raise _TooLong
            self._line.extend(rest)

    def _begun(self, data: bytes) -> bytes:
        data = (self._start or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._start = data
            return b""
        self._start = None
        return data.removeprefix(_BOM)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            if self._data is None:
                self._data = value
                return
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += b"\n"
            self._data += value
        elif name == b"event":
            self._name = value

    def _dispatch(self, events: list[Event]) -> None:
        if self._data is not None:
            events.append(Event(bytes(self._data), self._name))
        self._data = None
        self._name = b""
        self._size = 0
