"""Guard's data listener on a real socket, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import uvicorn

from guard.proxy.listener import COMMON, Listener, bind
from guard.proxy.protocol import BoundedProtocol, bounded
from guard.proxy.tls import Certificates
from tests.support.fakes import Guarded


@contextlib.asynccontextmanager
async def listening(
    guarded: Guarded, certificates: Certificates | None = None, handshake_s: float = 5.0
) -> AsyncGenerator[tuple[int, Listener]]:
    """Yield the port and the server; HTTPS with certificates."""
    config = uvicorn.Config(guarded.app, http=bounded(lambda: guarded.plans.current.plan.limits), **COMMON)
    config.timeout_graceful_shutdown = 1
    server = Listener(config)
    if certificates is not None:
        server.secure(certificates, lambda: handshake_s)
    sock = bind("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started:
            await asyncio.sleep(0.001)
        yield sock.getsockname()[1], server
    finally:
        server.should_exit = True
        await serving


def connections(server: Listener) -> list[BoundedProtocol]:
    """Return the open client connections."""
    return [c for c in server.server_state.connections if isinstance(c, BoundedProtocol)]


async def until(condition: object) -> None:
    """Wait until `condition()` holds; fails after five seconds."""
    assert callable(condition)
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def talk(port: int, *pieces: bytes, read: bool = True) -> bytes:
    """Send pieces over one connection and return everything that comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read() if read else b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
