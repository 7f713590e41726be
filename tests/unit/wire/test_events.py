"""Server-sent events and newline-delimited JSON, taken apart."""

from __future__ import annotations

import tracemalloc

import pytest

from guard.errors import UpstreamError
from guard.wire.base import Event, Framing
from guard.wire.events import splitter
from tests.support.pieces import byte_by_byte

LONG = 10**6
ODD = b"\xff\0\x0b\x0c\x1c\x85\xe2\x80\xa8"


def events_of(framing: Framing, data: bytes, most_bytes: int = LONG) -> list[Event]:
    """Return the events of `data`, which are the same whether it comes whole or byte by byte."""
    whole, pieces = splitter(framing, most_bytes), splitter(framing, most_bytes)
    events = whole.feed(data) + whole.end()
    assert [e for piece in byte_by_byte(data) for e in pieces.feed(piece)] + pieces.end() == events
    return events


@pytest.mark.parametrize(
    ("data", "events"),
    [
        pytest.param(b"data: a\n\n", [Event(b"a")], id="LF"),
        pytest.param(b"data: a\r\n\r\n", [Event(b"a")], id="CRLF"),
        pytest.param(b"data: a\r\r", [Event(b"a")], id="CR"),
        pytest.param(b"data: a\r\n\rdata: b\n\r\n", [Event(b"a"), Event(b"b")], id="mixed"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")], id="byte order mark"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [], id="two byte order marks"),
        pytest.param(b"\xef\xbbdata: a\n\n", [], id="half a byte order mark"),
        pytest.param(b"data:a\n\n", [Event(b"a")], id="no space"),
        pytest.param(b"data:  a \n\n", [Event(b" a ")], id="one space only"),
        pytest.param(b"data:\ta\n\n", [Event(b"\ta")], id="a tab is no space"),
        pytest.param(b"data: a\ndata\ndata: b\n\n", [Event(b"a\n\nb")], id="lines are joined"),
        pytest.param(b"data\n\n", [Event(b"")], id="empty data is an event"),
        pytest.param(b"data:\ndata:\n\n", [Event(b"\n")], id="two empty lines"),
        pytest.param(b"event: x\nid: 1\n\ndata: a\n\n", [Event(b"a")], id="no data, no event, no name for the next"),
        pytest.param(b"event: x\ndata: a\nevent: y\n\ndata: b\n\n", [Event(b"a", b"y"), Event(b"b")], id="last name"),
        pytest.param(b"event: x\ndata: a\nevent\n\n", [Event(b"a")], id="a name taken back"),
        pytest.param(b": c\n:\ndata: a\n: data: x\n\n: c\n\n", [Event(b"a")], id="comments"),
        pytest.param(b"id: 7\0\nretry: 1\nother: x\nData: x\n data: x\ndata: a\n\n", [Event(b"a")], id="ignored"),
        pytest.param(b"data: a:b\n\n", [Event(b"a:b")], id="colon in data"),
        pytest.param(b"data: a\n\ndata: b\n", [Event(b"a")], id="no blank line at the end"),
        pytest.param(b"data: a\n\ndata: b", [Event(b"a")], id="no line end at the end"),
        pytest.param(b"data: " + ODD + b"\n\n", [Event(ODD)], id="no other line ends"),
        pytest.param(b"\n\r\n\r" * 50_000 + b"data: a\n\n", [Event(b"a")], id="empty lines"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"data: [DONE]\n\n", [Event(b"[DONE]")], id="done"),
    ],
)
def test_server_sent_events_are_read_as_whatwg_says(data: bytes, events: list[Event]) -> None:
    assert events_of("sse", data) == events


@pytest.mark.parametrize(
    ("data", "events"),
    [
        pytest.param(b"1\n2\r\n", [Event(b"1"), Event(b"2")], id="lines"),
        pytest.param(b"1\n2", [Event(b"1"), Event(b"2")], id="last line without its line feed"),
        pytest.param(b"1\n2\r", [Event(b"1"), Event(b"2")], id="last line with half its line end"),
        pytest.param(b"\n\r\n \t\n1\n\n", [Event(b"1")], id="blank lines"),
        pytest.param(b"1\r2\n", [Event(b"1\r2")], id="a lone CR ends nothing"),
        pytest.param(ODD + b"\n", [Event(ODD)], id="no other line ends"),
        pytest.param(b"", [], id="nothing"),
        pytest.param(b" ", [], id="a blank and no line"),
        pytest.param(b"\n" * 200_000 + b"1\n", [Event(b"1")], id="empty lines"),
    ],
)
def test_lines_of_json_are_read(data: bytes, events: list[Event]) -> None:
    assert events_of("ndjson", data) == events


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        ("sse", b"data: 345678\n\n"),
        ("sse", b"data: 3\ndata: 12\n\n"),
        ("sse", b":123456789012\n\n"),
        ("sse", b"id: 1\nretry: 2\n\n"),
        ("ndjson", b"12345678901234\n"),
    ],
)
@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
def test_an_event_at_its_bound_is_read_and_one_byte_more_ends_all(framing: Framing, data: bytes, pieces: str) -> None:
    assert events_of(framing, data, len(data)) == events_of(framing, data)
    short = splitter(framing, len(data) - 1)
    *firsts, last = [data] if pieces == "whole" else byte_by_byte(data)
    for piece in firsts:
        assert not short.feed(piece)
    for doomed in (lambda: short.feed(last), lambda: short.feed(b"data: 1\n\n"), short.end):
        with pytest.raises(UpstreamError) as caught:
            doomed()
        assert caught.value.code == "unreadable_answer"


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_events_before_one_that_is_too_long_come_first(framing: Framing) -> None:
    good, line = (b"data: 1\n\n", b"data: " + b"x" * 70_000) if framing == "sse" else (b"1\n", b"x" * 70_000)
    events = splitter(framing, 100)
    assert events.feed(good * 2 + line) == [Event(b"1")] * 2
    with pytest.raises(UpstreamError):
        events.end()
    with pytest.raises(UpstreamError):
        events.feed(good)


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        ("sse", b"data: " + b"x" * 30_000),
        ("sse", b"data: xy\n" * 3_300),
        ("sse", b": xyzuvw\n" * 3_300),
        ("ndjson", b"x" * 30_000),
    ],
)
def test_a_long_event_in_small_pieces_is_not_copied_again_and_again(framing: Framing, data: bytes) -> None:
    events = splitter(framing, LONG)
    pieces = list(byte_by_byte(data))
    copied = 0
    tracemalloc.start()
    try:
        for piece in pieces:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            assert not events.feed(piece)
            copied += tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert copied < 1024 * len(pieces) < len(data) ** 2 / 16
