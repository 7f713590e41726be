"""Scripted HTTP servers on 127.0.0.1, for tests of what talks to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from guard.errors import UpstreamError
from guard.model.exchange import Reply
from guard.upstream.http import HttpUpstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG_S = 30.0
SHORT_S = 0.05


@dataclass
class Tls:
    """Both ends of a connection that trusts `localhost`."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@dataclass
class Peer:
    """One accepted connection, as the upstream sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self) -> bytes:
        """Read one request with its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await self.reader.readexactly(size)

    async def gone(self) -> None:
        """Return when the other side has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionResetError:
            pass


@dataclass
class Server:
    port: int = 0
    peers: list[Peer] = field(default_factory=list[Peer])
    requests: list[bytes] = field(default_factory=list[bytes])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(
    script: Callable[[Server, Peer], Awaitable[None]],
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    limit: int = 65536,
) -> AsyncGenerator[Server]:
    """Run `script` on every connection; when it returns, the connection is closed."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = Peer(reader, writer)
        server.peers.append(peer)
        try:
            await script(server, peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            peer.ended.set()
            writer.close()

    listener = await asyncio.start_server(accept, host, 0, ssl=context, limit=limit)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def answering(*answers: bytes) -> Callable[[Server, Peer], Awaitable[None]]:
    """Answer each request on a connection with the next of `answers`, the last one for ever; then wait."""

    async def script(server: Server, peer: Peer) -> None:
        count = 0
        while True:
            server.requests.append(await peer.request())
            peer.writer.write(answers[min(count, len(answers) - 1)])
            count += 1

    return script


def answering_then_closing(answer: bytes) -> Callable[[Server, Peer], Awaitable[None]]:
    async def script(server: Server, peer: Peer) -> None:
        server.requests.append(await peer.request())
        peer.writer.write(answer)

    return script


async def answering_after_the_first(server: Server, peer: Peer) -> None:
    """Leave the very first request to the test."""
    while True:
        server.requests.append(await peer.request())
        if len(server.requests) > 1:
            peer.writer.write(OK)


async def silent(server: Server, peer: Peer) -> None:
    server.requests.append(await peer.request())
    await peer.gone()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():
            await asyncio.sleep(0.001)


async def post(upstream: HttpUpstream, target: bytes = b"/", body: bytes = b"", timeout_s: float = LONG_S) -> Reply:
    return await upstream.send(b"POST", target, [], body, timeout_s)


async def error_of(awaitable: Awaitable[object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await awaitable
    return caught.value
