"""uvicorn's HTTP/1.1 protocol with bounds.

Header bytes, slow heads, stalled readers, pipelining, and disconnects that cancel work.

llhttp already refuses what smuggling needs: Content-Length beside Transfer-Encoding, repeated or malformed lengths,
unknown transfer codings, folded headers, bare line feeds. What goes upstream is written afresh in any case. One sweep
a second looks at all connections instead of a timer for each request.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from guard.policy.schema import Limits
from guard.proxy.identity_certificate import Certificate, certificate_of

MAX_CONNECTIONS = 8192
MAX_PIPELINED = 16
STALLED_S = 30.0
"""How long a client may leave an answer unread."""
_RESPONSES = {
    400: b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    408: b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
}


class TooMuch(Exception):
    """Stops the parser when a head is larger than the policy allows."""


class BoundedProtocol(HttpToolsProtocol):
    """One client connection.

    Class attributes are set once by `bounded` for the server that uses it.
    """

    limits: Callable[[], Limits]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: uvicorn's own signature
        super().__init__(*args, **kwargs)
        self.head_bytes = 0
        self.in_head = True
        self.since_s = self.loop.time()
        self.stalled_s: float | None = None
        self.request_task: asyncio.Task[None] | None = None
        self.certificate: Certificate | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn has it
        """Refuse connections beyond the bound at once."""
        super().connection_made(transport)
        self.certificate = certificate_of(transport.get_extra_info("peercert"))
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the client will not read."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self.request_task is not None:
            self.request_task.cancel()

    def data_received(self, data: bytes) -> None:
        """Count a head's bytes as they come, so that an endless header line is never kept."""
        if self.in_head:
            if not self.head_bytes:
                self.since_s = self.loop.time()
            self.head_bytes += len(data)
            if self.head_bytes > self.limits().header_bytes + 2 * 2**18:
                self.refuse(431)
                return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, unless a better answer went out already."""
        del msg
        self.refuse(400)

    def refuse(self, status: int) -> None:
        """Answer `status` without the application and close; between answers of other requests, just close."""
        if self.transport.is_closing():
            return
        if self.unanswered():
            self.transport.write(_RESPONSES[status])
        self.transport.close()

    def untouched(self) -> bool:
        """Say whether no request has begun on this connection."""
        return cast("object", self.cycle) is None

    def unanswered(self) -> bool:
        """Say whether no answer is half written, so that another may be."""
        return self.untouched() or self.cycle.response_complete or not self.cycle.response_started

    def on_message_begin(self) -> None:
        """Start counting a head."""
        super().on_message_begin()
        self.scope["guard.connection"] = self  # pyright: ignore[reportGeneralTypeIssues]  # an extension of the ASGI scope
        self.in_head = True

    def on_headers_complete(self) -> None:
        """End of a head: the sweep stops watching it, and the body has a deadline of its own."""
        self.in_head = False
        self.head_bytes = 0
        # Summed here in one go: a callback for every header would cost more than all the rest of this class.
        size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])
        if size > self.limits().header_bytes:
            self.refuse(431)
            raise TooMuch
        if len(self.pipeline) >= MAX_PIPELINED:
            self.refuse(400)
            raise TooMuch
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes belong to another head."""
        super().on_message_complete()
        self.in_head = True

    def unframed(self, *, ends: bool = False) -> None:
        """Let an answer of unknown length end with the connection: HTTP/1.0 (nginx's default) knows no chunks.

        Called before the answer's head, and again with `ends` before its last piece. uvicorn would send chunks.
        """
        self.cycle.chunked_encoding = False
        self.cycle.expected_content_length = 0 if ends else sys.maxsize

    def pause_writing(self) -> None:
        """Note since when the client has not read."""
        super().pause_writing()
        self.stalled_s = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self.stalled_s = None

    def sweep(self, now_s: float) -> None:
        """Close this connection if its client sends a head or reads an answer too slowly."""
        if self.stalled_s is not None and now_s - self.stalled_s > STALLED_S:
            self.transport.abort()
        elif self.in_head and self.idle_or_slow(now_s):
            self.refuse(408)

    def idle_or_slow(self, now_s: float) -> bool:
        """Say whether a head has begun, or a new connection was made, too long ago."""
        waiting = bool(self.head_bytes) or self.untouched()
        return waiting and now_s - self.since_s > self.limits().read_timeout_s


def bounded(limits: Callable[[], Limits]) -> type[BoundedProtocol]:
    """Return the protocol class for one server.

    Args:
        limits: gives the limits of the plan in force.
    """
    return cast("type[BoundedProtocol]", type("Protocol", (BoundedProtocol,), {"limits": staticmethod(limits)}))


async def sweep_forever(connections: set[Any], period_s: float = 1.0) -> None:  # Any: uvicorn's protocols
    """Sweep all connections once a period."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(period_s)
        now_s = loop.time()
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol):
                connection.sweep(now_s)
