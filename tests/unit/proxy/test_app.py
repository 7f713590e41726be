"""The data listener's edge: what is refused before it becomes an exchange, and what happens to clients that leave."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from guard.model.exchange import Reply
from tests.support.fakes import Guarded, Seen

PATH = "/v2/models/m/infer"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}]}).encode()
ANSWER = json.dumps({"outputs": [{"name": "p", "shape": [1, 2], "datatype": "FP64", "data": [0.25, 0.75]}]}).encode()
Message = dict[str, Any]  # Any: ASGI


def guarded(folder: Path, limits: str = "", mode: str = "enforce") -> Guarded:
    made = Guarded(f"version: 1\nmode: {mode}\nlimits: {{{limits}}}\nroutes: [{{api: open_inference}}]\n", folder)
    made.upstream.answer = lambda _: Reply(200, [], ANSWER)
    return made


def scope(**changed: Any) -> Message:  # Any: ASGI
    made: Message = {
        "type": "http",
        "method": "POST",
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 40000),
        "http_version": "1.1",
    }
    return made | changed


async def run(app: Guarded, asked: Message, messages: list[Message]) -> list[Message]:
    """Serve one request from raw ASGI messages; without one left the client says nothing more."""
    sent: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Any) -> None:  # Any: ASGI
        sent.append(message)

    await app.app(asked, receive, send)
    return sent


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_the_body(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    got = await made.ask("POST", PATH, chunks=[BODY[:5], BODY[5:9], BODY[9:]])
    assert got.status == 200
    assert made.upstream.seen[0].body == BODY


@pytest.mark.parametrize("chunks", [[b"x" * 1025], [b"x" * 600, b"x" * 600], [b"x" * 1024, b"x"]])
async def test_a_body_that_is_too_large_is_refused_however_it_comes(chunks: list[bytes], tmp_path: Path) -> None:
    made = guarded(tmp_path, "body_bytes: 1024")
    got = await made.ask("POST", PATH, chunks=chunks)
    assert (got.status, got.headers["connection"]) == (413, "close")
    assert made.upstream.seen == []


async def test_a_declared_length_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    made = guarded(tmp_path, "body_bytes: 1024")
    sent = await run(made, scope(headers=[(b"content-length", b"1025")]), [])
    assert sent[0]["status"] == 413


@pytest.mark.parametrize(
    ("coding", "version", "status"),
    [(b"chunked", "1.1", 200), (b" Chunked ", "1.1", 200), (b"gzip, chunked", "1.1", 400), (b"chunked", "1.0", 400)],
)
async def test_only_chunked_is_taken_as_transfer_coding(
    coding: bytes, version: str, status: int, tmp_path: Path
) -> None:
    asked = scope(headers=[(b"transfer-encoding", coding)], http_version=version)
    sent = await run(guarded(tmp_path), asked, [piece(BODY)])
    assert sent[0]["status"] == status


async def test_a_body_that_does_not_arrive_is_a_408(tmp_path: Path) -> None:
    made = guarded(tmp_path, "read_timeout_s: 0.01")
    sent = await run(made, scope(), [piece(BODY[:5], more=True)])
    assert sent[0]["status"] == 408
    assert made.app.in_flight == 0


async def test_a_client_that_leaves_before_its_body_is_there_asks_nothing(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    with pytest.raises(asyncio.CancelledError):
        await run(made, scope(), [piece(BODY[:5], more=True), {"type": "http.disconnect"}])
    assert made.upstream.seen == []
    assert made.app.in_flight == 0


class Connection:
    """What the protocol hands to the application."""

    request_task: asyncio.Task[None] | None = None
    certificate = None

    def __init__(self) -> None:
        self.transport = self
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing


@pytest.mark.parametrize("closing", [True, False])
async def test_a_cancelled_request_is_answered_unless_the_client_is_gone(closing: bool, tmp_path: Path) -> None:
    made, connection = guarded(tmp_path), Connection()

    def leave(_: Seen) -> Reply:
        assert connection.request_task is asyncio.current_task()
        connection.closing = closing
        raise asyncio.CancelledError

    made.upstream.answer = leave
    asked = scope(**{"guard.connection": connection})
    sent = await run(made, asked, [piece(BODY)])
    assert [message["status"] for message in sent[:1]] == ([] if closing else [503])
    assert connection.request_task is None
    assert made.app.in_flight == 0


async def test_more_requests_than_the_limit_are_shed(tmp_path: Path) -> None:
    made = guarded(tmp_path, "concurrency: 1")
    made.app.in_flight = 1
    got = await made.ask("POST", PATH, BODY)
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    made.app.in_flight = 0
    assert (await made.ask("POST", PATH, BODY)).status == 200


async def test_what_is_no_request_is_left_alone(tmp_path: Path) -> None:
    assert await run(guarded(tmp_path), {"type": "lifespan"}, []) == []


async def test_a_peer_without_an_address_is_served(tmp_path: Path) -> None:
    sent = await run(guarded(tmp_path), scope(client=None), [piece(BODY)])
    assert sent[0]["status"] == 200


async def test_a_query_string_goes_to_the_model_in_shadow_only(tmp_path: Path) -> None:
    for mode, expected in (("shadow", f"{PATH}?a=%20b"), ("enforce", PATH)):
        made = guarded(tmp_path, mode=mode)
        assert (await made.ask("POST", PATH + "?a=%20b", BODY)).status == 200
        assert made.upstream.seen[0].target.decode() == expected
