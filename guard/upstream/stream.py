"""One reply that is read piece by piece while upstream still writes it.

Theory of operation. The connection hands on what each arrival brought: the head, body bytes, the end or an error. What
nobody has read yet waits here; beyond `MOST_HELD_BYTES` the connection stops reading, and TCP makes upstream wait. Time
runs against upstream only while somebody waits for it: for the head, and in each `read`. Whatever was complete before
an error is read before the error is raised. The connection goes back to its pool, or closes, when the reply's last byte
has arrived; whoever opened the stream closes it, and a `read` that is cancelled does too.

A `read` gives a small piece, and before the next one of what had arrived already it lets others run: what makes an
event ready takes longer than its bytes take to arrive, and a thousand of them at once would keep every other stream.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from guard.errors import UpstreamError
from guard.upstream.connection import broken

if TYPE_CHECKING:
    from asyncio import Future

    from guard.model.exchange import Reply
    from guard.ports import Headers
    from guard.upstream.connection import Connection

MOST_HELD_BYTES = 256 * 1024
"""When more is unread, the connection stops reading; one arrival (256 KiB at most) may go beyond it."""
MOST_PIECE_BYTES = 16 * 1024
"""What a `read` returns at most: some seventy tokens."""


class StreamedReply:
    """A reply of which only the head has arrived. Implements `guard.ports.Stream`.

    Args:
        connection: carries the exchange.
        timeout_s: the longest wait in one `read`.
    """

    __slots__ = (
        "_connection",
        "_ended",
        "_error",
        "_held",
        "_more",
        "_opened",
        "_paused",
        "_timeout_s",
        "_waiter",
        "headers",
        "status",
    )

    status: int
    headers: Headers

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        self._connection: Connection | None = connection
        self._timeout_s = timeout_s
        self._opened: Future[None] = connection.loop.create_future()
        self._waiter: Future[None] | None = None
        self._held: bytes | bytearray = b""
        self._more = False
        self._paused = False
        self._ended = False
        self._error: UpstreamError | None = None

    async def opened(self) -> None:
        """Return when the head is there."""
        try:
            await self._opened
        except asyncio.CancelledError:
            if self._opened.done() and not self._opened.cancelled():
                self._opened.exception()  # retrieved: nobody else will look
            self.close()
            raise

    async def read(self) -> bytes:
        """Return what has arrived, `MOST_PIECE_BYTES` at most, waiting for it if need be; empty at the reply's end.

        Cancelled, it closes the stream. One task reads at a time.

        Raises:
            UpstreamError: `upstream_timeout`, `upstream_broken`, `upstream_malformed` or `upstream_too_large`.
        """
        if self._more:
            await self._pass()
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                return b""
            await self._arrival(self._connection)
        piece = self._piece()
        if self._paused and len(self._held) <= MOST_HELD_BYTES // 2 and self._connection is not None:
            self._paused = False
            self._connection.resume_reading()
        return piece

    def close(self) -> None:
        """Let go: upstream sees a disconnect, unless its reply has arrived to its end. Harmless twice."""
        if self._ended and not self._held:
            return
        self._held = b""
        if self._connection is not None:
            self._connection.give_up(self)
        self._ended = False
        self._end(broken("the answer's stream was closed"))

    async def _pass(self) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.close()
            raise

    def _piece(self) -> bytes:
        held = self._held
        self._more = len(held) > MOST_PIECE_BYTES
        if not self._more:
            self._held = b""
            return bytes(held)
        if isinstance(held, bytes):
            self._held = held = bytearray(held)
        piece = bytes(held[:MOST_PIECE_BYTES])
        del held[:MOST_PIECE_BYTES]
        return piece

    async def _arrival(self, connection: Connection) -> None:
        self._waiter = connection.loop.create_future()
        connection.await_until(connection.loop.time() + self._timeout_s)
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    # what the connection calls

    def heard(self, status: int, headers: Headers, piece: bytes) -> None:
        """Take what one arrival brought of the reply.

        Args:
            status: of the final head; 0 as long as there is none.
            headers: same.
            piece: of the body; may be empty.
        """
        connection = self._connection
        if not status or connection is None:
            return
        self._take(connection, status, headers, piece)
        if len(self._held) > MOST_HELD_BYTES and not self._paused:
            self._paused = True
            connection.pause_reading()

    def done(self) -> bool:
        """Say whether the reply has ended, well or not."""
        return self._ended

    def set_result(self, reply: Reply, /) -> None:
        """Take the end of the reply; its body is what the last arrival brought."""
        if self._connection is not None:
            self._take(self._connection, reply.status, reply.headers, reply.body)
            if self._paused:  # TLS hands on what it had decrypted already
                self._connection.resume_reading()
        self._end(None)

    def set_exception(self, error: UpstreamError, /) -> None:
        """Take what cut the reply short."""
        self._end(error)

    def _take(self, connection: Connection, status: int, headers: Headers, piece: bytes) -> None:
        if not self._opened.done():
            connection.due = math.inf
            self.status = status
            self.headers = headers
            self._opened.set_result(None)
        if piece:
            connection.due = math.inf
            self._hold(piece)
            self._wake()

    def _hold(self, piece: bytes) -> None:
        if not self._held:
            self._held = piece
            return
        # One buffer, not a list: many small pieces would weigh more than their bytes.
        if isinstance(self._held, bytes):
            self._held = bytearray(self._held)
        self._held += piece

    def _end(self, error: UpstreamError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._connection = None
        if not self._opened.done() and error is not None:
            self._opened.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
