"""`HttpUpstream` against real servers on 127.0.0.1, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket

import pytest

from guard.errors import ClientError, PolicyError
from guard.upstream.http import HttpUpstream
from tests.support.peers import (
    LONG_S,
    OK,
    SHORT_S,
    Peer,
    Server,
    Tls,
    answering,
    answering_after_the_first,
    answering_then_closing,
    error_of,
    post,
    serving,
    silent,
    until,
)

# what goes out


async def test_request_is_written_with_prefix_host_and_length() -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url + "/base/")
        headers = [(b"Content-Type", b"text/plain"), (b"Connection", b"close"), (b"host", b"evil"), (b"x-id", b"7")]
        headers += [(b"content-length", b"99"), (b"transfer-encoding", b"chunked"), (b"expect", b"100-continue")]
        reply = await upstream.send(b"PUT", b"/v2?q=%20", headers, b"body", LONG_S)
        assert (reply.status, reply.headers, reply.body) == (200, [(b"content-length", b"2")], b"ok")
        assert server.requests == [
            b"PUT /base/v2?q=%%20 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept-encoding: identity\r\ncontent-length: 4\r\n"
            b"content-type: text/plain\r\nx-id: 7\r\n\r\nbody" % server.port
        ]
        await upstream.aclose()


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GET", b"/\r\nx: y", []),
        (b"GET", b"/a b", []),
        (b"GET", b"/a\0b", []),
        (b"GET", b"http://elsewhere/", []),
        (b"GET", b"", []),
        (b"GE T", b"/", []),
        (b"G\r\n", b"/", []),
        (b"GET", b"/", [(b"x", b"a\r\nb: c")]),
        (b"GET", b"/", [(b"x", b"a\nb: c")]),
        (b"GET", b"/", [(b"x", b"a\rb")]),
        (b"GET", b"/", [(b"x", b"a\0b")]),
        (b"GET", b"/", [(b"x\r\ny", b"a")]),
        (b"GET", b"/", [(b"content-length ", b"3")]),
        (b"GET", b"/", [(b"x:", b"a")]),
        (b"GET", b"/", [(b"", b"a")]),
    ],
)
async def test_what_would_change_the_framing_is_refused(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    upstream = HttpUpstream("http://127.0.0.1:1")
    with pytest.raises(ClientError):
        await upstream.send(method, target, headers, b"", LONG_S)


async def test_many_header_names_are_forwarded_without_being_remembered() -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url)
        headers = [(b"x-%d" % i, b"v") for i in range(600)] + [(b"x" * 100, b"long")]
        await upstream.send(b"GET", b"/", headers, b"", LONG_S)
        assert b"\r\nx-599: v\r\n" in server.requests[0]
        assert b"x" * 100 + b": long" in server.requests[0]
        await upstream.aclose()


@pytest.mark.parametrize("pieces", [1, 3])
async def test_big_body_arrives_whole_at_a_slow_reader(pieces: int) -> None:
    body = bytes(range(256)) * (4096 * 8)
    answered = asyncio.Event()

    async def script(server: Server, peer: Peer) -> None:
        for _ in range(pieces):
            await asyncio.sleep(0)
            server.requests.append(await peer.request())
            peer.writer.write(OK)
        answered.set()
        await peer.gone()

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        for _ in range(pieces):
            assert (await post(upstream, body=body)).body == b"ok"
        assert all(request.endswith(b"\r\n\r\n" + body) for request in server.requests)
        assert len(server.peers) == 1
        await upstream.aclose()


# what comes back


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", id="empty"),
        pytest.param(b"HTTP/1.1 404\r\nContent-Length: 1\r\n\r\nx", 404, b"x", id="no reason"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n",
            200,
            b"abcde",
            id="chunked, extension, trailer",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, 200, b"ok", id="interim"
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", id="304"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", id="1.0 keep-alive"
        ),
    ],
)
async def test_whole_replies_are_read_and_the_connection_is_reused(raw: bytes, status: int, body: bytes) -> None:
    async with serving(answering(raw)) as server:
        upstream = HttpUpstream(server.url)
        for _ in range(3):
            reply = await post(upstream)
            assert (reply.status, reply.body) == (status, body)
            assert reply.header(b"link") is None
            assert reply.header(b"t") is None
        assert len(server.peers) == 1
        await upstream.aclose()


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", id="close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", id="1.0"),
        pytest.param(OK + OK, b"ok", id="pipelined reply"),
        pytest.param(OK + b"H", b"ok", id="pipelined byte"),
        pytest.param(OK + b"\0garbage", b"ok", id="pipelined garbage"),
        pytest.param(b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc", b"", id="body of a 204"),
        pytest.param(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nok", b"ok", id="a server's error"),
    ],
)
async def test_replies_after_which_the_connection_is_not_reused(raw: bytes, body: bytes) -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(raw)
        await peer.gone()

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        for _ in range(2):
            assert (await post(upstream)).body == body
        assert len(server.peers) == 2
        await upstream.aclose()


@pytest.mark.parametrize(
    "raw",
    [b"HTTP/1.1 200 OK\r\n\r\nuntil close", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nuntil close"],
)
async def test_a_body_without_length_runs_until_the_close(raw: bytes) -> None:
    async with serving(answering_then_closing(raw)) as server:
        upstream = HttpUpstream(server.url)
        assert (await post(upstream)).body == b"until close"
        assert (await post(upstream)).body == b"until close"
        await upstream.aclose()


@pytest.mark.parametrize("more", [b"", b"body that must not be here"])
async def test_head_has_no_body(more: bytes) -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + more, OK)) as server:
        upstream = HttpUpstream(server.url)
        for _ in range(2):
            reply = await upstream.send(b"HEAD", b"/", [], b"", LONG_S)
            assert (reply.status, reply.body, reply.header(b"content-length")) == (200, b"", b"5")
        await upstream.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"nonsense\r\n\r\n", id="no http"),
        pytest.param(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", id="version"),
        pytest.param(b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n", id="status below"),
        pytest.param(b"HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n", id="status above"),
        pytest.param(b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", id="upgrade"),
        pytest.param(b"HTTP/1.1 101 Switch\r\n\r\n", id="bare 101"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunked",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip, chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nabc", id="unknown coding"),
        pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked 1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="bad chunk size"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", id="space before colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", id="folded header"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", id="bare LF"),
    ],
)
async def test_malformed_replies_are_refused(raw: bytes) -> None:
    async with serving(answering(raw)) as server:
        upstream = HttpUpstream(server.url)
        error = await error_of(post(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_malformed", 502, True)
        await server.peers[0].ended.wait()
        await upstream.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_a_half_answer_is_never_returned(raw: bytes, reset: bool) -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(raw)
        if reset:
            linger = b"\1\0\0\0\0\0\0\0"
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        error = await error_of(post(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_broken", 502, True)
        assert len(server.requests) == 1
        await upstream.aclose()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101, id="until close"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"h" * 300, id="header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"h" * 300 + b"\r\nContent-Length: 0\r\n\r\n", id="whole head"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, id="interim"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"e" * 300, id="extension"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nt: " + b"e" * 300, id="trailer"),
    ],
)
async def test_what_exceeds_a_bound_is_refused_as_it_arrives(raw: bytes) -> None:
    async with serving(answering(raw)) as server:
        upstream = HttpUpstream(server.url, max_response_bytes=100, max_header_bytes=200)
        error = await error_of(post(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_too_large", 502, True)
        await server.peers[0].ended.wait()
        await upstream.aclose()


async def test_a_body_at_its_bound_and_larger_than_the_head_bound_passes() -> None:
    body = b"x" * 1000
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + body)) as server:
        upstream = HttpUpstream(server.url, max_response_bytes=1000, max_header_bytes=60)
        for _ in range(2):
            assert (await post(upstream)).body == body
        await upstream.aclose()


async def test_an_early_answer_to_an_unfinished_request_closes_the_connection() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    body = b"x" * (32 * 1024 * 1024)
    read = 0

    async def script(server: Server, peer: Peer) -> None:
        nonlocal read
        peer.writer.write(refusal)
        await answered.wait()
        try:
            while data := await peer.reader.read(65536):
                read += len(data)
        except ConnectionResetError:
            pass
        gone.set()

    answered, gone = asyncio.Event(), asyncio.Event()
    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        assert (await post(upstream, body=body)).status == 413
        answered.set()
        await gone.wait()
        assert read < len(body)
        await upstream.aclose()


# idle connections


async def test_an_idle_connection_that_upstream_closed_is_passed_over() -> None:
    async with serving(answering_then_closing(OK)) as server:
        upstream = HttpUpstream(server.url)
        for count in range(1, 4):
            assert (await post(upstream)).body == b"ok"
            await asyncio.sleep(0)
            await until(server.peers[-1].writer.is_closing)
            assert len(server.peers) == count
            await until(lambda: not upstream._idle)  # pyright: ignore[reportPrivateUsage]
        await upstream.aclose()


@pytest.mark.parametrize("data", [OK, b"x", b"\r\n"])
async def test_bytes_on_an_idle_connection_close_it(data: bytes) -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url)
        await post(upstream)
        server.peers[0].writer.write(data)
        await until(lambda: not upstream._idle)  # pyright: ignore[reportPrivateUsage]
        assert (await post(upstream)).body == b"ok"
        assert len(server.peers) == 2
        await upstream.aclose()


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url, idle_timeout_s=SHORT_S)
        await post(upstream)
        await until(server.peers[0].reader.at_eof)
        await post(upstream)
        assert len(server.peers) == 2
        await upstream.aclose()


async def test_an_idle_connection_past_its_time_is_not_taken() -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url, idle_timeout_s=0)
        await post(upstream)
        await post(upstream)
        assert len(server.peers) == 2
        await upstream.aclose()


async def test_the_connection_that_went_idle_last_is_taken_first() -> None:
    async def script(server: Server, peer: Peer) -> None:
        name = b"%d" % len(server.peers)
        while True:
            await peer.request()
            await until(lambda: len(server.peers) == 2)
            peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url)
        order: list[bytes] = []

        async def one() -> None:
            order.append((await post(upstream)).body)

        await asyncio.gather(one(), one())
        for _ in range(3):
            assert (await post(upstream)).body == order[1]
        await upstream.aclose()


# the pool's bound


async def test_requests_beyond_the_bound_wait_and_go_in_order() -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        replies = await asyncio.gather(*(post(upstream, b"/%d" % i) for i in range(5)))
        assert [reply.body for reply in replies] == [b"ok"] * 5
        assert [request.split()[1] for request in server.requests] == [b"/%d" % i for i in range(5)]
        assert len(server.peers) == 1
        await upstream.aclose()


async def test_requests_in_line_get_new_connections_when_none_is_reusable() -> None:
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with serving(answering(closing)) as server:
        upstream = HttpUpstream(server.url, max_connections=2)
        replies = await asyncio.gather(*(post(upstream) for _ in range(6)))
        assert [reply.body for reply in replies] == [b"ok"] * 6
        assert len(server.peers) == 6
        await upstream.aclose()


async def test_a_request_in_line_times_out_and_leaves_no_slot_behind() -> None:
    release = asyncio.Event()

    async def script(server: Server, peer: Peer) -> None:
        while True:
            server.requests.append(await peer.request())
            await release.wait()
            peer.writer.write(OK)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        first = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        error = await error_of(post(upstream, timeout_s=SHORT_S))
        assert (error.code, error.status, error.reached) == ("upstream_timeout", 504, False)
        cancelled = asyncio.create_task(post(upstream))
        await asyncio.sleep(0)
        cancelled.cancel()
        release.set()
        assert (await first).body == b"ok"
        assert (await post(upstream)).body == b"ok"
        assert len(server.requests) == 2
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await upstream.aclose()


@pytest.mark.parametrize("handed", ["connection", "slot", "dead connection"])
async def test_what_is_handed_to_a_cancelled_request_goes_to_the_next(handed: str) -> None:
    async with serving(answering_after_the_first) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        first = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        second, third = (asyncio.create_task(post(upstream)) for _ in range(2))
        await until(lambda: len(upstream._waiters) == 2)  # pyright: ignore[reportPrivateUsage]
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        # What the loop could do in one turn: hand over, lose the connection, cancel.
        if handed == "slot":
            connection.abort()
            upstream.forget(connection)
        else:
            connection.data_received(OK)
            if handed == "dead connection":
                connection.abort()
        second.cancel()
        assert (await third).body == b"ok"
        assert len(server.peers) == (1 if handed == "connection" else 2)
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await post(upstream)).body == b"ok"
        assert len(server.requests) == 3
        await asyncio.gather(first, return_exceptions=True)
        await upstream.aclose()


async def test_a_connection_that_dies_while_it_is_handed_over_is_passed_over() -> None:
    async with serving(answering_after_the_first) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        first = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        second = asyncio.create_task(post(upstream))
        await until(lambda: len(upstream._waiters) == 1)  # pyright: ignore[reportPrivateUsage]
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        connection.data_received(OK)
        connection.abort()
        assert ((await first).body, (await second).body) == (b"ok", b"ok")
        assert len(server.peers) == 2
        await upstream.aclose()


# timeouts, cancellation, closing


async def test_a_silent_upstream_times_out_and_sees_the_disconnect() -> None:
    async with serving(silent) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        for count in (1, 2):
            error = await error_of(post(upstream, timeout_s=SHORT_S))
            assert (error.code, error.status, error.reached) == ("upstream_timeout", 504, True)
            await server.peers[-1].ended.wait()
            assert len(server.requests) == count
        await upstream.aclose()


async def test_a_later_shorter_deadline_is_kept() -> None:
    async with serving(silent) as server:
        upstream = HttpUpstream(server.url)
        long = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        error = await error_of(post(upstream, timeout_s=SHORT_S))
        assert error.code == "upstream_timeout"
        assert not long.done()
        await upstream.aclose()
        assert (await error_of(long)).code == "upstream_broken"


async def test_cancelling_disconnects_and_frees_the_slot() -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        if len(server.requests) == 1:
            await peer.gone()
        peer.writer.write(OK)

    async with serving(script) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        task = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.peers[0].ended.wait()
        assert (await post(upstream)).body == b"ok"
        await upstream.aclose()


@pytest.mark.parametrize("answer", [OK, b"nonsense"])
async def test_cancelling_in_the_turn_of_the_answer_keeps_the_pool_sound(answer: bytes) -> None:
    async with serving(answering_after_the_first) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        task = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        connection.data_received(answer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(upstream)).body == b"ok"
        assert len(server.peers) == (1 if answer == OK else 2)
        await upstream.aclose()


@pytest.mark.parametrize("answer", [OK, b"nonsense"])
async def test_an_answer_in_the_turn_of_the_cancelling_keeps_the_pool_sound(answer: bytes) -> None:
    async with serving(answering_after_the_first) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        task = asyncio.create_task(post(upstream))
        await until(lambda: len(server.requests) == 1)
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        task.cancel()
        connection.data_received(answer)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await post(upstream)).body == b"ok"
        assert len(server.peers) == (1 if answer == OK else 2)
        await upstream.aclose()


async def test_closing_fails_what_is_under_way_in_line_and_new() -> None:
    async with serving(silent) as server:
        upstream = HttpUpstream(server.url, max_connections=1)
        under_way, in_line, in_line_too = (asyncio.create_task(post(upstream)) for _ in range(3))
        await until(lambda: len(server.requests) == 1)
        await upstream.aclose()
        await upstream.aclose()
        assert ((await error_of(under_way)).code, (await error_of(under_way)).reached) == ("upstream_broken", True)
        for task in (in_line, in_line_too):
            error = await error_of(task)
            assert (error.code, error.reached) == ("upstream_unreachable", False)
        assert (await error_of(post(upstream))).code == "upstream_unreachable"
        assert len(server.requests) == 1


async def test_closing_while_connecting_leaves_no_connection() -> None:
    async with serving(silent) as server:
        upstream = HttpUpstream(server.url)
        task = asyncio.create_task(post(upstream))
        await asyncio.sleep(0)
        await upstream.aclose()
        error = await error_of(task)
        assert (error.code, error.reached) == ("upstream_unreachable", False)
        assert server.requests == []


# reaching upstream


async def test_a_refused_connection_never_reached_upstream() -> None:
    async with serving(silent) as server:
        port = server.port
    upstream = HttpUpstream(f"http://127.0.0.1:{port}", max_connections=1)
    for _ in range(2):
        error = await error_of(post(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_unreachable", 502, False)
        assert "127.0.0.1" not in error.message
    await upstream.aclose()


async def test_a_handshake_that_hangs_times_out() -> None:
    async def script(server: Server, peer: Peer) -> None:
        await peer.gone()

    async with serving(script) as server:
        upstream = HttpUpstream(f"https://127.0.0.1:{server.port}", connect_timeout_s=SHORT_S)
        error = await error_of(post(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_timeout", 504, False)
        await upstream.aclose()


async def test_cancelling_while_connecting_frees_the_slot() -> None:
    async def script(server: Server, peer: Peer) -> None:
        await peer.gone()

    async with serving(script) as server:
        upstream = HttpUpstream(f"https://127.0.0.1:{server.port}", max_connections=1)
        for _ in range(2):
            task = asyncio.create_task(post(upstream))
            count = len(server.peers)
            await until(lambda count=count: len(server.peers) > count)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await upstream.aclose()


async def test_tls_offers_the_name_and_http_1_1_and_is_reused(tls: Tls) -> None:
    names: list[str | None] = []
    tls.server.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(answering(OK), tls.server) as server:
        upstream = HttpUpstream(f"https://localhost:{server.port}", ssl_context=tls.client)
        body = b"x" * 1_000_000
        for _ in range(3):
            assert (await post(upstream, body=body)).body == b"ok"
        assert names == ["localhost"]
        assert server.peers[0].writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert [request[-len(body) :] == body for request in server.requests] == [True] * 3
        assert len(server.peers) == 1
        await upstream.aclose()
    tls.server.sni_callback = None


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_certificate_that_does_not_verify_is_never_reached(tls: Tls, trusted: bool) -> None:
    async with serving(answering(OK), tls.server) as server:
        context = tls.client if trusted else None
        upstream = HttpUpstream(f"https://127.0.0.1:{server.port}", ssl_context=context)
        error = await error_of(post(upstream))
        assert (error.code, error.status, error.reached) == ("upstream_unreachable", 502, False)
        assert server.requests == []
        await upstream.aclose()


@pytest.mark.parametrize("clean", [True, False])
async def test_over_tls_only_a_clean_close_ends_a_body(tls: Tls, clean: bool) -> None:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil close")
        await peer.writer.drain()
        if not clean:
            peer.writer.transport.abort()

    async with serving(script, tls.server) as server:
        upstream = HttpUpstream(f"https://localhost:{server.port}", ssl_context=tls.client)
        if clean:
            assert (await post(upstream)).body == b"until close"
        else:
            assert (await error_of(post(upstream))).code == "upstream_broken"
        await upstream.aclose()


async def test_an_idle_tls_connection_that_upstream_closed_is_passed_over(tls: Tls) -> None:
    async with serving(answering_then_closing(OK), tls.server) as server:
        upstream = HttpUpstream(f"https://localhost:{server.port}", ssl_context=tls.client)
        for _ in range(3):
            assert (await post(upstream)).body == b"ok"
            await until(lambda: not upstream._idle)  # pyright: ignore[reportPrivateUsage]
        await upstream.aclose()


async def test_ipv6_hosts_are_bracketed() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    async with serving(answering(OK), host="::1") as server:
        upstream = HttpUpstream(f"http://[::1]:{server.port}")
        assert (await post(upstream)).body == b"ok"
        assert b"\r\nhost: [::1]:%d\r\n" % server.port in server.requests[0]
        await upstream.aclose()


async def test_small_requests_are_not_delayed() -> None:
    async with serving(answering(OK)) as server:
        upstream = HttpUpstream(server.url)
        await post(upstream)
        (connection,) = upstream._open  # pyright: ignore[reportPrivateUsage]
        transport = connection._transport  # pyright: ignore[reportPrivateUsage]
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await upstream.aclose()


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://model", b"model"),
        ("http://model:80/", b"model"),
        ("http://model:8080", b"model:8080"),
        ("https://model:443", b"model"),
        ("https://bücher.example", b"xn--bcher-kva.example"),
        ("http://[::1]:81", b"[::1]:81"),
    ],
)
def test_urls_that_are_understood(url: str, authority: bytes) -> None:
    head = HttpUpstream(url)._head(b"GET", b"/", [], 0)  # pyright: ignore[reportPrivateUsage]
    assert b"\r\nhost: " + authority + b"\r\n" in head


@pytest.mark.parametrize(
    "url",
    [
        "",
        "model:8080",
        "ftp://model",
        "http://",
        "http://user:secret@model",
        "http://model:port",
        "http://model:99999",
        "http://model/?query",
        "http://model/#fragment",
        "http://model/a b",
        "http://model/\r\nx: y",
        "http://mo del",
        "http://[::1",
        "http://a..b",
        "http://model/ü",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(PolicyError) as caught:
        HttpUpstream(url)
    assert "secret" not in str(caught.value)
