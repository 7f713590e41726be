"""Answers in events: read, released and sent one by one, with nothing kept but what a secret needs to be recognised.

Theory of operation. `opened` sends the request and returns when the reply's head is there. A reply that is no stream of
events is read whole and goes the ordinary way. `Flow` is the body that the client gets: it reads upstream no faster
than the client reads it (each piece is sent before the next is asked for), and whoever closes it, early or at its end,
closes upstream, settles the budgets and records the request, in that order and whatever happened.

What fails in mid-stream cannot change a status that has gone out: in `enforce` the stream ends the way that the API's
clients understand (`Streams.end`); in `shadow` it goes on as upstream sends it, and is no longer looked at.
"""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Self

from guard.engine.failures import Phase, outcome
from guard.errors import GuardError, InvariantError, StateError, UpstreamError
from guard.model.exchange import Reply
from guard.proxy.exchange import Exchange, Response
from guard.proxy.messages import HOP_BY_HOP, connection_tokens
from guard.wire.base import Framing, Streams
from guard.wire.body import unreadable
from guard.wire.events import Splitter, splitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from guard.ports import Stream, Upstream

log = logging.getLogger("guard.proxy")

_LINES = (b"ndjson", b"jsonl", b"json-lines")
_CONTENT_TYPES: dict[Framing, bytes] = {"sse": b"text/event-stream; charset=utf-8", "ndjson": b"application/x-ndjson"}


def framing_of(stream: Stream) -> Framing | None:
    """Return how a reply's events stand in it, by its Content-Type; None for a reply that is no stream of events."""
    content_type = _header(stream, b"content-type").lower()
    if content_type.startswith(b"text/event-stream"):
        return "sse"
    return "ndjson" if any(word in content_type for word in _LINES) else None


def _header(stream: Stream, name: bytes) -> bytes:
    return next((value for key, value in stream.headers if key == name), b"")


def wanted(x: Exchange) -> bool:
    """Say whether the reply may come in events: it was asked for so, or shadow must not keep what might."""
    if x.route.mode == "shadow":
        return isinstance(x.route.codec, Streams)
    return x.reading is not None and x.reading.stream is not None


async def opened(
    x: Exchange,
    upstream: Upstream,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    timeout_s: float,
) -> Reply | None:
    """Send the request; return a whole reply, or leave a stream of events in `x.stream` and return None.

    Raises:
        UpstreamError: as `Upstream.open` and `Stream.read` do.
    """
    stream = await upstream.open(x.method, target, headers, body, timeout_s)
    try:
        if stream.status == 200 and framing_of(stream) is not None:
            x.stream = stream
            return None
        pieces: list[bytes] = []
        while piece := await stream.read():
            pieces.append(piece)
        return Reply(stream.status, stream.headers, b"".join(pieces))
    finally:
        if x.stream is None:
            stream.close()


class Flow:
    """One answer in events, on its way to the client.

    Args:
        x: the exchange; `x.stream` and `x.generation` are set.
        failed: counts a failure of a phase.
        ended: settles budgets and records the request; called once, when the stream has been let go.
    """

    def __init__(
        self, x: Exchange, failed: Callable[[Phase, GuardError], None], ended: Callable[[], Awaitable[None]]
    ) -> None:
        if x.stream is None:
            raise InvariantError("there is no stream")
        self._x = x
        self._stream = x.stream
        self._failed = failed
        self._ended = ended
        limits = x.active.plan.limits
        self._until = asyncio.get_running_loop().time() + limits.stream_s
        framing = framing_of(x.stream) or "sse"
        self._framing: Framing = framing
        self._plain = _header(x.stream, b"content-encoding").strip().lower() in (b"", b"identity")
        # Looked up once: to ask whether an object has a protocol's methods takes 4 us.
        self._codec = x.route.codec if isinstance(x.route.codec, Streams) else None
        self._splitter: Splitter | None = splitter(framing, limits.event_bytes) if self._plain else None
        self._over = False
        self._closed = False

    def response(self) -> Response:
        """Return the response whose body the events are."""
        x = self._x
        if x.route.mode == "shadow":
            dropped = connection_tokens(self._stream.headers)
            headers = [h for h in self._stream.headers if h[0] not in HOP_BY_HOP and h[0] not in dropped]
            return Response(200, headers, b"", self)
        if x.reading is None or x.generation is None or self._framing != x.reading.stream:
            raise unreadable("it comes in events that were not asked for")
        if not self._plain:
            raise unreadable("its events are compressed")
        headers = [(b"content-type", _CONTENT_TYPES[self._framing]), (b"cache-control", b"no-cache")]
        return Response(200, headers, b"", self)

    def __aiter__(self) -> Self:
        """Return itself: the body is read once."""
        return self

    async def __anext__(self) -> bytes:
        """Return what leaves next; asks upstream for more only when the client has taken what there was."""
        while not self._over:
            try:
                data = await self._read()
                began = perf_counter()
                released = self._released(data)
                self._x.added_s += perf_counter() - began
            except GuardError as error:
                self._fail("forward", error)
                released = self._end(error)
            if released:
                return released
        await self.aclose()
        raise StopAsyncIteration

    def cut(self) -> bytes:
        """Return what ends the stream for a client that still listens when Guard shuts down."""
        return self._end(StateError("the server is shutting down", code="shutting_down"))

    async def aclose(self) -> None:
        """Let go of upstream, settle, and record; harmless twice."""
        if self._closed:
            return
        self._closed = True
        self._stream.close()
        if not self._over:
            self._x.response = None  # the client had gone
        await self._ended()

    async def _read(self) -> bytes:
        data = await self._stream.read()
        if asyncio.get_running_loop().time() > self._until:
            raise UpstreamError("the answer took too long", code="upstream_timeout", status=504)
        if not data:
            self._over = True
        return data

    def _released(self, data: bytes) -> bytes:
        """Return what leaves of what has come; in shadow, all of it."""
        if self._x.route.mode == "shadow":
            self._watch(data)
            return data
        parts: list[bytes] = []
        try:
            self._take(data, parts)
        except Exception as error:  # whatever it is, the stream ends as the table of failures says
            shown = self._shown(error)
            self._fail("read_answer", shown)
            parts.append(self._end(shown))
        return b"".join(parts)

    def _watch(self, data: bytes) -> None:
        """Count what goes through untouched; what cannot be read is counted once, and no longer looked at."""
        try:
            self._take(data, [])
        except Exception as error:  # whatever it is, a guest lets the stream go on
            self._failed("read_answer", self._shown(error))
            self._splitter = None

    def _shown(self, error: Exception) -> GuardError:
        """Return the error to show for one that an event has led to; a bug is logged."""
        if not isinstance(error, GuardError):
            log.exception("bug in a stream of route %s", self._x.route.name)
        return outcome("read_answer", error, self._x.route.mode)[1]

    def _take(self, data: bytes, parts: list[bytes]) -> None:
        """Release the events that `data` completes into `parts`."""
        x, codec, reading = self._x, self._codec, self._x.reading
        if self._splitter is None or reading is None or x.generation is None or codec is None:
            if x.route.mode == "enforce":
                raise InvariantError("events that nobody can read")
            return
        for event in self._splitter.feed(data) if data else self._splitter.end():
            for answer in codec.event(event, reading):
                x.generation.take(answer)
                parts.append(codec.write_event(answer))
                if x.generation.ended and x.route.mode == "enforce":
                    self._over = True
                    parts.append(codec.end(reading, None))
                    return

    def _fail(self, phase: Phase, error: GuardError) -> None:
        self._over = True
        self._x.error = error
        self._failed(phase, error)

    def _end(self, error: GuardError | None) -> bytes:
        """Return what ends the stream; in shadow nothing: it ends as upstream's did."""
        codec, reading = self._codec, self._x.reading
        if self._x.route.mode == "shadow" or reading is None or codec is None:
            return b""
        return codec.end(reading, error)
