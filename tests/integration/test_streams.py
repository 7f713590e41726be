"""A running Guard before a model that answers in events: when they arrive, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import PATIENCE_S, metric, spent, until
from tests.support.processes import Guard, guard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

POLICY = """version: 1
limits: {LIMITS}
routes:
  - name: chat
    api: openai
    outputs: {kind: logprobs}
    parameters: [{name: max_tokens, max: 100000}]
    budgets: [{kind: tokens, per: client, limit: 1000000}]
"""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"data: [DONE]\n\n"


def chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


class Model:
    """Answers every request with a stream that the test writes."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Told] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(HEAD)
                told = Told(reader, writer)
                await self.asked.put(told)
                await told.over.wait()


class Told:
    """One answer under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.over = asyncio.Event()

    def say(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        self.over.set()

    async def gone(self) -> None:
        """Return when Guard has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(1024):
                    pass
        self.over.set()


@pytest.fixture
async def model() -> AsyncGenerator[Model]:
    made = Model()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await closed(made.writers)


async def closed(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def running(model: Model, tmp_path: Path) -> Iterator[Guard]:
    with started(model, tmp_path) as made:
        yield made


def started(model: Model, folder: Path, limits: str = "") -> contextlib.AbstractContextManager[Guard]:
    (folder / "policy.yaml").write_text(POLICY.replace("LIMITS", limits))
    return guard(folder / "policy.yaml", f"http://127.0.0.1:{model.port}", folder)


class Client:
    """A client that reads when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, version: str = "1.1") -> None:
        head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: g\r\ncontent-length: {len(BODY)}\r\n\r\n"
        self.writer.write(head.encode() + BODY)

    async def until(self, what: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(what)

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


@contextlib.asynccontextmanager
async def asking(guarded: Guard, version: str = "1.1") -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    client = Client(reader, writer)
    client.ask(version)
    yield client
    await closed([writer])


async def answer(model: Model) -> Told:
    async with asyncio.timeout(PATIENCE_S):
        return await model.asked.get()


async def test_each_event_arrives_before_the_next_is_said(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        told = await answer(model)
        for word in ("one", "two", "three"):
            told.say(chunk(word))
            assert word.encode() in await client.until(b"\n\n\r\n")
        told.say(chunk("", "stop") + END)
        told.end()
        assert (await client.until(b"0\r\n\r\n")).endswith(END + b"\r\n0\r\n\r\n")


async def test_events_in_pieces_arrive_when_they_are_whole(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        told = await answer(model)
        data = chunk("one") + chunk("two") + END
        for byte in data:
            told.say(bytes([byte]))
        told.end()
        got = await client.until(b"0\r\n\r\n")
        assert got.index(b"one") < got.index(b"two") < got.index(END)


async def test_a_connection_serves_one_stream_after_the_other(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        for again in (True, True, False):
            told = await answer(model)
            told.say(chunk("hello", "stop") + END)
            told.end()
            assert b"hello" in await client.until(b"0\r\n\r\n")
            if again:
                client.ask()


async def test_an_old_client_reads_to_the_end_of_the_connection(running: Guard, model: Model) -> None:
    async with asking(running, "1.0") as client:
        told = await answer(model)
        told.say(chunk("hello", "stop") + END)
        told.end()
        assert (await client.rest()).endswith(END)


async def test_a_client_that_leaves_stops_the_model_and_pays_for_what_it_got(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        told = await answer(model)
        told.say(chunk("hello"))
        await client.until(b"hello")
        client.writer.close()
        await told.gone()
        await until(lambda: metric(running, "guard_requests_total", route="chat", outcome="aborted") == 1)
        assert 1 <= spent(running, "address:127.0.0.1", "tokens/client") <= 10


async def test_a_client_that_does_not_read_stops_the_model_from_writing(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        told = await answer(model)
        told.writer.transport.set_write_buffer_limits(high=0)
        text, said = chunk("x" * 10_000), 0
        with contextlib.suppress(TimeoutError):
            while said < 64 * 2**20:
                told.say(text)
                said += len(text)
                await asyncio.wait_for(told.writer.drain(), 2)
        # What lies between are the kernel's buffers of two connections, and what Guard may hold of one stream.
        assert said < 32 * 2**20
        await client.until(b"\r\n\r\n")
        client.writer.transport.abort()
        await told.gone()


async def test_a_model_that_breaks_off_ends_the_answer_with_an_error(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        told = await answer(model)
        told.say(chunk("hello"))
        await client.until(b"hello")
        told.writer.transport.abort()
        told.over.set()
        got = await client.until(b"0\r\n\r\n")
        assert b'"error"' in got
        assert metric(running, "guard_requests_total", route="chat", outcome="upstream_broken") == 1


async def test_a_model_that_falls_silent_ends_the_answer(model: Model, tmp_path: Path) -> None:
    with started(model, tmp_path, "upstream_timeout_s: 0.5") as running:
        async with asking(running) as client:
            told = await answer(model)
            told.say(chunk("hello"))
            assert b'"error"' in await client.until(b"0\r\n\r\n")
            await told.gone()


async def test_sigterm_lets_a_stream_end(running: Guard, model: Model) -> None:
    async with asking(running) as client:
        told = await answer(model)
        told.say(chunk("hello"))
        await client.until(b"hello")
        running.running.send_signal(signal.SIGTERM)
        told.say(chunk("world", "stop") + END)
        told.end()
        assert b"world" in await client.until(END)
        assert await asyncio.to_thread(running.running.wait, PATIENCE_S) == 0


async def test_draining_that_takes_too_long_ends_a_stream_in_words(model: Model, tmp_path: Path) -> None:
    with started(model, tmp_path, "drain_s: 1") as running:
        async with asking(running) as client:
            told = await answer(model)
            told.say(chunk("hello"))
            await client.until(b"hello")
            running.running.send_signal(signal.SIGTERM)
            assert b"shutting down" in await client.rest()
            await told.gone()


async def test_draining_lets_go_of_a_client_that_does_not_read(model: Model, tmp_path: Path) -> None:
    with started(model, tmp_path, "drain_s: 1") as running:
        async with asking(running) as client:
            told = await answer(model)
            told.writer.transport.set_write_buffer_limits(high=0)
            with contextlib.suppress(TimeoutError):
                while True:
                    told.say(chunk("x" * 10_000))
                    await asyncio.wait_for(told.writer.drain(), 1)
            running.running.send_signal(signal.SIGTERM)
            await told.gone()
            assert await asyncio.to_thread(running.running.wait, PATIENCE_S) == 0
            client.writer.transport.abort()
        assert "Traceback" not in running.log.read_text()
