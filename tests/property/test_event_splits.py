"""However a stream is split, its events are the same: those of a second reading, written as the standard says it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hypothesis import event, given
from hypothesis import strategies as st

from guard.errors import UpstreamError
from guard.wire.base import Event, Framing
from guard.wire.events import splitter
from tests.support.pieces import byte_by_byte, split

MOST = 40

framings: st.SearchStrategy[Framing] = st.sampled_from(("sse", "ndjson"))
parts: st.SearchStrategy[bytes] = st.sampled_from(
    [
        b"data: {}\n\n",
        b"data:",
        b"data",
        b"data: ",
        b"event: e",
        b"event",
        b"id: 1\0",
        b"retry: 5",
        b": comment",
        b":",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n" * 90,
        b"\r" * 90,
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xff\xfe",
        b"\0",
        b"\x0b\x0c\x1c\x85",
        b"\xe2\x80\xa8",
        b" ",
        b'{"a":1}',
        b"x" * 35,
        b"y" * 120,
    ]
)
streams: st.SearchStrategy[bytes] = st.one_of(
    st.lists(parts, max_size=14).map(b"".join), st.binary(max_size=80), st.lists(st.binary(max_size=9)).map(b"\n".join)
)


def events_of(framing: Framing, pieces: Iterable[bytes]) -> tuple[list[Event], bool]:
    """Return the events, and whether the stream ended well."""
    events = splitter(framing, MOST)
    found: list[Event] = []
    try:
        for piece in pieces:
            found += events.feed(piece)
            assert held(events) <= MOST
        found += events.end()
    except UpstreamError as error:
        return found, error.code != "unreadable_answer"
    return found, True


def held(events: object) -> int:
    """Return how many bytes wait in a splitter."""
    waiting = (getattr(events, name, None) for name in ("_line", "_data", "_name", "_start"))
    return sum(len(each) for each in waiting if each is not None)


def standard(data: bytes) -> tuple[list[Event], bool]:
    """Read server-sent events as WHATWG HTML 9.2.6 words it, line by line."""
    found: list[Event] = []
    lines = re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))
    buffer, name, size = b"", b"", 0
    for place, line in enumerate(lines):
        last = place == len(lines) - 1
        size += len(line) + (not last)
        if size > MOST:
            return found, False
        if last:
            break
        field, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if buffer:
                found.append(Event(buffer[:-1], name))
            buffer, name, size = b"", b"", 0
        elif colon and not field:
            continue
        elif field == b"event":
            name = value
        elif field == b"data":
            buffer += value + b"\n"
    return found, True


def lines_of(data: bytes) -> tuple[list[Event], bool]:
    """Read lines of JSON."""
    found: list[Event] = []
    *lines, rest = data.split(b"\n")
    for line, size in [*((line, len(line) + 1) for line in lines), (rest, len(rest))]:
        if size > MOST:
            return found, False
        if line.strip(b" \t\r"):
            found.append(Event(line.strip(b" \t\r")))
    return found, True


@given(framing=framings, data=streams, cuts=st.lists(st.integers(0, 1000), max_size=12))
def test_any_split_gives_the_events_of_the_standard(framing: Framing, data: bytes, cuts: list[int]) -> None:
    expected = standard(data) if framing == "sse" else lines_of(data)
    event(f"{framing}, {'whole' if expected[1] else 'too long'}, {min(3, len(expected[0]))} events")
    assert events_of(framing, [data]) == expected
    assert events_of(framing, split(data, cuts)) == expected
    assert events_of(framing, byte_by_byte(data)) == expected
    assert events_of(framing, [b"", *byte_by_byte(data), b""]) == expected
