"""A TCP relay between a Guard and its Redis that fails as networks fail.

* `pass`: what comes goes, `delay_s` later each way.
* `hold`: a black hole. Connections stay open and are accepted, nothing goes through; once it is over, what was sent
  meanwhile arrives late, as TCP sends again, from connections that nobody waits for any more too.
* `deaf`: a half partition. Requests arrive, and their answers are lost.
* `cut`: connections are reset and refused.
* `forget`: the connections that are open then carry nothing any more, ever, without being reset; new ones pass. So a
  firewall behaves that has lost its table.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal, Self

Mode = Literal["pass", "hold", "deaf", "cut", "forget"]
_CHUNK_BYTES = 65_536


class Relay:
    """Listens on a free port of 127.0.0.1, in the event loop of whoever enters it.

    Args:
        target: the port behind it, of 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        self.bytes_up = 0
        self.bytes_down = 0
        self._mode: Mode = "pass"
        self._open = asyncio.Event()
        self._open.set()
        self._born = 0
        self._forgotten = 0
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """What `open_state` takes."""
        return f"redis://127.0.0.1:{self.port}"

    def __len__(self) -> int:
        """Return how many connections are open."""
        return len(self._connections)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    def become(self, mode: Mode, delay_s: float = 0.0) -> None:
        """Fail, or pass, from now on. Connections that lost an answer are reset at the end, as are those cut off."""
        if "cut" in (mode, self._mode) or self._mode == "deaf":
            for writer in self._connections.values():
                writer.transport.abort()
        self._mode, self.delay_s = mode, delay_s
        if mode == "forget":
            self._forgotten = self._born
        if mode == "hold":
            self._open.clear()
        else:
            self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._mode == "cut" or task is None:
            writer.transport.abort()
            return
        self._connections[task] = writer
        try:
            with contextlib.suppress(OSError):
                await self._between(reader, writer)
        except asyncio.CancelledError:
            pass  # the relay is closing; a task of the stream server's that ends cancelled is told of as an error
        finally:
            del self._connections[task]
            writer.transport.abort()

    async def _between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._born = born = self._born + 1
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            async with asyncio.TaskGroup() as both:
                back = both.create_task(self._back(behind_reader, writer, born))
                await self._forth(reader, behind_writer, born)
                back.cancel()
        except* OSError:
            pass
        finally:
            behind_writer.close()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, born: int) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._on_the_way()
            if born <= self._forgotten:
                continue
            self.bytes_up += len(data)
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, born: int) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._on_the_way()
            if born <= self._forgotten:
                continue
            if self._mode != "deaf":
                self.bytes_down += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _on_the_way(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._open.wait()
