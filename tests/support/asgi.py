"""Asks an ASGI application without a server or a client library."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from guard.ports import Headers

JsonObject = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class AsgiReply:
    """What came back."""

    status: int
    headers: dict[str, str]
    pieces: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> JsonObject:
        return json.loads(self.body)


async def ask(
    app: Any,  # Any: an ASGI application, whose types every framework spells its own way
    method: str,
    target: str,
    headers: Headers | None = None,
    *,
    host: bytes | None = b"127.0.0.1:9001",
    body: bytes = b"",
) -> AsgiReply:
    """Send one request, as a rule without a body."""
    path, _, query = target.partition("?")
    scope: JsonObject = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [*([(b"host", host)] if host is not None else []), *(headers or [])],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 9001),
    }
    messages: list[JsonObject] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[JsonObject] = []

    async def receive() -> JsonObject:
        if not messages:
            await asyncio.Event().wait()  # the client stays until it has its answer
        return messages.pop(0)

    async def send(message: JsonObject) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    received = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return AsgiReply(start["status"], received, [message.get("body", b"") for message in rest])
