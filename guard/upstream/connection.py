"""One keep-alive HTTP/1.1 connection: writes one request at a time and reads its reply.

Theory of operation. `start` writes a request; llhttp's callbacks collect the reply, for a future of all of it or for a
stream that takes what each arrival brings; exactly one of `_finish`, `_fail` and `give_up` ends the exchange. A
connection goes back to its owner only when the request is fully written, the reply is whole, upstream agreed to keep
it, and no byte followed. Everything else aborts it, and `connection_lost` is the one place from which the owner takes
back its slot.

Bounds bite at the same byte however the stream is split. Body bytes count against `max_body_bytes`. All other bytes
(heads, interim heads, chunk framing, trailers) count against a budget that starts at `max_head_bytes` and grows by one
with every body byte: framing may not outweigh what it frames. What would exceed the budget is never fed to the parser.
"""

from __future__ import annotations

import math
import ssl
from asyncio import Protocol as AsyncioProtocol
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from guard.errors import UpstreamError
from guard.model.exchange import Reply

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, BaseTransport, Transport

    from guard.upstream.stream import StreamedReply

JOIN_BELOW_BYTES = 64 * 1024
PIECE_BYTES = 256 * 1024


class Owner(Protocol):
    """The pool, as its connections see it."""

    def release(self, connection: Connection) -> None:
        """Take back a connection that is ready for the next request."""
        ...

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed."""
        ...

    def watch(self, connection: Connection) -> None:
        """See to it that a connection expires when it is due."""
        ...


class Outcome(Protocol):
    """What awaits a reply: a future of the whole of it, or a stream."""

    def done(self) -> bool:
        """Say whether nobody waits any more."""
        ...

    def set_result(self, reply: Reply, /) -> None:
        """Take the reply, or the rest of it."""
        ...

    def set_exception(self, error: UpstreamError, /) -> None:
        """Take what went wrong."""
        ...


def malformed(message: str = "upstream sent a malformed response") -> UpstreamError:
    """Return the error of a response that is not HTTP/1.x or contradicts itself."""
    return UpstreamError(message, code="upstream_malformed")


def too_large() -> UpstreamError:
    """Return the error of a response that exceeds a bound."""
    return UpstreamError("upstream sent a response that is too large", code="upstream_too_large")


def broken(message: str = "upstream closed the connection before its response was complete") -> UpstreamError:
    """Return the error of a connection that ended inside an exchange."""
    return UpstreamError(message, code="upstream_broken")


def timed_out(*, reached: bool) -> UpstreamError:
    """Return the error of a deadline that has passed."""
    return UpstreamError("upstream did not answer in time", code="upstream_timeout", status=504, reached=reached)


class Connection(AsyncioProtocol):
    """A connection to upstream that carries one exchange at a time.

    Args:
        owner: takes the connection back after each exchange.
        loop: the running event loop.
        max_body_bytes: bound of a reply's body.
        max_head_bytes: bound of all its other bytes, see the module's text.
    """

    __slots__ = (
        "_body_left",
        "_chunked",
        "_chunks",
        "_framing_left",
        "_head_only",
        "_headers",
        "_max_head_bytes",
        "_outcome",
        "_owner",
        "_parser",
        "_paused",
        "_reusable",
        "_status",
        "_stream",
        "_transport",
        "_unsent",
        "_version",
        "_whole",
        "due",
        "loop",
        "max_body_bytes",
    )

    _transport: Transport
    _chunks: list[bytes]
    _headers: list[tuple[bytes, bytes]]

    def __init__(self, owner: Owner, loop: AbstractEventLoop, max_body_bytes: int, max_head_bytes: int) -> None:
        self._owner = owner
        self.loop = loop
        self.max_body_bytes = max_body_bytes
        self._max_head_bytes = max_head_bytes
        self._parser = HttpResponseParser(self)
        self._outcome: Outcome | None = None
        self._stream: StreamedReply | None = None
        self._unsent: memoryview | None = None
        self._paused = False
        self._version = ""
        self.due = math.inf  # when `expire` is due, loop time: the deadline of an exchange, or the end of idling

    def start(
        self,
        outcome: Outcome,
        head: bytes,
        body: bytes,
        due: float,
        *,
        head_only: bool,
        stream: StreamedReply | None = None,
    ) -> None:
        """Write a request.

        Args:
            outcome: takes its reply.
            head: request line and headers, with the blank line.
            body: may be empty.
            due: deadline, loop time; of a stream until it is moved.
            head_only: the reply has no body (HEAD).
            stream: the outcome, where that is one.
        """
        self._outcome = outcome
        self._stream = stream
        self.due = due
        self._chunks = []
        self._headers = []
        self._status = 0
        self._whole = False
        self._chunked = False
        self._head_only = head_only
        self._body_left = self.max_body_bytes
        self._framing_left = self._max_head_bytes
        if len(body) <= JOIN_BELOW_BYTES:
            self._transport.write(head + body)
        else:
            self._unsent = memoryview(body)
            self._transport.write(head)
            self._pump()

    def give_up(self, outcome: Outcome) -> None:
        """Give up the exchange of `outcome`; upstream sees the disconnect. A finished exchange is left alone."""
        if self._outcome is outcome:
            self._outcome = self._stream = None
            self._transport.abort()

    def await_until(self, due: float) -> None:
        """Give upstream until `due`, loop time, for what comes next."""
        self.due = due
        self._owner.watch(self)

    def pause_reading(self) -> None:
        """Leave unread what upstream sends: nobody takes it."""
        if self.usable():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        if self.usable():
            self._transport.resume_reading()

    def expire(self) -> None:
        """End an exchange past its deadline, or an idle connection past its time."""
        self.due = math.inf
        self._fail(timed_out(reached=True))

    def abort(self) -> None:
        """Close at once; an exchange under way fails."""
        self._fail(broken("the connection to upstream was closed"))

    def usable(self) -> bool:
        """Say whether a request may be written: nothing has closed the connection yet."""
        return not self._transport.is_closing()

    # asyncio's callbacks

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived. Bytes that no request asked for are an attempt at desynchronisation, or a bug: close."""
        if self._outcome is None:
            self._transport.abort()
            return
        try:
            if len(data) < self._framing_left:
                self._framing_left -= len(data)
                self._parser.feed_data(data)
            else:
                self._feed_bounded(memoryview(data))
        except (HttpParserError, HttpParserUpgrade, UpstreamError) as error:
            self._fail(_fault_of(error))
            return
        if self._stream is not None:
            self._hand_on(self._stream)
        elif self._whole:
            # An early answer to a request that is not written to its end leaves a connection out of step.
            if self._reusable and self._unsent is None and not self._transport.get_write_buffer_size():
                self._owner.release(self)
            else:
                self._transport.abort()

    def eof_received(self) -> None:
        """End a body that runs until the close; any other reply is cut short."""
        if self._outcome is not None and self._status and not self._framed() and self._closed_cleanly():
            self._finish()
        self._fail(broken())

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what was under way and give the slot back."""
        self._fail(broken())
        self._owner.forget(self)

    def pause_writing(self) -> None:
        """Stop writing the body: upstream reads too slowly."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on writing the body."""
        self._paused = False
        self._pump()

    # llhttp's callbacks, which may raise: the parser stops there

    def on_message_begin(self) -> None:
        """Begin a head: an interim one, the final one, or garbage behind the reply."""
        if self._whole:
            raise malformed()
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped."""
        if not self._status:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Judge the head."""
        status = self._parser.get_status_code()
        if not self._version:
            self._version = self._parser.get_http_version()
        if not 100 <= status <= 599 or status == 101 or self._version not in ("1.1", "1.0"):
            raise malformed()
        if status >= 200:
            self._reusable = self._parser.should_keep_alive()
            if not self._reusable or self._stream is not None:
                self._check_codings()
            self._status = status
            if self._head_only:
                # llhttp cannot be told that no body follows, so its state is of no further use.
                self._reusable = False
                self._finish()

    def on_chunk_header(self) -> None:
        """Check at the first chunk how the head announced it."""
        if not self._chunked:
            self._chunked = True
            self._check_codings()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, within bounds."""
        size = len(body)
        self._framing_left += 2 * size  # one was taken when it was fed, one is earned
        self._body_left -= size
        if self._body_left < 0:
            self._chunks.append(body[: self._body_left])
            raise too_large()
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """End the reply; an interim one is skipped."""
        if self._status and not self._whole:
            self._finish()

    def _framed(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _closed_cleanly(self) -> bool:
        # TLS ends with a close_notify, which then reads as the end; asyncio reports a cut connection just the same.
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        try:
            return tls is None or not tls.read(1)
        except ssl.SSLError:
            return False

    def _check_codings(self) -> None:
        # `chunked` alone: llhttp would leave other codings on the body, or read to EOF.
        codings = [value.lower() for name, value in self._headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or self._version == "1.0"):
            raise malformed()

    def _feed_bounded(self, data: memoryview) -> None:
        while data and not self._whole:
            piece = data[: self._framing_left]
            data = data[len(piece) :]
            self._framing_left -= len(piece)
            self._parser.feed_data(piece)
            if self._framing_left == 0 and not self._whole:
                raise too_large()
        if data:
            self._reusable = False

    def _pump(self) -> None:
        while self._unsent is not None and not self._paused:
            piece = self._unsent[:PIECE_BYTES]
            self._unsent = self._unsent[PIECE_BYTES:] or None
            self._transport.write(piece)

    def _finish(self) -> None:
        self._whole = True
        if self._status >= 500:
            # Servers that have failed close without a word (MLServer does), and the next request would be lost.
            self._reusable = False
        outcome, self._outcome = self._outcome, None
        self._stream = None
        if outcome is not None and not outcome.done():
            outcome.set_result(Reply(self._status, self._headers, self._body()))

    def _fail(self, error: UpstreamError) -> None:
        if self._stream is not None:
            self._hand_on(self._stream)
        outcome, self._outcome = self._outcome, None
        self._stream = None
        if outcome is not None and not outcome.done():
            outcome.set_exception(error)
        self._transport.abort()

    def _hand_on(self, stream: StreamedReply) -> None:
        stream.heard(self._status, self._headers, self._body())
        self._chunks = []

    def _body(self) -> bytes:
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _fault_of(error: Exception) -> UpstreamError:
    # What a callback raised is the context of llhttp's complaint about it.
    cause = error.__context__ if isinstance(error, HttpParserCallbackError) else error
    return cause if isinstance(cause, UpstreamError) else malformed()
