"""The gRPC upstream on real sockets: replies, refusals, and whether a model has seen a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from guard.errors import PolicyError, UpstreamError
from guard.model.exchange import Reply
from guard.upstream.ensemble import Upstreams
from guard.upstream.grpc import TELL, TRAILER, GrpcUpstream, metadata_of
from tests.support.authorities import Authority
from tests.support.grpc_models import INFER, SCORES, Asked, Model, grpc, model, scores
from tests.support.processes import free_port

TARGET = INFER.encode()
READY, LIVE = b"/v2/health/ready", b"/v2/health/live"


@asynccontextmanager
async def upstream(url: str, **options: Any) -> AsyncGenerator[GrpcUpstream]:
    made = GrpcUpstream(url, **options)
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def asking(
    answer: Callable[[Asked, Any], Awaitable[bytes]] = scores, **options: Any
) -> AsyncGenerator[tuple[Model, GrpcUpstream]]:
    async with model(answer) as served, upstream(f"grpc://127.0.0.1:{served.port}", **options) as made:
        yield served, made


async def send(made: GrpcUpstream, timeout_s: float = 5, headers: list[tuple[bytes, bytes]] | None = None) -> Reply:
    return await made.send(b"POST", TARGET, headers or [], b"asked", timeout_s)


def ending(code: str, details: str = "Traceback: secret") -> Callable[[Asked, Any], Awaitable[bytes]]:
    async def answer(asked: Asked, context: Any) -> bytes:
        del asked
        await context.abort(grpc.StatusCode[code], details, (("why", "behind"),))
        return b""

    return answer


async def test_bytes_go_both_ways_with_metadata() -> None:
    async def answer(asked: Asked, context: Any) -> bytes:
        await context.send_initial_metadata((("before", "1"),))
        context.set_trailing_metadata((("behind", "2"), ("x-bin", b"\0")))
        return asked.body + b"!"

    async with asking(answer) as (served, made):
        headers = [(b"x-request-id", b"abc"), (b"te", b"trailers"), (b"grpc-timeout", b"1S"), (b"x-b-bin", b"\0\xff")]
        assert await send(made, headers=headers) == Reply(200, [], b"asked!")
        told = await send(made, headers=[TELL])
        assert told.headers == [(b"before", b"1"), (TRAILER + b"behind", b"2"), (TRAILER + b"x-bin", b"\0")]
    assert served.asked[0].metadata.items() >= {"x-request-id": "abc", "x-b-bin": b"\0\xff"}.items()
    assert "grpc-timeout" not in served.asked[0].metadata
    assert 4 < served.asked[0].left_s < 5.1


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_ARGUMENT", 400), ("FAILED_PRECONDITION", 400), ("OUT_OF_RANGE", 400), ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403), ("NOT_FOUND", 404), ("UNIMPLEMENTED", 405), ("ALREADY_EXISTS", 409),
        ("ABORTED", 409), ("RESOURCE_EXHAUSTED", 429), ("UNAVAILABLE", 503), ("INTERNAL", 500), ("UNKNOWN", 500),
        ("DATA_LOSS", 500), ("CANCELLED", 500),
    ],
)  # fmt: skip
async def test_a_models_error_is_the_status_that_http_has_for_it(code: str, status: int) -> None:
    async with asking(ending(code)) as (_, made):
        reply = await send(made)
    assert (reply.status, reply.body) == (status, b"")
    assert reply.headers == [
        (b"grpc-status", b"%d" % grpc.StatusCode[code].value[0]),
        (b"grpc-message", b"Traceback: secret"),
        (TRAILER + b"why", b"behind"),
    ]


async def test_a_request_that_found_no_connection_was_not_seen() -> None:
    async with upstream(f"grpc://127.0.0.1:{free_port()}") as made:
        for _ in range(2):
            with pytest.raises(UpstreamError) as caught:
                await send(made)
            assert (caught.value.code, caught.value.status, caught.value.reached) == (
                "upstream_unreachable",
                502,
                False,
            )


async def test_a_model_that_claims_it_could_not_be_reached_was_reached() -> None:
    async with asking(ending("UNAVAILABLE", "failed to connect to all addresses; last error: x")) as (_, made):
        assert (await send(made)).status == 503


async def test_a_connection_that_breaks_under_a_request_counts_as_reached() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The settings of HTTP/2, and their acknowledgement: the client takes it for a server, and sends its request.
        writer.write(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0")
        while b"asked" not in await reader.read(4096):
            pass
        writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, upstream(f"grpc://127.0.0.1:{server.sockets[0].getsockname()[1]}") as made:
        assert (await send(made)).status == 503


async def test_a_model_that_is_back_is_found_again() -> None:
    async with model() as first:
        port = first.port
    async with upstream(f"grpc://127.0.0.1:{port}") as made:
        with pytest.raises(UpstreamError):
            await send(made)
        async with model(port=port):
            async with asyncio.timeout(10):
                while True:
                    try:
                        assert (await send(made)).body == SCORES
                        break
                    except UpstreamError:
                        await asyncio.sleep(0.05)


async def test_time_runs_out_at_504() -> None:
    async def never(asked: Asked, context: Any) -> bytes:
        del asked, context
        await asyncio.sleep(60)
        return b""

    async with asking(never) as (served, made):
        with pytest.raises(UpstreamError) as caught:
            await send(made, timeout_s=0.2)
        assert (caught.value.code, caught.value.status, caught.value.reached) == ("upstream_timeout", 504, True)
        task = asyncio.create_task(send(made))
        while len(served.asked) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while served.cancelled < 2:
                await asyncio.sleep(0.01)


async def test_an_answer_beyond_the_bound_is_refused_and_the_bound_can_change() -> None:
    async def large(asked: Asked, context: Any) -> bytes:
        del asked, context
        return bytes(5000)

    async with asking(large, max_response_bytes=4096) as (_, made):
        with pytest.raises(UpstreamError) as caught:
            await send(made)
        assert (caught.value.code, caught.value.status) == ("upstream_too_large", 502)
        made.bound(1, 8192)
        assert len((await send(made)).body) == 5000
        made.bound(1, 8192)


async def test_compression_is_not_taken() -> None:
    async def packed(asked: Asked, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)
        assert "gzip" not in asked.metadata.get("grpc-accept-encoding", "")
        return bytes(3000)

    async with asking(packed) as (_, made):
        assert (await send(made)).body == bytes(3000)


async def test_what_is_not_ready_is_503_for_a_get() -> None:
    async def unready(asked: Asked, context: Any) -> bytes:
        del context
        return b"" if asked.method.endswith("Ready") else b"\x08\x01"

    async with asking(unready) as (served, made):
        assert (await made.send(b"GET", READY, [], b"", 5)).status == 503
        assert (await made.send(b"GET", LIVE, [], b"", 5)).status == 200
        assert (await made.send(b"GET", b"/", [], b"", 5)).status == 503
        ready = b"/inference.GRPCInferenceService/ModelReady"
        assert (await made.send(b"GET", ready, [], b"\x0a\x01m", 5)).status == 503
    assert served.asked[-1].body == b"\x0a\x01m"


async def test_several_models_are_an_ensemble() -> None:
    async with model() as one, model() as other, model(ending("INTERNAL")) as broken:
        ports = {"a": one.port, "b": other.port, "c": broken.port}
        urls = [(name, f"grpc://127.0.0.1:{port}") for name, port in ports.items()]
        made = Upstreams(urls, quorum=2, connect=GrpcUpstream)
        heard = await made.send_all(b"POST", TARGET, [], b"", 5, quorum=2, wait_s=5, read=lambda reply: reply.body)
        assert heard == [SCORES, SCORES, None]
        assert [getattr(reply, "status", 0) for reply in await made.each(READY, 5)] == [200, 200, 500]
        await made.aclose()


async def test_no_answer_comes_in_events() -> None:
    async with asking() as (_, made):
        with pytest.raises(UpstreamError):
            await made.open(b"POST", TARGET, [], b"", 5)


async def test_tls_trusts_what_the_system_does(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Authority(tmp_path, "owner")
    owner.server(tmp_path / "cert.pem", tmp_path / "key.pem")
    pair = ((tmp_path / "key.pem").read_bytes(), (tmp_path / "cert.pem").read_bytes())
    async with model(credentials=grpc.ssl_server_credentials([pair])) as served:
        url = f"grpcs://127.0.0.1:{served.port}"
        monkeypatch.setenv("SSL_CERT_FILE", str(owner.file))
        async with upstream(url) as made:
            assert (await send(made)).body == SCORES
        monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path, "stranger").file))
        async with upstream(url) as made:
            with pytest.raises(UpstreamError) as caught:
                await send(made)
            assert caught.value.reached is False


@pytest.mark.parametrize("url", ["http://a:1", "grpc://a", "grpc://a:x", "grpc://a:1/base", "grpc://:1", "grpc://["])
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(PolicyError):
        GrpcUpstream(url)


def test_what_cannot_be_metadata_stays_behind() -> None:
    bad = [(b"", b"x"), (b"X", b"x"), (b"a b", b"x"), (b"x-a", b"\n"), (b"x-b", b"\xff"), (b"host", b"x"), TELL]
    assert metadata_of([*bad, (b"x-c", b"fine")]) == (("x-c", "fine"),)
