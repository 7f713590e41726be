"""Language-model streams for benchmarks: an upstream that talks, and clients that listen, on one clock.

The upstream writes every token as an event of its own, in a write of its own, as llama.cpp's server does, paced or as
fast as it is taken. Every token is a word that no other token of its stream is, so that a listener knows when each was
written, whatever stands between and however it merges events. Both ends cost the same whoever stands between: what is
compared is taken from runs of the same load.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from time import perf_counter
from typing import cast

from httptools import HttpResponseParser

PATH = b"/v1/chat/completions"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nServer: llama.cpp\r\nTransfer-Encoding: chunked\r\n\r\n"
_CONTENT = re.compile(rb'"content":"([^"]+)"')
_ASKED = re.compile(rb"stream (\d+) of (\d+) words")
_MOST_UNREAD = 64 * 1024


def _chunk(choice: object, **more: object) -> bytes:
    document = {
        "choices": [choice],
        "created": 1767225600,
        "id": "chatcmpl-1x8oBnQH6JfZ1CqZc0d1W3yC9wUo2Tz9",
        "model": "bench",
        "system_fingerprint": "b6900-1a2b3c4d",
        "object": "chat.completion.chunk",
        **more,
    }
    event = b"data: %b\n\n" % json.dumps(document, separators=(",", ":")).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _word(number: int) -> str:
    """Return a word in letters only: of anything else a secret might be made."""
    letters = "bcdfghjklmnprstvwz"
    word = ""
    for vowel in "aeo":
        number, place = divmod(number, len(letters))
        word += letters[place] + vowel
    return " " + word


WORDS = [_word(number) for number in range(2048)]
_NUMBERS = {word.strip().encode(): number for number, word in enumerate(WORDS)}
_FIRST = _chunk({"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}})
_TOKENS = [_chunk({"finish_reason": None, "index": 0, "delta": {"content": word}}) for word in WORDS]
_TIMINGS = {"prompt_n": 9, "prompt_ms": 12.5, "predicted_n": 64, "predicted_ms": 640.1}
_USAGE = {"completion_tokens": 64, "prompt_tokens": 9, "total_tokens": 73}
_LAST = _chunk({"finish_reason": "stop", "index": 0, "delta": {}}, usage=_USAGE, timings=_TIMINGS)
_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """How much is talked.

    Args:
        streams: at once, from as many clients.
        words: of each stream; the next one begins when it ends.
        gap_s: between two words of a stream; 0: as fast as they are taken.
        seconds: how long is measured.
        together: all streams say their next word at the same time, as a server does that decodes in batches.
        warm_s: how long it lasts before that.
    """

    streams: int
    words: int
    gap_s: float
    seconds: float
    together: bool = False
    warm_s: float = 1.0


@dataclass
class Timings:
    """When what happened, in seconds.

    Args:
        written: by stream: when the upstream wrote each of its words.
        first_s: from a request to its first word.
        delay_s: from a word's write to its arrival.
        lag_s: from the stream's newest write to a word's arrival: shorter where words are held back for those behind.
        gap_s: between two arrivals of words of one stream.
        tokens: words that arrived.
    """

    written: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    first_s: list[float] = field(default_factory=list[float])
    delay_s: list[float] = field(default_factory=list[float])
    lag_s: list[float] = field(default_factory=list[float])
    gap_s: list[float] = field(default_factory=list[float])
    tokens: int = 0

    def forget(self) -> None:
        """Begin anew, with the streams that are under way."""
        self.first_s, self.delay_s, self.lag_s, self.gap_s, self.tokens = [], [], [], [], 0

    def copy(self) -> Timings:
        """Return what there is now."""
        return Timings({}, [*self.first_s], [*self.delay_s], [*self.lag_s], [*self.gap_s], self.tokens)


class Talker(asyncio.Protocol):
    """One connection of the upstream.

    Args:
        source: what all of them share.
    """

    transport: asyncio.Transport

    def __init__(self, source: Source) -> None:
        self._source = source
        self._heard = bytearray()
        self.left = 0
        self.said: list[float] = []
        self.ready = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_MOST_UNREAD)
        self._source.talkers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left = 0
        self._source.talkers.discard(self)

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = True

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, blank, body = self._heard.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *(\d+)", head)
        if not blank or len(body) < (int(found[1]) if found else 0):
            return
        asked = _ASKED.search(body)
        assert asked is not None, body
        self._heard.clear()
        self.said = self._source.timings.written[int(asked[1])]
        self.left = int(asked[2])
        self.transport.write(_HEAD + _FIRST)
        self._source.begin(self)

    def say(self, now: float) -> None:
        """Write one word, and the end after the last one."""
        if self.left > 0:
            self.said.append(now)
            self.transport.write(_TOKENS[len(self.said) - 1])
            self.left -= 1
            if not self.left:
                self.transport.write(_LAST)
                self.transport.write(_END)


class Source:
    """The upstream.

    Args:
        load: how it talks.
    """

    def __init__(self, load: Load) -> None:
        self.timings = Timings()
        self._load = load
        self.talkers: set[Talker] = set()
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, Talker]] = []
        self._count = itertools.count()
        self._turning = False

    def begin(self, talker: Talker) -> None:
        """Let a stream begin."""
        talker.say(perf_counter())
        self._next(talker, perf_counter())
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _next(self, talker: Talker, now: float) -> None:
        if talker.left > 0:
            due = now + self._load.gap_s
            if self._load.together:
                due -= due % self._load.gap_s
            heappush(self._due, (due, next(self._count), talker))

    def _turn(self) -> None:
        # It spins: the loop's timers count milliseconds, and would let streams speak in bursts.
        now = perf_counter()
        for _ in range(len(self._due)):
            if self._due[0][0] > now:
                break
            due, _, talker = heappop(self._due)
            if talker.ready:
                talker.say(perf_counter())
            self._next(talker, due if self._load.gap_s else now)
        self._turning = bool(self._due)
        if self._turning:
            self._loop.call_soon(self._turn)


class Listener(asyncio.Protocol):
    """One client: asks for one stream after the other on a kept connection, until it is told to stop.

    Args:
        timings: where what it hears is put down.
        numbers: names streams.
        words: of each stream.
    """

    transport: asyncio.Transport

    def __init__(self, timings: Timings, numbers: itertools.count[int], words: int) -> None:
        self._timings = timings
        self._numbers = numbers
        self._words = words
        self._rest = bytearray()
        self._parser = HttpResponseParser(self)
        self._whole = False
        self._stream = 0
        self._at = 0.0
        self._heard = 0
        self._done = False
        self.stopping = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"a stream was cut: {exc!r} {self._rest[-500:]!r}"))

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        self._parser.feed_data(data)
        place = self._rest.rfind(b"\n\n") + 1
        if place:
            self._hear(bytes(self._rest[:place]), now)
            del self._rest[:place]
        if self._whole:
            self._end()

    def on_body(self, body: bytes) -> None:
        self._rest += body

    def on_message_complete(self) -> None:
        self._whole = True

    def _hear(self, data: bytes, now: float) -> None:
        timings = self._timings
        self._done = self._done or b"[DONE]" in data
        written = timings.written[self._stream]
        for text in _CONTENT.findall(data):
            for word in text.split():
                timings.tokens += 1
                timings.delay_s.append(now - written[_NUMBERS[word]])
                timings.lag_s.append(now - written[-1])
                (timings.gap_s if self._heard else timings.first_s).append(now - self._at)
                self._heard += 1
                self._at = now

    def _end(self) -> None:
        if self._heard != self._words or not self._done:
            raise RuntimeError(f"{self._heard} words of {self._words}, done: {self._done}")
        del self._timings.written[self._stream]
        if self.stopping:
            self.ended.set_result(None)
        else:
            self._ask()

    def _ask(self) -> None:
        self._stream = next(self._numbers)
        self._timings.written[self._stream] = []
        self._heard = 0
        self._done = self._whole = False
        self._rest.clear()
        self._at = perf_counter()
        prompt = f"stream {self._stream} of {self._words} words"
        body = json.dumps(
            {"model": "bench", "messages": [{"role": "user", "content": prompt}], "stream": True}
        ).encode()
        head = b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % (PATH, len(body)) + body)


async def conversation(
    upstream: int, port: int, load: Load, meter: Callable[[], float]
) -> tuple[Timings, float, float]:
    """Put a load on whoever listens on `port` and asks `upstream`.

    Args:
        upstream: where the upstream is to listen.
        port: where clients connect; the upstream's own for none in between.
        load: what it is.
        meter: a growing figure of what stands between, read when measuring begins and ends.

    Returns:
        What was measured, for how many seconds, and by how much the figure grew.
    """
    loop = asyncio.get_running_loop()
    source = Source(load)
    server = await loop.create_server(lambda: Talker(source), "127.0.0.1", upstream, backlog=1024)
    numbers = itertools.count()
    listeners: list[Listener] = []
    for place in range(load.streams):
        if place and load.gap_s:
            await asyncio.sleep(load.gap_s * load.words / load.streams)  # streams begin and end at different times
        made = await loop.create_connection(lambda: Listener(source.timings, numbers, load.words), "127.0.0.1", port)
        listeners.append(made[1])
    await asyncio.sleep(load.warm_s)
    source.timings.forget()
    began, figure = perf_counter(), meter()
    await asyncio.sleep(load.seconds)
    seconds, figure = perf_counter() - began, meter() - figure
    timings = source.timings.copy()
    for listener in listeners:
        listener.stopping = True
    await asyncio.gather(*(listener.ended for listener in listeners))
    for each in (*listeners, *source.talkers):
        each.transport.abort()
    server.close()
    await server.wait_closed()
    return timings, seconds, figure
