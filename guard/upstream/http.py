"""The upstream adapter for HTTP/1.1: a bounded pool of keep-alive connections, lean because every request passes here.

Theory of operation. A slot stands for one connection that is open or being opened; there are `max_connections` of
them. `send` takes the connection that went idle last, else a free slot, else waits in line; what is released goes to
the head of the line first, so nobody is overtaken. Whoever is cancelled with something just handed to it hands it on.
One timer per pool wakes at the earliest `due` of all connections, which is a deadline while busy and the end of idling
otherwise; `due` moves with every request and the timer does not, so a request costs no timer.

A request is never written twice. A connection found closed before the first byte is written is passed over for another;
once bytes were written a failure is reported as `reached`, for nobody can know what upstream did with them.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from guard.errors import ClientError, PolicyError, Problem, UpstreamError
from guard.upstream.connection import Connection, timed_out
from guard.upstream.stream import StreamedReply

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, TimerHandle

    from guard.model.exchange import Reply
    from guard.ports import Headers

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Written by the adapter, or about one connection only.
_NOT_FORWARDED = frozenset(
    b"accept-encoding connection content-length expect host keep-alive proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
_NAMES_KEPT = 512
_NAME_KEPT_BYTES = 64
_TIMER_STEP_S = 0.001


class _HeaderStarts(dict[bytes, bytes]):
    """From a header's name to the bytes before its value; empty for a header that is not forwarded."""

    def __missing__(self, name: bytes) -> bytes:
        if not name or name.translate(None, _TOKEN):
            raise _unwritable()
        lowered = name.lower()
        start = b"" if lowered in _NOT_FORWARDED else b"\r\n" + lowered + b": "
        if len(self) < _NAMES_KEPT and len(name) <= _NAME_KEPT_BYTES:
            self[name] = start
        return start


def _unwritable() -> ClientError:
    return ClientError("the request line or a header holds a character that cannot be forwarded")


def _unreachable(message: str = "upstream cannot be reached") -> UpstreamError:
    return UpstreamError(message, code="upstream_unreachable", reached=False)


class HttpUpstream:
    """An HTTP/1.1 upstream behind a pool of keep-alive connections. Implements `guard.ports.Upstream`.

    Args:
        url: `http://` or `https://`, with an optional path that goes before every target.
        max_connections: bound of open connections; requests beyond it wait their turn.
        max_response_bytes: bound of a reply's body.
        max_header_bytes: bound of a reply's head, interim responses included.
        connect_timeout_s: for name resolution, TCP and TLS together.
        idle_timeout_s: how long an unused connection is kept; shorter than upstream's own, which must not close first.
        ssl_context: for `https://`; default: the system's trust store, names verified.

    Raises:
        PolicyError: `url` is not usable.
    """

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 256,
        max_response_bytes: int = 32 * 1024 * 1024,
        max_header_bytes: int = 64 * 1024,
        connect_timeout_s: float = 5,
        idle_timeout_s: float = 4,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, authority, self._prefix, secure = _parse_url(url)
        self._ssl = (ssl_context or _default_ssl_context()) if secure else None
        self._request_end = b" HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\ncontent-length: " % authority
        self._max_connections = max_connections
        self._max_response_bytes = max_response_bytes
        self._max_header_bytes = max_header_bytes
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._header_starts = _HeaderStarts()
        self._slots_taken = 0
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiters: OrderedDict[Future[Connection | None], None] = OrderedDict()
        self._timer: TimerHandle | None = None
        self._timer_at = math.inf
        self._closed: Future[None] | None = None

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        """Send one request and return the whole reply.

        Args:
            method: `b"POST"` and the like.
            target: origin form, percent-encoded.
            headers: end-to-end headers; hop-by-hop ones and those that the adapter writes itself are left out.
            body: the whole body; may be empty.
            timeout_s: for everything from taking a connection to the reply's last byte.

        Returns:
            The final response; transfer coding undone, trailers dropped, all headers as sent, names lower case.

        Raises:
            UpstreamError: `upstream_unreachable`, `upstream_timeout` (504), `upstream_broken`, `upstream_malformed` or
                `upstream_too_large`; `reached` is False only if upstream certainly saw nothing.
            ClientError: method, target or a header holds what would change the request's framing.
        """
        head = self._head(method, target, headers, len(body))
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = now + timeout_s
        connection = self._pop_idle(now)
        if connection is None:
            connection = await self._take(loop, due)
        future: Future[Reply] = loop.create_future()
        connection.start(future, head, body, due, head_only=method == b"HEAD")
        if due < self._timer_at:
            self._set_timer(loop, due)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                future.exception()  # retrieved: nobody else will look
            connection.give_up(future)
            raise

    async def open(
        self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float
    ) -> StreamedReply:
        """Send one request and return its reply as soon as its head is there.

        Its connection is taken until the reply has arrived to its end, or the stream is closed.

        Args:
            method: as for `send`, and so are the next three.
            target: same.
            headers: same.
            body: same.
            timeout_s: for everything from taking a connection to the head, and again in each `read`.

        Raises:
            UpstreamError: as for `send`.
            ClientError: as for `send`.
        """
        head = self._head(method, target, headers, len(body))
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = now + timeout_s
        connection = self._pop_idle(now) or await self._take(loop, due)
        stream = StreamedReply(connection, timeout_s)
        connection.start(stream, head, body, due, head_only=method == b"HEAD", stream=stream)
        self.watch(connection)
        await stream.opened()
        return stream

    async def aclose(self) -> None:
        """Close all connections; requests under way and in line fail."""
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
            if self._timer is not None:
                self._timer.cancel()
            for connection in list(self._open):
                connection.abort()
            if not self._open:
                self._closed.set_result(None)
        await asyncio.shield(self._closed)

    def bound(self, max_connections: int, max_response_bytes: int) -> None:
        """Put other bounds in force: for every exchange that begins from now on."""
        self._max_connections = max_connections
        self._max_response_bytes = max_response_bytes
        for connection in self._open:
            connection.max_body_bytes = max_response_bytes
        while self._slots_taken < max_connections and self._waiters:
            self._slots_taken += 1
            if not self._hand_over(None):
                self._slots_taken -= 1

    # what connections call

    def release(self, connection: Connection) -> None:
        """Hand a connection to the next in line, or keep it for later."""
        if self._waiters and self._hand_over(connection):
            connection.due = math.inf
            return
        connection.due = connection.loop.time() + self._idle_timeout_s
        self._idle.append(connection)
        self.watch(connection)

    def forget(self, connection: Connection) -> None:
        """Drop a closed connection and give its slot away."""
        if connection not in self._open:
            return  # closed while it was being opened: `_connect` gives the slot back
        self._open.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._free_slot()
        if self._closed is not None and not self._open and not self._closed.done():
            self._closed.set_result(None)

    def watch(self, connection: Connection) -> None:
        """See to it that a connection expires when it is due."""
        if connection.due < self._timer_at:
            self._set_timer(connection.loop, connection.due)

    # requests

    def _head(self, method: bytes, target: bytes, headers: Headers, size: int) -> bytes:
        starts = self._header_starts
        parts = [method, b" ", self._prefix, target, self._request_end, b"%d" % size]
        given = [target]
        for name, value in headers:
            start = starts[name]
            if start:
                parts.append(start)
                parts.append(value)
                given.append(value)
        parts.append(b"\r\n\r\n")
        text = b"".join(given)
        if (
            b"\n" in text
            or b"\r" in text
            or b"\0" in text
            or b" " in target
            or target[:1] != b"/"
            or not method.isalpha()
        ):
            raise _unwritable()
        return b"".join(parts)

    # connections and slots

    def _pop_idle(self, now: float) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                if now < connection.due:
                    return connection
                connection.abort()
        return None

    async def _take(self, loop: AbstractEventLoop, due: float) -> Connection:
        try:
            async with asyncio.timeout_at(due):
                while True:
                    if self._slots_taken < self._max_connections:
                        self._slots_taken += 1
                        return await self._connect(loop)
                    connection = await self._wait_in_line(loop)
                    if connection is None:
                        return await self._connect(loop)
                    if connection.usable():
                        return connection
        except TimeoutError as error:
            raise timed_out(reached=False) from error

    async def _wait_in_line(self, loop: AbstractEventLoop) -> Connection | None:
        """Return a connection, or None for a slot."""
        future: Future[Connection | None] = loop.create_future()
        self._waiters[future] = None
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._waiters.pop(future, None)
            elif (connection := future.result()) is None:
                self._free_slot()
            elif connection.usable():
                self.release(connection)
            raise

    def _hand_over(self, what: Connection | None) -> bool:
        while self._waiters:
            future, _ = self._waiters.popitem(last=False)
            if not future.done():
                future.set_result(what)
                return True
        return False

    def _free_slot(self) -> None:
        if self._slots_taken > self._max_connections or not self._hand_over(None):
            self._slots_taken -= 1

    async def _connect(self, loop: AbstractEventLoop) -> Connection:
        """Open a connection in a slot that is already taken; give the slot back if that fails."""

        def build() -> Connection:
            return Connection(self, loop, self._max_response_bytes, self._max_header_bytes)

        try:
            if self._closed is not None:
                raise _unreachable("Guard is shutting down")
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(build, self._host, self._port, ssl=self._ssl)
            if self._closed is not None or not connection.usable():
                connection.abort()
                raise _unreachable()
        except BaseException as error:
            self._free_slot()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise _unreachable() from error
            raise
        self._open.add(connection)
        return connection

    # time

    def _set_timer(self, loop: AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = loop.call_at(due, self._sweep, loop)

    def _sweep(self, loop: AbstractEventLoop) -> None:
        now = loop.time()
        for connection in self._open:
            if connection.due <= now:
                connection.expire()
        self._timer = None
        self._timer_at = math.inf
        due = min((connection.due for connection in self._open), default=math.inf)
        if due < math.inf:
            self._set_timer(loop, max(due, now + _TIMER_STEP_S))


@cache
def _default_ssl_context() -> ssl.SSLContext:
    # One for all: a hundred of them would take two seconds and 80 MB.
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _parse_url(url: str) -> tuple[str, int, bytes, bytes, bool]:
    """Return host, port, the Host header's value, the path before every target, and whether to use TLS."""
    problem = Problem("the upstream's URL cannot be used", hint="http://host:port or https://host/base/path")
    try:
        parts = urlsplit(url)
        secure = {"http": False, "https": True}[parts.scheme]
        default_port = 443 if secure else 80
        port = default_port if parts.port is None else parts.port
        host = parts.hostname or ""
        ascii_host = host.encode("idna") if ":" not in host else b"[" + host.encode("ascii") + b"]"
        path = parts.path.encode("ascii").rstrip(b"/")
    except (ValueError, KeyError) as error:
        raise PolicyError([problem]) from error
    plain = url.isprintable() and " " not in url and "@" not in parts.netloc and "?" not in url and "#" not in url
    if not ascii_host or not plain:
        raise PolicyError([problem])
    authority = ascii_host if port == default_port else ascii_host + b":%d" % port
    return host, port, authority, path, secure
