"""`HttpUpstream.open` against real servers on 127.0.0.1: pieces as they come, bounds, time, and what ends a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from guard.errors import ClientError
from guard.upstream.http import HttpUpstream
from guard.upstream.stream import MOST_HELD_BYTES, MOST_PIECE_BYTES, StreamedReply
from tests.support.peers import (
    LONG_S,
    OK,
    SHORT_S,
    Peer,
    Server,
    Tls,
    answering,
    answering_then_closing,
    error_of,
    post,
    serving,
    silent,
    until,
)

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
END = b"0\r\nTrailer: t\r\n\r\n"
FULL = b"e" * 65536


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def opened(upstream: HttpUpstream, timeout_s: float = LONG_S, method: bytes = b"POST") -> StreamedReply:
    return await upstream.open(method, b"/", [], b"", timeout_s)


async def impatient(upstream: HttpUpstream) -> StreamedReply:
    """Open a stream that has all the time for its head, for the machine may be slow, and little for what follows."""
    stream = await opened(upstream)
    stream._timeout_s = SHORT_S  # pyright: ignore[reportPrivateUsage]
    return stream


async def rest_of(stream: StreamedReply, pieces: list[bytes] | None = None) -> bytes:
    pieces = [] if pieces is None else pieces
    while piece := await stream.read():
        pieces.append(piece)
    return b"".join(pieces)


def begun(*parts: bytes) -> Callable[[Server, Peer], Awaitable[None]]:
    """Answer a connection's first request with `parts`, and no more; the next ones with `OK`."""

    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        if len(server.requests) == 1:
            peer.writer.write(b"".join(parts))
            await peer.gone()
        peer.writer.write(OK)
        await answering(OK)(server, peer)

    return script


def endless(sent: list[int]) -> Callable[[Server, Peer], Awaitable[None]]:
    """Write chunks for ever and count their bytes."""

    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(HEAD)
        while True:
            peer.writer.write(chunk(FULL))
            await peer.writer.drain()
            sent[0] += len(FULL)

    return script


async def settled(count: list[int]) -> int:
    """Return a counter's value once it stands still for ten turns of a millisecond in a row."""
    last, still = -1, 0
    while still < 10:
        still = still + 1 if count[0] == last else 0
        last = count[0]
        await asyncio.sleep(0.001)
    return last


# what comes


async def test_the_head_comes_first_and_then_the_pieces_as_they_are_sent() -> None:
    go = asyncio.Queue[bytes]()

    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        while data := await go.get():
            peer.writer.write(data)
        await answering(OK)(server, peer)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        opening = asyncio.create_task(opened(upstream))
        await until(lambda: len(server.requests) == 1)
        assert not opening.done()
        go.put_nowait(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + HEAD)
        stream = await opening
        assert (stream.status, stream.headers) == (200, [(b"transfer-encoding", b"chunked"), (b"x", b"y")])
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            reading = asyncio.create_task(stream.read())
            await asyncio.sleep(0)
            assert not reading.done()
            go.put_nowait(chunk(piece))
            assert await reading == piece
        go.put_nowait(END)
        assert [await stream.read(), await stream.read()] == [b"", b""]
        go.put_nowait(b"")
        assert (await post(upstream)).body == b"ok"
        assert len(server.peers) == 1
        await upstream.aclose()


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", id="empty"),
        pytest.param(HEAD + chunk(b"abc") + chunk(b"de") + END, 200, b"abcde", id="chunked"),
        pytest.param(b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\nno", 429, b"no", id="refused"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="204"),
    ],
)
@pytest.mark.parametrize("last", ["stream", "whole"])
async def test_a_stream_read_to_its_end_leaves_its_connection_to_the_next(
    raw: bytes, status: int, body: bytes, last: str
) -> None:
    async with serving(answering(raw)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        for _ in range(2):
            stream = await opened(upstream)
            assert (stream.status, await rest_of(stream)) == (status, body)
            stream.close()
            if last == "whole":
                assert (await post(upstream)).body == body
        assert len(server.peers) == 1
        await upstream.aclose()


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", id="close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", id="1.0"),
        pytest.param(HEAD + END + OK, b"", id="pipelined reply"),
        pytest.param(OK + b"H", b"ok", id="pipelined byte"),
        pytest.param(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nok", b"ok", id="a server's error"),
    ],
)
async def test_streams_after_which_the_connection_is_not_reused(raw: bytes, body: bytes) -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(raw)
        await peer.gone()

    async with serving(script) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        for _ in range(2):
            assert await rest_of(await opened(upstream)) == body
        assert len(server.peers) == 2
        await upstream.aclose()


async def test_a_body_without_length_is_streamed_until_the_close() -> None:
    async with serving(answering_then_closing(b"HTTP/1.1 200 OK\r\n\r\nuntil close")) as server:
        upstream = HttpUpstream(server.url)
        assert await rest_of(await opened(upstream)) == b"until close"
        await upstream.aclose()


async def test_a_head_has_no_stream_behind_it() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", OK)) as server:
        upstream = HttpUpstream(server.url)
        stream = await opened(upstream, method=b"HEAD")
        assert (stream.status, await stream.read()) == (200, b"")
        await upstream.aclose()


async def test_what_would_change_the_framing_is_refused() -> None:
    with pytest.raises(ClientError):
        await HttpUpstream("http://127.0.0.1:1").open(b"GET", b"/\r\n", [], b"", LONG_S)


# what goes wrong


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"nonsense\r\n\r\n", id="no http"),
        pytest.param(b"HTTP/1.1 101 Switch\r\n\r\n", id="bare 101"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", id="gzip, chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", id="unknown coding"),
        pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked 1.0"),
    ],
)
async def test_a_malformed_head_opens_no_stream(raw: bytes) -> None:
    async with serving(begun(raw)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        error = await error_of(opened(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_malformed", 502, True)
        await server.peers[0].ended.wait()
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


@pytest.mark.parametrize(
    ("raw", "body", "code"),
    [
        pytest.param(chunk(b"abc") + b"zz\r\n", b"abc", "upstream_malformed", id="bad chunk size"),
        pytest.param(chunk(b"abc") + b"3\r\nab", b"abcab", "upstream_broken", id="cut inside a chunk"),
        pytest.param(chunk(b"abc"), b"abc", "upstream_broken", id="cut between chunks"),
        pytest.param(b"1;" + b"e" * 70_000, b"", "upstream_too_large", id="framing without end"),
        pytest.param(chunk(b"x" * 2000) + END, b"x" * 1500, "upstream_too_large", id="body beyond its bound"),
    ],
)
async def test_what_came_before_an_error_is_read_before_it_is_raised(raw: bytes, body: bytes, code: str) -> None:
    async with serving(answering_then_closing(HEAD + raw)) as server:
        upstream = HttpUpstream(server.url, max_connections=1, max_response_bytes=1500)
        stream = await opened(upstream)
        read: list[bytes] = []
        error = await error_of(rest_of(stream, read))
        assert (b"".join(read), error.code, error.reached) == (body, code, True)
        assert (await error_of(stream.read())).code == code
        await until(lambda: not upstream._open)  # pyright: ignore[reportPrivateUsage]
        await upstream.aclose()


@pytest.mark.parametrize("clean", [True, False])
async def test_over_tls_only_a_clean_close_ends_a_stream(tls: Tls, clean: bool) -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil close")
        await peer.writer.drain()
        if not clean:
            peer.writer.transport.abort()

    async with serving(script, tls.server) as server:
        upstream = HttpUpstream(f"https://localhost:{server.port}", ssl_context=tls.client)
        stream = await opened(upstream)
        if clean:
            assert await rest_of(stream) == b"until close"
        else:
            assert (await error_of(rest_of(stream))).code == "upstream_broken"
        await upstream.aclose()


# back-pressure


@pytest.mark.parametrize("secure", [False, True])
async def test_upstream_is_read_no_faster_than_the_stream(tls: Tls, secure: bool) -> None:
    sent = [0]
    async with serving(endless(sent), tls.server if secure else None) as server:
        url = f"https://localhost:{server.port}" if secure else server.url
        upstream = HttpUpstream(url, ssl_context=tls.client, max_response_bytes=2**40)
        stream = await opened(upstream)
        await until(lambda: sent[0] > 0)
        for _ in range(3):
            before = await settled(sent)
            held = len(stream._held)  # pyright: ignore[reportPrivateUsage]
            assert MOST_HELD_BYTES < held <= 2 * MOST_HELD_BYTES
            while before == sent[0]:  # The kernel's buffers hold more than the stream does.
                assert 0 < len(await stream.read()) <= MOST_PIECE_BYTES
        stream.close()
        await server.peers[0].ended.wait()
        await upstream.aclose()


async def test_a_reply_that_ends_while_nothing_is_read_leaves_a_connection_that_reads() -> None:
    # Over TLS what was decrypted before the pause is handed on after it.
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        await answering(OK)(server, peer)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        opening = asyncio.create_task(opened(upstream))
        await until(lambda: len(server.requests) == 1)
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        connection.data_received(HEAD + chunk(b"x" * (MOST_HELD_BYTES + 1)))
        stream = await opening
        connection.data_received(END)
        assert len(await rest_of(stream)) == MOST_HELD_BYTES + 1
        assert (await post(upstream)).body == b"ok"
        assert len(server.peers) == 1
        await upstream.aclose()


async def test_a_long_stream_read_slowly_arrives_whole() -> None:
    parts = [bytes([i]) * 50_000 for i in range(100)]
    raw = HEAD + b"".join(chunk(part) for part in parts) + END
    async with serving(answering(raw)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        for _ in range(2):
            stream = await opened(upstream)
            read = b""
            while piece := await stream.read():
                read += piece
                await asyncio.sleep(0.001)
            assert read == b"".join(parts)
        assert len(server.peers) == 1
        await upstream.aclose()


async def test_small_pieces_that_nobody_reads_weigh_their_bytes() -> None:
    raw = HEAD + b"".join(chunk(b"ab") for _ in range(20_000))
    async with serving(begun(raw)) as server:
        upstream = HttpUpstream(server.url, max_header_bytes=2**20)
        stream = await opened(upstream)
        await until(lambda: len(stream._held) == 40_000)  # pyright: ignore[reportPrivateUsage]
        assert isinstance(stream._held, bytes | bytearray)  # pyright: ignore[reportPrivateUsage]
        assert await stream.read() + await stream.read() + await stream.read() == b"ab" * 20_000
        stream.close()
        await upstream.aclose()


async def test_others_run_between_the_pieces_of_what_has_arrived() -> None:
    async def turning() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    turns = [0]
    size = 5 * MOST_PIECE_BYTES
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)) as server:
        upstream = HttpUpstream(server.url)
        stream = await opened(upstream)
        await until(lambda: bool(upstream._idle))  # pyright: ignore[reportPrivateUsage]
        task = asyncio.create_task(turning())
        seen: list[int] = []
        while piece := await stream.read():
            assert len(piece) == MOST_PIECE_BYTES
            seen.append(turns[0])
        assert seen == [0, 1, 2, 3, 4]
        task.cancel()
        await upstream.aclose()


async def test_cancelling_between_pieces_closes_the_stream() -> None:
    async with serving(begun(HEAD, chunk(FULL))) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        stream = await opened(upstream)
        await until(lambda: len(stream._held) == len(FULL))  # pyright: ignore[reportPrivateUsage]
        await stream.read()
        task = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.peers[0].ended.wait()
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


# time


async def test_a_silent_upstream_opens_no_stream() -> None:
    async def script(server: Server, peer: Peer) -> None:
        await peer.request()
        peer.writer.write(OK)
        await silent(server, peer)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        await post(upstream)  # connecting is not what must time out
        error = await error_of(opened(upstream, SHORT_S))
        assert (error.code, error.status, error.reached) == ("upstream_timeout", 504, True)
        await server.peers[0].ended.wait()
        await upstream.aclose()


@pytest.mark.parametrize("first", [b"", chunk(b"abc"), b"3\r\nab"])
async def test_silence_inside_a_stream_times_out_and_upstream_sees_the_disconnect(first: bytes) -> None:
    async with serving(begun(HEAD, first)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        stream = await impatient(upstream)
        error = await error_of(rest_of(stream))
        assert (error.code, error.status) == ("upstream_timeout", 504)
        await server.peers[0].ended.wait()
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


async def test_time_runs_only_while_somebody_waits() -> None:
    async with serving(begun(HEAD, chunk(b"abc"))) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        stream = await impatient(upstream)
        await until(lambda: bool(stream._held))  # pyright: ignore[reportPrivateUsage]
        assert await stream.read() == b"abc"
        assert (await error_of(post(upstream, timeout_s=3 * SHORT_S))).code == "upstream_timeout"  # the slot is taken
        server.peers[0].writer.write(chunk(b"de") + END)
        await until(lambda: bool(upstream._idle))  # pyright: ignore[reportPrivateUsage]
        assert await rest_of(stream) == b"de"
        await upstream.aclose()


async def test_a_stream_may_last_longer_than_each_wait() -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(HEAD)
        for _ in range(8):
            await asyncio.sleep(SHORT_S / 5)
            peer.writer.write(chunk(b"x"))
        peer.writer.write(END)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        stream = await opened(upstream, SHORT_S * 20)
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        dues: set[float] = set()
        reading = asyncio.create_task(rest_of(stream))
        while not reading.done():
            dues.add(connection.due)
            await asyncio.sleep(0.001)
        assert await reading == b"x" * 8
        assert len(dues - {float("inf")}) > 3
        await upstream.aclose()


# letting go


@pytest.mark.parametrize("read", [False, True])
async def test_closing_before_the_end_disconnects_and_frees_the_slot(read: bool) -> None:
    async with serving(begun(HEAD, chunk(b"abc"))) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        stream = await opened(upstream)
        if read:
            assert await stream.read() == b"abc"
        stream.close()
        stream.close()
        await server.peers[0].ended.wait()
        assert (await error_of(stream.read())).code == "upstream_broken"
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


async def test_what_arrived_whole_and_was_not_read_is_no_end() -> None:
    async with serving(answering(HEAD + chunk(b"abc") + END)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        stream = await opened(upstream)
        await until(lambda: bool(upstream._idle))  # pyright: ignore[reportPrivateUsage]
        stream.close()
        assert (await error_of(stream.read())).code == "upstream_broken"
        assert (await post(upstream)).body == b"abc"
        assert len(server.peers) == 1
        await upstream.aclose()


async def test_closing_ends_a_read_that_waits() -> None:
    async with serving(begun(HEAD)) as server:
        upstream = HttpUpstream(server.url)
        stream = await opened(upstream)
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        stream.close()
        assert (await error_of(reading)).code == "upstream_broken"
        await upstream.aclose()


@pytest.mark.parametrize("parts", [(), (HEAD,)])
async def test_cancelling_disconnects_and_frees_the_slot(parts: tuple[bytes, ...]) -> None:
    async def reading() -> bytes:
        stream = await opened(upstream)
        heads.append(stream.status)
        return await stream.read()

    heads: list[int] = []
    async with serving(begun(*parts)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        task = asyncio.create_task(reading())
        await until(lambda: len(server.requests) == 1 and len(heads) == len(parts))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.peers[0].ended.wait()
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


@pytest.mark.parametrize("answer", [HEAD, OK, b"nonsense"])
async def test_cancelling_in_the_turn_of_the_head_keeps_the_pool_sound(answer: bytes) -> None:
    async with serving(begun()) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        task = asyncio.create_task(opened(upstream))
        await until(lambda: len(server.requests) == 1)
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        connection.data_received(answer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if answer == OK:
            connection.abort()  # it waits for a request that this server would not answer
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


async def test_closing_the_pool_fails_streams_under_way() -> None:
    async with serving(begun(HEAD)) as server:
        upstream = HttpUpstream(server.url)
        stream = await opened(upstream)
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0)
        await upstream.aclose()
        assert (await error_of(reading)).code == "upstream_broken"
        assert (await error_of(opened(upstream))).code == "upstream_unreachable"
