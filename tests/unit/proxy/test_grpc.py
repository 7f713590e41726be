"""The gRPC listener on real sockets: one policy and one state with HTTP, status codes, bounds, streams."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from guard.errors import GuardError
from guard.model.exchange import Reply
from guard.proxy.grpc_calls import Calls
from guard.proxy.grpc_listener import MAX_STALLED, GrpcListener
from guard.proxy.grpc_messages import Rpc, certificate_of_pem, code_of, told_error
from guard.proxy.grpc_service import PIPELINED
from guard.proxy.plans import Active
from guard.proxy.protocol import STALLED_S
from guard.upstream.grpc import SERVICE
from guard.wire import open_inference_messages as messages
from tests.support.grpc_messages import answer, asked, output, request, told
from tests.support.grpc_models import INFER, POLICY, Asked, Client, front, grpc, model, scores, until
from tests.support.processes import free_port

ROW = [[1.0, 2.0]]
BODY = request(("x", "FP32", ROW), id_="7")
READY, LIVE, MODEL_READY = (f"{SERVICE}{name}" for name in ("ServerReady", "ServerLive", "ModelReady"))
HEALTH = "/grpc.health.v1.Health/Check"
PRIVATE = """version: 1
routes:
  - name: r
    api: open_inference
    outputs: {kind: probabilities, classes: [a, b, c]}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: 0.001, accept_lost_writes: a test}
    defences: [{kind: dp_gaussian, noise_multiplier: 30}]
    budgets: [{kind: privacy, per: model, epsilon: 1, delta: 1.0e-5}]
"""


def policy(*lines: str, route: str = "") -> str:
    return (
        "version: 1\n" + "".join(f"{line}\n" for line in lines) + f"routes: [{{name: r, api: open_inference{route}}}]\n"
    )


async def test_answers_are_defended_and_carry_the_requests_id(tmp_path: Path) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        traced = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        got = await client.ask(BODY, x_request_id="abcdefgh", x_secret="no", traceparent=traced)
        typed = await client.ask(request(("x", "FP32", ROW), raw=False))
    assert output(got.body, "p") == pytest.approx([0.7, 0.2, 0.1])
    assert told(got.body).id == "7"
    assert got.trailing == {"x-request-id": "abcdefgh"}
    assert typed.code == "OK"
    assert served.asked[0].metadata["x-request-id"] == "abcdefgh"
    assert served.asked[0].metadata["traceparent"] == traced
    assert "x-secret" not in served.asked[0].metadata
    assert guarded.counted == {"ok": 2}


async def test_budgets_are_one_with_http(tmp_path: Path) -> None:
    made = policy(route=", budgets: [{kind: rows, per: client, limit: 3, window: 24h}]")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        guarded.upstream.answer = lambda _: Reply(
            200, [], b'{"outputs":[{"name":"p","datatype":"FP32","shape":[1,2],"data":[0.5,0.5]}]}'
        )
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
        by_http = json.dumps({"inputs": [tensor]}).encode()
        for _ in range(2):
            assert (await guarded.ask("POST", "/v2/models/m/infer", by_http, peer="127.0.0.1")).status == 200
        assert (await client.ask(BODY)).code == "OK"
        refused = await client.ask(BODY)
        assert (await guarded.ask("POST", "/v2/models/m/infer", by_http, peer="127.0.0.1")).status == 429
    assert (refused.code, refused.trailing["guard-code"]) == ("RESOURCE_EXHAUSTED", "budget_spent")
    assert int(refused.trailing["grpc-retry-pushback-ms"]) == 1000 * int(refused.trailing["retry-after"]) > 0
    assert len(served.asked) == 1


async def test_match_says_which_models_are_open(tmp_path: Path) -> None:
    made = policy(route=", match: {path: /v2/models/m/infer}")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        assert (await client.ask(BODY)).code == "OK"
        for name, version in (
            ("other", ""),
            ("m", "1"),
            ("", ""),
            ("a/../m", ""),
            ("m/infer", ""),
            ("..", ""),
            ("M", ""),
        ):
            got = await client.ask(request(("x", "FP32", ROW), model=name, version=version))
            assert (got.code, got.trailing["guard-code"]) == ("NOT_FOUND", "closed"), name
    assert len(served.asked) == 1
    assert guarded.counted == {"ok": 1, "closed": 7}


async def test_versions_and_odd_names_are_open_as_http_has_them(tmp_path: Path) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        for name, version in (("m", "2"), ("a b+c", ""), ("é", "1")):
            got = await client.ask(request(("x", "FP32", ROW), model=name, version=version))
            assert got.code == "OK"
            assert (asked(served.asked[-1].body).model_name, asked(served.asked[-1].body).model_version) == (
                name,
                version,
            )


async def test_a_route_of_another_api_is_not_served(tmp_path: Path) -> None:
    made = """version: 1
routes:
  - name: own
    api: json
    match: {path: /v2/models/own/infer}
    select: {queries: $.x, scores: $.y}
  - {name: r, api: open_inference}
"""
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        assert (await client.ask(request(("x", "FP32", ROW), model="own"))).code == "NOT_FOUND"
        assert (await client.ask(BODY)).code == "OK"


CLOSED = [
    f"{SERVICE}ModelMetadata", f"{SERVICE}ServerMetadata", f"{SERVICE}ModelConfig", f"{SERVICE}ModelStatistics",
    f"{SERVICE}RepositoryIndex", f"{SERVICE}SystemSharedMemoryRegister", f"{SERVICE}TraceSetting",
    f"{SERVICE}LogSettings", f"{SERVICE}modelinfer", "/inference.Other/ModelInfer", "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]  # fmt: skip


async def test_everything_else_is_unimplemented(tmp_path: Path) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        for method in CLOSED:
            got = await client.ask(b"", method)
            assert (got.code, got.message) == ("UNIMPLEMENTED", "this method is closed"), method
            assert got.trailing["guard-code"] == "closed"
    assert not served.asked
    assert guarded.counted == {"closed": len(CLOSED)}


async def test_whether_it_is_ready_is_the_models_word_and_nothing_else(tmp_path: Path) -> None:
    ready = True

    async def answering(asked: Asked, context: Any) -> bytes:
        if asked.method == MODEL_READY and asked.body != messages.model_ready_request("m", ""):
            await context.abort(grpc.StatusCode.NOT_FOUND, "secret")
        return (b"\x08\x01" if ready else b"") + b"\x1a\x06secret"

    async with model(answering) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        asks = [(LIVE, b""), (READY, b"\x1a\x01x"), (MODEL_READY, messages.model_ready_request("m", ""))]
        for method, body in asks:
            assert (await client.ask(body, method)).body == b"\x08\x01"
        assert (await client.ask(b"", HEALTH)).body == b"\x08\x01"
        assert (await client.ask(b"\x0a\x1einference.GRPCInferenceService", HEALTH)).body == b"\x08\x01"
        ready = False
        for method, body in asks:
            assert (await client.ask(body, method)).body == b""
        assert (await client.ask(b"", HEALTH)).body == b"\x08\x02"
        assert (await client.ask(b"\x0a\x05other", HEALTH)).code == "NOT_FOUND"
        unknown = await client.ask(messages.model_ready_request("n", ""), MODEL_READY)
        assert (unknown.code, unknown.message) == ("NOT_FOUND", "the model refused this request")
        assert (await client.ask(b"\xff", MODEL_READY)).code == "INVALID_ARGUMENT"
        assert (await client.ask(messages.model_ready_request("a/b", ""), MODEL_READY)).code == "NOT_FOUND"


async def test_a_model_that_is_gone_is_not_healthy(tmp_path: Path) -> None:
    async with front(tmp_path, free_port()) as guarded, Client(guarded.address) as client:
        assert (await client.ask(b"", HEALTH)).body == b"\x08\x02"
        got = await client.ask(BODY)
    assert (got.code, got.trailing["guard-code"]) == ("UNAVAILABLE", "upstream_unreachable")


@pytest.mark.parametrize(
    ("code", "shown", "message"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT", "the model refused this request"),
        ("NOT_FOUND", "NOT_FOUND", "the model refused this request"),
        ("UNIMPLEMENTED", "UNIMPLEMENTED", "the model refused this request"),
        ("UNAVAILABLE", "UNAVAILABLE", "the model is busy"),
        ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "the model is busy"),
        ("PERMISSION_DENIED", "INTERNAL", "the model failed"),
        ("INTERNAL", "INTERNAL", "the model failed"),
        ("UNKNOWN", "INTERNAL", "the model failed"),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "upstream did not answer in time"),
    ],
)
async def test_a_models_own_words_stay_behind(tmp_path: Path, code: str, shown: str, message: str) -> None:
    async def failing(asked: Asked, context: Any) -> bytes:
        del asked
        await context.abort(grpc.StatusCode[code], "Traceback: secret", (("why", "secret"),))
        return b""

    async with model(failing) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        got = await client.ask(BODY)
    assert (got.code, got.message) == (shown, message)
    assert "secret" not in str(got)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (answer(("p", "FP32", [[0.5, 0.5], [0.5, 0.5]])), "too_many_predictions"),
        (answer(("hidden", "FP32", [[7.0, 3.0]])), "unreadable_answer"),
        (b"\xff", "unreadable_answer"),
    ],
)
async def test_an_answer_that_is_withheld_is_not_to_be_asked_for_again(tmp_path: Path, body: bytes, code: str) -> None:
    async def answering(asked: Asked, context: Any) -> bytes:
        del asked, context
        return body

    async with model(answering) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        got = await client.ask(BODY)
    assert (got.code, got.trailing["guard-code"]) == ("INTERNAL", code)


def test_every_status_of_an_error_has_its_code() -> None:
    codes = {
        400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 409: 9, 413: 8, 415: 3, 422: 3, 429: 8, 499: 1, 500: 13,
        502: 13, 503: 14, 504: 4, 418: 2,
    }  # fmt: skip
    assert {status: code_of(GuardError("x", status=status)) for status in codes} == codes
    assert code_of(GuardError("x", code="upstream_unreachable", status=502)) == 14
    assert dict(told_error(GuardError("x", retry_after_s=10**9), "").trailing)["grpc-retry-pushback-ms"] == str(
        2**31 - 1
    )


async def test_credentials_name_clients_as_over_http(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"alice@acme:{sha256(b'key').hexdigest()}\n")
    (tmp_path / "keys").chmod(0o600)
    made = policy(f"identity: [{{kind: api_key, header: x-api-key, keys_file: {tmp_path / 'keys'}}}]")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        wrong = await client.ask(BODY, x_api_key="nothing-of-the-kind")
        assert (wrong.code, wrong.trailing["guard-code"]) == ("UNAUTHENTICATED", "unknown_credential")
        assert (await client.ask(BODY, x_api_key="key")).code == "OK"
        assert (await client.ask(BODY, x_api_key="Bearer key")).code == "OK"
    assert {recent.client for recent in guarded.handler.recent.latest if recent.outcome == "ok"} == {"alice"}
    assert all("x-api-key" not in one.metadata for one in served.asked)


async def test_addresses_name_those_who_bring_no_credential(tmp_path: Path) -> None:
    made = policy("identity: [{kind: address, trusted_proxies: [127.0.0.0/8]}]")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        assert (await client.ask(BODY)).code == "OK"
        assert (await client.ask(BODY, x_forwarded_for="192.0.2.7")).code == "OK"
    assert [recent.client for recent in guarded.handler.recent.latest] == ["address:127.0.0.1", "address:192.0.2.7"]


async def test_the_model_is_given_no_more_time_than_the_client(tmp_path: Path) -> None:
    made = policy("limits: {upstream_timeout_s: 5}")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        await client.ask(BODY, timeout_s=2)
        await client.ask(BODY, timeout_s=50)
    assert served.asked[0].left_s < 2.1
    assert 4 < served.asked[1].left_s < 5.1


async def hanging(asked: Asked, context: Any) -> bytes:
    del asked, context
    await asyncio.sleep(60)
    return b""


async def test_a_client_that_is_gone_or_out_of_time_cancels_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with model(hanging) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        assert (await client.ask(BODY, timeout_s=0.3)).code == "DEADLINE_EXCEEDED"
        await until(lambda: served.cancelled == 1)
        call = client.channel.unary_unary(INFER)(BODY)
        await until(lambda: len(served.asked) == 2)
        call.cancel()
        await until(lambda: served.cancelled == 2)
        await until(lambda: guarded.service.in_flight == 0)
    assert sum(guarded.counted.values()) == 2
    assert not caplog.records


async def test_a_model_that_is_too_slow_is_504(tmp_path: Path) -> None:
    made = policy("limits: {upstream_timeout_s: 0.2}")
    async with (
        model(hanging) as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        got = await client.ask(BODY)
    assert (got.code, got.trailing["guard-code"]) == ("DEADLINE_EXCEEDED", "upstream_timeout")


async def test_bodies_and_metadata_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = policy("limits: {body_bytes: 4096, header_bytes: 2048, rows: 4}")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        large = request(("x", "FP32", np.zeros((2, 1000)).tolist()))
        assert (await client.ask(large)).code == "RESOURCE_EXHAUSTED"
        call = client.channel.unary_unary(INFER)(large, compression=grpc.Compression.Gzip, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        rows = await client.ask(request(("x", "FP32", [[1.0]] * 5)))
        assert (rows.code, rows.trailing["guard-code"]) == ("RESOURCE_EXHAUSTED", "too_many_rows")
        assert (await client.ask(BODY, x_long="x" * 4096)).code == "RESOURCE_EXHAUSTED"
        packed = client.channel.unary_unary(INFER)(BODY, compression=grpc.Compression.Gzip, timeout=10)
        assert told(await packed).id == "7"
    assert len(served.asked) == 1
    assert not caplog.records, "what clients do wrong fills no log"


async def test_an_answer_beyond_the_bound_is_withheld(tmp_path: Path) -> None:
    async def large(asked: Asked, context: Any) -> bytes:
        del asked, context
        return answer(("p", "FP32", np.full((1, 1000), 1e-3).tolist()))

    made = policy("limits: {answer_bytes: 2048}")
    async with (
        model(large) as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        got = await client.ask(BODY)
    assert (got.code, got.trailing["guard-code"]) == ("INTERNAL", "upstream_too_large")


async def test_more_requests_than_may_be_in_flight_are_shed(tmp_path: Path) -> None:
    made = policy("limits: {concurrency: 1}")
    async with (
        model(hanging) as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        first = asyncio.create_task(client.ask(BODY, timeout_s=3))
        await until(lambda: len(served.asked) == 1)
        shed = await client.ask(BODY)
        assert (shed.code, shed.trailing["guard-code"], shed.trailing["grpc-retry-pushback-ms"]) == (
            "UNAVAILABLE", "overloaded", "1000",
        )  # fmt: skip
        assert (await guarded.ask("POST", "/v2/models/m/infer", b"{}")).status == 503
        first.cancel()
        await until(lambda: guarded.service.in_flight == 0)
        guarded.app.in_flight = 1
        assert (await client.ask(BODY)).code == "UNAVAILABLE"


async def test_a_client_that_sends_too_slowly_is_let_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        call = client.channel.stream_unary(INFER)(timeout=10)
        await until(lambda: guarded.service.in_flight == 1)
        guarded.service.patience.look(monotonic() + 14)
        assert guarded.service.in_flight == 1
        guarded.service.patience.look(monotonic() + 16)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.DEADLINE_EXCEEDED, "the request took too long to arrive",
        )  # fmt: skip
        empty = client.channel.stream_unary(INFER)(timeout=10)
        await empty.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match="no message"):
            await empty
    assert guarded.counted == {"read_timeout": 1, "bad_message": 1}
    assert not caplog.records


async def test_a_client_that_does_not_read_its_answer_is_let_go(tmp_path: Path) -> None:
    # A window of no bytes: what is answered stays on Guard's side.
    settings = b"\0\0\6\4\0\0\0\0\0" + b"\0\4\0\0\0\0"
    path = INFER.encode()
    names = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a")]
    names += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    head = b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in names)
    data = b"\0" + len(BODY).to_bytes(4, "big") + BODY
    made = policy("limits: {drain_s: 0.1}")
    async with model() as served, front(tmp_path, served.port, policy=made) as guarded:
        reader, writer = await asyncio.open_connection(*guarded.listener.address)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        writer.write(len(head).to_bytes(3, "big") + b"\1\4\0\0\0\1" + head)
        writer.write(len(data).to_bytes(3, "big") + b"\0\1\0\0\0\1" + data)
        await until(lambda: guarded.counted == {"ok": 1})
        assert guarded.service.patience.waiting == 1
        guarded.service.patience.look(monotonic() + STALLED_S + 1)
        await until(lambda: guarded.service.patience.waiting == 0)
        # The library keeps the answer; before there are too many, another server takes over.
        assert guarded.service.patience.stalled == 1
        guarded.service.patience.stalled = MAX_STALLED
        async with asyncio.timeout(10):
            while await reader.read(4096):
                pass
        assert guarded.service.patience.stalled == 0
        async with Client(guarded.address) as client:
            assert (await client.ask(BODY)).code == "OK"
        writer.close()


async def test_shadow_lets_everything_through_as_it_came(tmp_path: Path) -> None:
    unknown = b"\xfa\x07\x01x"
    sent = BODY + unknown
    said = answer(("hidden", "FP32", [[7.0, 3.0], [1.0, 2.0]])) + unknown

    async def answering(asked: Asked, context: Any) -> bytes:
        if asked.body == b"fail":
            await context.abort(grpc.StatusCode.INTERNAL, "Traceback", (("why", "because"),))
        context.set_trailing_metadata((("behind", "1"),))
        return said

    made = (
        "version: 1\nmode: shadow\n"
        + POLICY.partition("\n")[2]
        + ("    budgets: [{kind: rows, per: client, limit: 1, window: 24h}]\n")
    )
    async with (
        model(answering) as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        for _ in range(2):
            got = await client.ask(sent, x_other="kept", authorization="Bearer x")
            assert (got.body, got.trailing) == (said, {"behind": "1"})
        assert served.asked[0].body == sent
        assert served.asked[0].metadata["x-other"] == "kept"
        assert "authorization" not in served.asked[0].metadata
        metadata = await client.ask(b"\x0a\x01m", f"{SERVICE}ModelMetadata")
        assert metadata.body == said
        assert (await client.ask(b"\xff\xff")).body == said, "what is no request is the model's to refuse"
        failed = await client.ask(b"fail")
        assert (failed.code, failed.message, failed.trailing) == ("INTERNAL", "Traceback", {"why": "because"})
        assert (await client.ask(b"", LIVE)).body == said
        assert (await client.ask(b"", "/other.Service/Method")).code == "UNIMPLEMENTED"
    assert guarded.counted["ok"] == 6


async def test_a_new_policy_holds_for_new_calls(tmp_path: Path) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        assert output((await client.ask(BODY)).body, "p") == pytest.approx([0.7, 0.2, 0.1])
        (tmp_path / "policy.yaml").write_text(POLICY.replace("decimals: 1", "decimals: 2"))
        assert (await guarded.plans.reload())[0]
        assert output((await client.ask(BODY)).body, "p") == pytest.approx([0.71, 0.21, 0.08])


async def test_new_bounds_hold_after_a_reload_and_running_calls_end(tmp_path: Path) -> None:
    going = asyncio.Event()

    async def waiting(asked: Asked, context: Any) -> bytes:
        if asked.metadata.get("x-request-id") == "long-one":
            await going.wait()
        return await scores(asked, context)

    small = policy("limits: {body_bytes: 1024}")
    async with (
        model(waiting) as served,
        front(tmp_path, served.port, policy=small) as guarded,
        Client(guarded.address) as client,
    ):
        large = request(("x", "FP32", np.zeros((1, 1000)).tolist()))
        assert (await client.ask(large)).code == "RESOURCE_EXHAUSTED"
        long_one = asyncio.create_task(client.ask(BODY, x_request_id="long-one"))
        await until(lambda: len(served.asked) == 1)
        (tmp_path / "policy.yaml").write_text(small.replace("1024", "65536"))
        assert (await guarded.plans.reload())[0]

        async def taken() -> bool:
            async with Client(guarded.address) as another:
                return (await another.ask(large)).code == "OK"

        async with asyncio.timeout(10):
            while not await taken():
                await asyncio.sleep(0.02)
        going.set()
        assert (await long_one).code == "OK"
        assert (await client.ask(large)).code == "OK", "the client was told to come again"


async def test_remembered_releases_are_shared_with_http_and_written_for_grpc(tmp_path: Path) -> None:
    async with (
        model() as served,
        front(tmp_path, served.port, policy=PRIVATE) as guarded,
        Client(guarded.address) as client,
    ):
        guarded.upstream.answer = lambda _: Reply(
            200, [], b'{"outputs":[{"name":"p","datatype":"FP32","shape":[1,3],"data":[0.71,0.21,0.08]}]}'
        )
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
        by_http = json.dumps({"inputs": [tensor]}).encode()
        first = await client.ask(BODY)
        again = await client.ask(request(("x", "FP32", ROW), id_="8"))
        assert first.code == again.code == "OK"
        assert output(first.body, "p") == output(again.body, "p")
        assert told(again.body).id == "8"
        assert len(served.asked) == 1
        http = await guarded.ask("POST", "/v2/models/m/infer", by_http, peer="127.0.0.1")
        assert json.loads(http.body)["outputs"][0]["data"] == pytest.approx(output(first.body, "p"))


async def test_several_models_answer_as_one(tmp_path: Path) -> None:
    async def other(asked: Asked, context: Any) -> bytes:
        return answer(("p", "FP32", [[0.51, 0.41, 0.08]])) if asked.method == INFER else await scores(asked, context)

    made = policy(route=", ensemble: {aggregate: mean, quorum: 2}, defences: [{kind: round, decimals: 2}]")
    async with (
        model() as one,
        model(other) as two,
        front(tmp_path, one.port, two.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        assert output((await client.ask(BODY)).body, "p") == pytest.approx([0.61, 0.31, 0.08])
        assert (await client.ask(b"", READY)).body == b"\x08\x01"


async def test_a_stream_answers_in_order_and_says_which_request_failed(tmp_path: Path) -> None:
    async def answering(asked: Asked, context: Any) -> bytes:
        if b"slow" in asked.body:
            await asyncio.sleep(0.1)
        return await scores(asked, context)

    made = policy(route=", budgets: [{kind: rows, per: client, limit: 3, window: 24h}]")
    async with (
        model(answering) as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        call = client.stream(x_request_id="abcdefgh")
        bodies = [request(("x", "FP32", ROW), id_=id_) for id_ in ("slow-1", "2", "3", "4")]
        for body in (*bodies[:3], b"\xff", bodies[3], request(("x", "FP32", ROW), model="a/b", id_="5")):
            await call.write(body)
        await call.done_writing()
        found = [parsed(message) async for message in call]
        assert (await call.code()) is grpc.StatusCode.OK
    assert [(one.infer_response.id, one.error_message) for one in found] == [
        ("slow-1", ""),
        ("2", ""),
        ("3", ""),
        ("", "the request is no ModelInferRequest"),
        ("4", "the budget is spent"),
        ("5", "this endpoint is closed"),
    ]
    assert [one.infer_response.parameters["triton_final_response"].bool_param for one in found[:3]] == [True] * 3
    assert {asked.metadata["x-request-id"] for asked in served.asked} == {f"abcdefgh-{i}" for i in (1, 2, 3)}
    assert {asked.method for asked in served.asked} == {INFER}


def parsed(message: bytes) -> Any:  # Any: the library's message
    found = messages._classes()["ModelStreamInferResponse"]()  # pyright: ignore[reportPrivateUsage]
    found.ParseFromString(message)
    return found


async def test_a_stream_may_ask_to_end_at_its_first_error(tmp_path: Path) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        call = client.stream(triton_grpc_error="true")
        await call.write(b"\xff")
        with pytest.raises(grpc.aio.AioRpcError, match="no ModelInferRequest") as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_streams_requests_under_way_are_bounded_and_sequences_wait(tmp_path: Path) -> None:
    going = asyncio.Event()

    async def waiting(asked: Asked, context: Any) -> bytes:
        await going.wait()
        return await scores(asked, context)

    async with model(waiting) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        call = client.stream(timeout_s=20)
        for _ in range(3):
            await call.write(request(("x", "FP32", ROW), parameters={"sequence_id": 5}))
        for _ in range(3 * PIPELINED):
            await call.write(BODY)
        await until(lambda: len(served.asked) >= PIPELINED - 2)
        await asyncio.sleep(0.1)
        assert len(served.asked) <= PIPELINED + 2
        assert sum("sequence_id" in asked(one.body).parameters for one in served.asked) == 1
        going.set()
        await call.done_writing()
        assert len([message async for message in call]) == 3 + 3 * PIPELINED


async def test_a_stream_that_is_cancelled_cancels_what_is_under_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with model(hanging) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        call = client.stream()
        for _ in range(3):
            await call.write(BODY)
        await until(lambda: len(served.asked) == 3)
        call.cancel()
        await until(lambda: served.cancelled == 3 and guarded.service.in_flight == 0)
    assert not caplog.records


async def test_a_stream_ends_in_time_and_streams_are_bounded(tmp_path: Path) -> None:
    made = policy("limits: {stream_s: 0.3, concurrency: 2}")
    async with (
        model() as served,
        front(tmp_path, served.port, policy=made) as guarded,
        Client(guarded.address) as client,
    ):
        call = client.stream()
        await call.write(BODY)
        assert parsed(await call.read()).infer_response.id == "7"
        other = client.stream()
        with pytest.raises(grpc.aio.AioRpcError, match="too many requests in flight"):
            await other.read()
        with pytest.raises(grpc.aio.AioRpcError, match="as long as it may"):
            await call.read()


async def test_draining_answers_what_is_under_way_and_takes_no_more(tmp_path: Path) -> None:
    going = asyncio.Event()

    async def waiting(asked: Asked, context: Any) -> bytes:
        await going.wait()
        return await scores(asked, context)

    async with model(waiting) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        call = client.stream()
        await call.write(BODY)
        unary = asyncio.create_task(client.ask(BODY))
        await until(lambda: len(served.asked) == 2)
        guarded.listener.should_exit = True
        await until(lambda: not guarded.service.streams)
        going.set()
        assert (await unary).code == "OK"
        assert parsed(await call.read()).infer_response.id == "7"
        with pytest.raises(grpc.aio.AioRpcError, match="shutting down") as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_second_signal_ends_what_is_under_way(tmp_path: Path) -> None:
    async with model(hanging) as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        unary = asyncio.create_task(client.ask(BODY))
        await until(lambda: len(served.asked) == 1)
        guarded.listener.should_exit = True
        await asyncio.sleep(0.05)
        assert not unary.done()
        guarded.listener.force_exit = True
        assert (await unary).code == "UNAVAILABLE"


async def test_a_bug_says_nothing_to_the_client(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Calls):
        def infer(self, active: Active, rpc: Rpc, body: bytes, message: Any) -> Any:
            raise ValueError("secret")

    async with model() as served, front(tmp_path, served.port) as guarded, Client(guarded.address) as client:
        guarded.service._calls = Broken(guarded.models, guarded.metrics, guarded.clock)  # pyright: ignore[reportPrivateUsage]
        got = await client.ask(BODY)
        assert (got.code, got.message, got.trailing["guard-code"]) == ("INTERNAL", "internal error", "internal")
        call = client.stream()
        await call.write(BODY)
        await call.done_writing()
        assert [parsed(message).error_message async for message in call] == ["internal error"]
    assert caplog.text.count("bug in the gRPC listener") == 2


async def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    async with model() as served, front(tmp_path, served.port) as guarded:
        with pytest.raises(OSError, match="cannot listen"):
            GrpcListener(guarded.service, guarded.listener.address, lambda: guarded.plans.current.plan.limits)


def test_a_certificate_that_cannot_be_read_names_nobody() -> None:
    assert certificate_of_pem(b"nothing").common_name == ()
