from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import orjson
import pytest

from guard.model.exchange import Reply
from guard.proxy.protocol import MAX_PIPELINED, STALLED_S, sweep_forever
from tests.support.fakes import Guarded, Seen
from tests.support.listening import connections, listening, talk, until

POLICY = """version: 1
limits: {header_bytes: 2048, body_bytes: 4096, read_timeout_s: 0.2, concurrency: 2}
routes: [{name: r, api: kserve_v1, defences: [{kind: label_only}]}]
"""
BODY = b'{"instances":[[1]]}'
HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: a\r\n"
PLAIN = HEAD + b"content-length: %d\r\n" % len(BODY)
CLOSE = PLAIN + b"connection: close\r\n\r\n" + BODY


def predictions(seen: Seen) -> Reply:
    del seen
    return Reply(200, [], b'{"predictions":[[0.9,0.1]]}')


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    made = Guarded(POLICY, tmp_path)
    made.upstream.answer = predictions
    return made


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


async def test_a_request_is_answered(guarded: Guarded) -> None:
    async with listening(guarded) as (port, _):
        answer = await talk(port, CLOSE)
    assert status(answer) == 200
    assert orjson.loads(answer.split(b"\r\n\r\n", 1)[1]) == {"predictions": [[1.0, 0.0]]}


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_a_request_in_small_pieces_is_answered(guarded: Guarded, size: int) -> None:
    async with listening(guarded) as (port, _):
        answer = await talk(port, *(CLOSE[i : i + size] for i in range(0, len(CLOSE), size)))
    assert status(answer) == 200


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: +5\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"x: a\r\n folded: b\r\n",
        b"x: a\ntransfer-encoding: chunked\r\n",
        b"\x00: a\r\n",
    ],
)
async def test_what_could_be_smuggled_is_refused_and_the_connection_closed(guarded: Guarded, head: bytes) -> None:
    smuggled = b"\r\n0\r\n\r\nGET /v1/models/m HTTP/1.1\r\nhost: a\r\n\r\n"
    async with listening(guarded) as (port, _):
        answer = await talk(port, HEAD + head + smuggled)
    assert status(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1
    assert guarded.upstream.seen == []


async def test_http_1_0_has_no_transfer_codings(guarded: Guarded) -> None:
    head = b"POST /v1/models/m:predict HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    async with listening(guarded) as (port, _):
        assert status(await talk(port, head)) == 400


async def test_chunked_bodies_are_read(guarded: Guarded) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (BODY[:4], BODY[4:])) + b"0\r\n\r\n"
    async with listening(guarded) as (port, _):
        answer = await talk(port, HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + chunks)
    assert status(answer) == 200
    assert guarded.upstream.seen[0].body == BODY


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x-a: " + b"a" * 3000 + b"\r\n\r\n"],
        [b"x-%d: a\r\n" % i for i in range(500)],
        [b"x-a: " + b"a" * 65536] * 12,
    ],
)
async def test_heads_are_bounded(guarded: Guarded, pieces: list[bytes]) -> None:
    async with listening(guarded) as (port, server):
        with contextlib.suppress(OSError):  # closed while the client was still sending
            assert status(await talk(port, HEAD, *pieces)) in (0, 431)
        await until(lambda: not connections(server))
    assert guarded.upstream.seen == []


async def test_request_lines_are_bounded(guarded: Guarded) -> None:
    async with listening(guarded) as (port, _):
        assert status(await talk(port, b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nhost: a\r\n\r\n")) == 431


@pytest.mark.parametrize(
    "head", [b"content-length: 5000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n1388\r\n" + b" " * 5000]
)
async def test_bodies_are_bounded(guarded: Guarded, head: bytes) -> None:
    async with listening(guarded) as (port, _):
        answer = await talk(port, HEAD + head)
    assert status(answer) == 413
    assert b"connection: close" in answer


async def test_a_slow_body_is_given_up(guarded: Guarded) -> None:
    async with listening(guarded) as (port, _):
        assert status(await talk(port, PLAIN + b"\r\n" + BODY[:3])) == 408


@pytest.mark.parametrize("sent", [b"", b"POST /v1", PLAIN])
async def test_a_slow_head_is_given_up(guarded: Guarded, sent: bytes) -> None:
    async with listening(guarded) as (port, server):
        sweep = asyncio.create_task(sweep_forever(server.server_state.connections, 0.01))
        assert status(await talk(port, sent)) == 408
        sweep.cancel()


async def test_an_idle_connection_between_requests_is_left_alone(guarded: Guarded) -> None:
    async with listening(guarded) as (port, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PLAIN + b"\r\n" + BODY)
        await reader.readuntil(b"}")
        connection = connections(server)[0]
        connection.sweep(connection.loop.time() + 1000)
        writer.write(CLOSE)
        assert status(await reader.read()) == 200
        writer.close()


async def test_pipelined_requests_are_answered_in_order_and_bounded(guarded: Guarded) -> None:
    async with listening(guarded) as (port, _):
        answer = await talk(port, (PLAIN + b"\r\n" + BODY) * 3 + CLOSE)
        assert answer.count(b"HTTP/1.1 200") == 4
        answer = await talk(port, (PLAIN + b"\r\n" + BODY) * (MAX_PIPELINED + 10))
        assert answer.count(b"HTTP/1.1 200") <= MAX_PIPELINED + 1


async def test_a_client_that_leaves_cancels_the_call_to_the_model(guarded: Guarded) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def never(*_: object) -> Reply:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    guarded.upstream.send = never  # pyright: ignore[reportAttributeAccessIssue]  # a fake's method
    async with listening(guarded) as (port, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PLAIN + b"\r\n" + BODY)
        async with asyncio.timeout(5):
            await asked.wait()
            writer.transport.abort()
            await cancelled.wait()
        await until(lambda: guarded.app.in_flight == 0)


async def test_load_beyond_the_bound_is_shed(guarded: Guarded) -> None:
    release = asyncio.Event()

    async def held(*_: object) -> Reply:
        await release.wait()
        return Reply(200, [], b'{"predictions":[[0.9,0.1]]}')

    guarded.upstream.send = held  # pyright: ignore[reportAttributeAccessIssue]  # a fake's method
    async with listening(guarded) as (port, _):
        waiting = [asyncio.create_task(talk(port, CLOSE)) for _ in range(2)]
        await until(lambda: guarded.app.in_flight == 2)
        shed = await talk(port, CLOSE)
        assert status(shed) == 503
        assert b"retry-after: 1" in shed
        release.set()
        assert [status(await task) for task in waiting] == [200, 200]


async def test_a_client_that_does_not_read_is_cut_off(guarded: Guarded) -> None:
    async with listening(guarded) as (port, server):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: bool(connections(server)))
        connection = connections(server)[0]
        connection.in_head = False
        connection.pause_writing()
        connection.sweep(connection.loop.time() + STALLED_S - 1)
        assert not connection.transport.is_closing()
        connection.resume_writing()
        connection.sweep(connection.loop.time() + STALLED_S + 1)
        assert not connection.transport.is_closing()
        connection.pause_writing()
        connection.sweep(connection.loop.time() + STALLED_S + 1)
        assert connection.transport.is_closing()
        writer.close()


async def test_websockets_and_upgrades_are_not_served(guarded: Guarded) -> None:
    head = b"GET /v2/ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    async with listening(guarded) as (port, _):
        assert status(await talk(port, head)) == 404
