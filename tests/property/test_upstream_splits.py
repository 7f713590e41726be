"""However a response is split, the outcome is the same; whatever it is, that is a reply or an `UpstreamError`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import event, given
from hypothesis import strategies as st

from guard.errors import UpstreamError
from guard.upstream.connection import Connection
from guard.upstream.stream import StreamedReply
from tests.support.pieces import byte_by_byte, split

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from guard.model.exchange import Reply

MAX_BODY = 40
MAX_HEAD = 160

Outcome = tuple[int, list[tuple[bytes, bytes]], bytes] | str
Streamed = tuple[int, list[tuple[bytes, bytes]], bytes, str]
"""Status, headers, what was let out of the body, and an error's code or nothing."""
Result = TypeVar("Result")


class Wire(asyncio.Transport):
    """The connection's end of a wire that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        del data

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0


class Owner:
    """Counts what connections give back."""

    def __init__(self) -> None:
        self.released = 0
        self.forgotten = 0

    def release(self, connection: Connection) -> None:
        del connection
        self.released += 1

    def forget(self, connection: Connection) -> None:
        del connection
        self.forgotten += 1

    def watch(self, connection: Connection) -> None:
        del connection


def exchange(pieces: Iterable[bytes], *, head_only: bool = False) -> tuple[Outcome, bool]:
    """Feed `pieces`, then the end of the stream; return the outcome and whether the connection could be reused."""
    loop = asyncio.new_event_loop()
    try:
        wire, owner = Wire(), Owner()
        connection = Connection(owner, loop, MAX_BODY, MAX_HEAD)
        connection.connection_made(wire)
        future: asyncio.Future[Reply] = loop.create_future()
        connection.start(future, b"", b"", 1.0, head_only=head_only)
        for piece in pieces:
            if not wire.closing:
                connection.data_received(piece)
                held = sum(map(len, connection._chunks))  # pyright: ignore[reportPrivateUsage]
                assert held <= MAX_BODY
        reused = owner.released > 0 and not wire.closing
        if not wire.closing:
            connection.eof_received()
        connection.connection_lost(None)
        assert owner.forgotten == 1
        assert owner.released <= 1
        assert future.done()
        return outcome_of(future), reused
    finally:
        loop.close()


def outcome_of(future: asyncio.Future[Reply]) -> Outcome:
    error = future.exception()
    if error is not None:
        assert isinstance(error, UpstreamError)
        assert error.reached
        return error.code
    reply = future.result()
    assert 200 <= reply.status <= 599
    assert len(reply.body) <= MAX_BODY
    assert sum(len(name) + len(value) for name, value in reply.headers) <= MAX_HEAD
    return reply.status, reply.headers, reply.body


def streamed(pieces: Iterable[bytes], *, head_only: bool = False, eager: bool = False) -> tuple[Streamed, bool]:
    """As `exchange`, for a stream that is read after every piece, or at the end; return the body that was let out too.

    What is held is bounded by the body's own bound here; `read` never waits, for the loop does not run.
    """
    loop = asyncio.new_event_loop()
    try:
        wire, owner = Wire(), Owner()
        connection = Connection(owner, loop, MAX_BODY, MAX_HEAD)
        connection.connection_made(wire)
        stream = StreamedReply(connection, 1.0)
        connection.start(stream, b"", b"", 1.0, head_only=head_only, stream=stream)
        body = b""
        for piece in pieces:
            if not wire.closing:
                connection.data_received(piece)
            if eager and stream._held:  # pyright: ignore[reportPrivateUsage]
                body += now(stream.read())
        reused = owner.released > 0 and not wire.closing
        if not wire.closing:
            connection.eof_received()
        connection.connection_lost(None)
        assert owner.forgotten == 1
        assert owner.released <= 1
        return ended(stream, body), reused
    finally:
        loop.close()


def ended(stream: StreamedReply, body: bytes) -> Streamed:
    code = ""
    try:
        now(stream.opened())
        while piece := now(stream.read()):
            body += piece
    except UpstreamError as error:
        code = error.code if error.reached else "not reached"
    return (stream.status, stream.headers, body, code) if hasattr(stream, "status") else (0, [], b"", code)


def now(awaitable: Coroutine[Any, Any, Result]) -> Result:
    """Return what an awaitable returns that has nothing to wait for."""
    try:
        awaitable.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


heads: st.SearchStrategy[bytes] = st.sampled_from(
    [b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2.0 ", b"\r\nHTTP/1.1 ", b"FTP "]
)
statuses: st.SearchStrategy[bytes] = st.sampled_from(
    [b"200 OK", b"200", b"204 No", b"304 Not", b"500 Oops", b"600 No", b"101 Switch", b"20"]
)
fields: st.SearchStrategy[bytes] = st.sampled_from(
    [
        b"X: y",
        b"X:    padded   ",
        b"Content-Length: 3",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"E:",
        b": n",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Transfer-Encoding: gzip",
        b"Long: " + b"l" * 90,
        b" folded",
    ]
)
interim: st.SearchStrategy[bytes] = st.sampled_from(
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"]
)
chunks: st.SearchStrategy[list[bytes]] = st.lists(
    st.sampled_from([b"3\r\nabc\r\n", b"1;e=f\r\nx\r\n", b"a\r\n0123456789\r\n", b"2\r\nabc\r\n", b"1;" + b"e" * 99]),
    max_size=6,
)
ends: st.SearchStrategy[bytes] = st.sampled_from(
    [b"0\r\n\r\n", b"0\r\nTrailer: t\r\n\r\n", b"0\r\nTrailer: " + b"t" * 150 + b"\r\n\r\n", b""]
)
chunked: st.SearchStrategy[bytes] = st.tuples(chunks, ends).map(lambda both: b"".join(both[0]) + both[1])
bodies: st.SearchStrategy[bytes] = st.one_of(st.sampled_from([b"", b"abc", b"abcde", b"ab", b"x" * 41]), chunked)
garbage: st.SearchStrategy[bytes] = st.one_of(
    st.just(b""), st.just(b""), st.binary(max_size=20), st.just(b"HTTP/1.1 200 OK\r\n\r\n")
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Draw a response that is well formed, or nearly."""
    if draw(st.booleans()):
        framing = draw(st.sampled_from([b"content-length: 3\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n"]))
        rest = framing + draw(chunked) if framing.startswith(b"t") else framing
        return draw(interim) + b"HTTP/1.1 200 OK\r\n" + rest + draw(garbage)
    lines = [draw(heads) + draw(statuses), *draw(st.lists(fields, max_size=4)), b"", b""]
    return draw(interim) + b"\r\n".join(lines) + draw(bodies) + draw(garbage)


@given(data=responses(), cuts=st.lists(st.integers(0, 1000), max_size=12), head_only=st.booleans())
def test_any_split_gives_the_same_outcome(data: bytes, cuts: list[int], head_only: bool) -> None:
    whole, _ = exchange([data], head_only=head_only)
    event(whole if isinstance(whole, str) else "reply")
    in_pieces, _ = exchange(split(data, cuts), head_only=head_only)
    single, _ = exchange(byte_by_byte(data), head_only=head_only)
    assert whole == in_pieces == single


@given(data=responses(), cuts=st.lists(st.integers(0, 1000), max_size=12), head_only=st.booleans())
def test_a_stream_lets_out_the_same_however_it_is_split_and_read(data: bytes, cuts: list[int], head_only: bool) -> None:
    reply, reused = exchange(split(data, cuts), head_only=head_only)
    whole, _ = streamed([data], head_only=head_only)
    status, headers, body, code = whole
    event(code or "reply")
    if not status and code == "upstream_malformed":
        reused = False  # A stream's codings are judged at its head, a whole reply's at its first chunk.
    else:
        assert reply == (code or (status, headers, body))
    for eager in (False, True):
        assert streamed(split(data, cuts), head_only=head_only, eager=eager) == (whole, reused)
        assert streamed(byte_by_byte(data), head_only=head_only, eager=eager)[0] == whole


@given(data=st.one_of(st.binary(max_size=400), responses()), cuts=st.lists(st.integers(0, 1000), max_size=8))
def test_whatever_arrives_is_a_reply_or_an_upstream_error(data: bytes, cuts: list[int]) -> None:
    exchange(split(data, cuts))


whole: st.SearchStrategy[bytes] = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nTrailer: t\r\n\r\n",
    ]
)


@given(data=whole, cuts=st.lists(st.integers(0, 1000), max_size=8), more=st.binary(min_size=1, max_size=30))
def test_a_connection_with_bytes_behind_the_reply_is_closed(data: bytes, cuts: list[int], more: bytes) -> None:
    outcome, reused = exchange(split(data, cuts))
    assert reused
    # In a piece of its own, and together with the reply; there llhttp skips line ends, which are framing to it.
    assert exchange([*split(data, cuts), more]) == (outcome, False)
    assert exchange([data + more]) == (outcome, not more.strip(b"\r\n"))
