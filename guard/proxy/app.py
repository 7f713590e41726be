"""The data listener: a bare ASGI callable that reads a request, hands it to the handler and sends what comes back.

Measured: routing and request objects of a framework cost more than all the numpy work, so this stays a function over
raw messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from guard.errors import ClientError, Denied, GuardError, StateError
from guard.model.exchange import Call
from guard.policy.plan import RoutePlan
from guard.ports import Clock
from guard.proxy.exchange import Events, Exchange, Response
from guard.proxy.handler import Handler
from guard.proxy.messages import error_response, request_id_of
from guard.proxy.plans import Active, Plans
from guard.proxy.protocol import BoundedProtocol
from guard.telemetry.logs import request_id
from guard.telemetry.metrics import Metrics
from guard.wire.base import Endpoint

Scope = MutableMapping[str, Any]  # Any: ASGI
Message = MutableMapping[str, Any]  # Any: ASGI
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


_ANYTHING = Endpoint("*", "/", "status")
"""What a policy in shadow does not open goes through untouched, like a status endpoint."""


class DataApp:
    """The ASGI application of the data listener.

    Args:
        plans: the plan in force.
        handler: takes exchanges through the phases.
        metrics: all metrics.
        clock: time.
    """

    def __init__(self, plans: Plans, handler: Handler, metrics: Metrics, clock: Clock) -> None:
        self.plans = plans
        self.handler = handler
        self.metrics = metrics
        self.clock = clock
        self.in_flight = 0
        self.beside: Callable[[], int] = lambda: 0
        """Gives the requests in flight that another listener serves, which count too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        connection = scope.get("guard.connection")
        if connection is not None:
            connection.request_task = asyncio.current_task()
        self.in_flight += 1
        events: Events | None = None
        try:
            response, close = await self.respond(scope, receive)
            if close:
                response.headers.append((b"connection", b"close"))
            events = response.events
            old = connection if scope["http_version"] == "1.0" else None
            if events is not None and old is not None:
                old.unframed()
                response.headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
            if events is not None:
                await send_events(events, send, old)
            await send({"type": "http.response.body", "body": response.body})
        except asyncio.CancelledError:
            if connection is None or not connection.transport.is_closing():
                if events is None:
                    raise
                await cut(events, send, connection)
            # Otherwise the client is gone: upstream's work was cancelled with this task, and nobody is left to answer.
        finally:
            if events is not None:
                await events.aclose()
            self.in_flight -= 1
            if connection is not None:
                connection.request_task = None

    async def respond(self, scope: Scope, receive: Receive) -> tuple[Response, bool]:
        """Return the response, and whether the connection must be closed: the request was not read to its end."""
        began_s = self.clock.monotonic_s()
        active, connection = self.plans.current, scope.get("guard.connection")
        headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
        name = request_id_of(headers)
        request_id.set(name)  # uvicorn runs each request in a context of its own
        method, path = cast("str", scope["method"]), cast("bytes", scope["raw_path"]).decode("ascii")
        matched = active.plan.match(method, path)
        if matched is None and active.plan.mode == "enforce":
            return self.refuse(active, Denied("this endpoint is closed", code="closed", status=404)), True
        route = active.transparent if matched is None else matched.route
        try:
            if self.in_flight + self.beside() > active.plan.limits.concurrency:
                raise StateError("too many requests in flight", code="overloaded", retry_after_s=1)
            body = await read_body(scope, headers, receive, active)
            query = cast("bytes", scope["query_string"])
            target = path.encode("ascii") + (b"?" + query if query else b"")
            params = {} if matched is None else matched.params
            client = scope.get("client")
            exchange = Exchange(
                active=active,
                route=route,
                endpoint=_ANYTHING if matched is None else matched.endpoint,
                metrics=self.metrics.route(route.name),
                call=Call(path, params, content_type(headers), body, headers, body, target),
                method=method.encode("ascii"),
                peer=client[0] if client else "",
                began_s=began_s,
                now_s=self.clock.wall_s(),
                id=name,
                certificate=None if connection is None else connection.certificate,
            )
            return await self.handler.handle(exchange), False
        except GuardError as error:
            return self.refuse(active, error, route), True
        except asyncio.CancelledError:
            if connection is None or connection.transport.is_closing():
                raise  # the client is gone
            # Draining takes longer than it may: whoever still waits is told so.
            error = StateError("the server is shutting down", code="shutting_down", retry_after_s=1)
            return error_response(error, route.codec), True

    def refuse(self, active: Active, error: GuardError, route: RoutePlan | None = None) -> Response:
        """Answer what never became an exchange, and count it."""
        self.metrics.route("none" if route is None else route.name).request(error.code)
        response = error_response(error, active.plan.routes[0].codec if route is None else route.codec)
        if active.plan.mode == "enforce":
            response.headers.append((b"x-request-id", request_id.get().encode("ascii")))
        return response


async def send_events(events: Events, send: Send, old: BoundedProtocol | None) -> None:
    """Send an answer in events but for its end; `old` is the connection of an HTTP/1.0 client."""
    async for piece in events:
        # Returns when the client's connection has room for more.
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if old is not None:
        old.unframed(ends=True)


async def cut(events: Events, send: Send, connection: BoundedProtocol | None) -> None:
    """End an answer in events because draining takes longer than it may: whoever still reads is told so."""
    if connection is not None and connection.stalled_s is not None:
        connection.transport.abort()
    else:
        await send({"type": "http.response.body", "body": events.cut()})


def content_type(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the Content-Type without parameters, lower case; empty when absent."""
    for name, value in headers:
        if name == b"content-type":
            return value.split(b";", 1)[0].strip().lower().decode("latin-1")
    return ""


async def read_body(scope: Scope, headers: list[tuple[bytes, bytes]], receive: Receive, active: Active) -> bytes:
    """Read the request's body within the plan's bounds.

    Raises:
        ClientError: 413 too large (before it is read, when Content-Length says so), 408 too slow, 400 for an HTTP/1.0
            request
            with a transfer coding or a coding other than chunked.
    """
    limits = active.plan.limits
    for name, value in headers:
        if name == b"content-length" and int(value) > limits.body_bytes:
            raise _too_large()
        if name == b"transfer-encoding" and (value.strip().lower() != b"chunked" or scope["http_version"] == "1.0"):
            raise ClientError("this transfer coding is not supported", code="unsupported_encoding")
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body = cast("bytes", message["body"])
        if len(body) > limits.body_bytes:
            raise _too_large()
        return body
    try:
        async with asyncio.timeout(limits.read_timeout_s):
            return await _read_rest(message, receive, limits.body_bytes)
    except TimeoutError:
        raise ClientError("the request took too long to arrive", code="read_timeout", status=408) from None


async def _read_rest(message: Message, receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        piece = cast("bytes", message["body"])
        size += len(piece)
        if size > limit:
            raise _too_large()
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()


def _too_large() -> ClientError:
    return ClientError("the body is too large", code="body_too_large", status=413)
