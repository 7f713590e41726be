"""Clients of a running Guard: keep-alive connections on asyncio streams, and the admin pages."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.support.processes import Guard

PATIENCE_S = 20.0

Json = Any  # Any: JSON


@dataclass(frozen=True)
class Answered:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)


class KeepAlive:
    """One connection that is kept; `ask` fails with an OSError or EOFError when the other side ends it.

    Args:
        port: Guard's, on 127.0.0.1.
        key: API key of all its requests.
    """

    def __init__(self, port: int, key: str = "") -> None:
        self.port = port
        self.key = key

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(self, target: str, document: Json = None) -> None:
        """Send a request: GET without a document, POST with one."""
        body = b"" if document is None else json.dumps(document).encode()
        lines = [f"{'GET' if document is None else 'POST'} {target} HTTP/1.1", "host: guard"]
        lines += [f"content-length: {len(body)}", "content-type: application/json"] if body else []
        lines += [f"x-api-key: {self.key}"] if self.key else []
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def receive(self) -> Answered:
        """Receive one answer."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
            return Answered(int(first.split(" ")[1]), headers, body)

    async def ask(self, target: str, document: Json = None) -> Answered:
        """Send a request and receive its answer."""
        await self.send(target, document)
        return await self.receive()


async def ask(port: int, target: str, document: Json = None, key: str = "") -> Answered:
    """Ask once, on a connection of its own."""
    async with KeepAlive(port, key) as connection:
        return await connection.ask(target, document)


@asynccontextmanager
async def under_way(port: int, target: str, document: Json) -> AsyncGenerator[KeepAlive]:
    """Yield a connection whose request has been sent and not been answered."""
    async with KeepAlive(port) as connection:
        await connection.send(target, document)
        yield connection


def infer(*rows: list[float]) -> Json:
    """Return an Open Inference request."""
    flat = [value for row in rows for value in row]
    tensor = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": flat}
    return {"inputs": [tensor]}


def admin(guard: Guard, page: str, *, post: bool = False) -> Answered:
    """Ask an admin page."""
    request = urllib.request.Request(guard.admin + page, data=b"" if post else None)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            return Answered(reply.status, dict(reply.headers), reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answered(error.code, dict(error.headers), error.read())


def metric(guard: Guard, name: str, **labels: str) -> float | None:
    """Return one sample of `/metrics` by name and labels; None when there is none."""
    for line in admin(guard, "/metrics").body.decode().splitlines():
        sample = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if sample is not None and sample[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or "")) == labels:
            return float(sample[3])
    return None


def spent(guard: Guard, client: str, budget: str) -> int:
    """Return what a client, who has asked this Guard before, has spent."""
    clients = {one["name"]: one["budgets"] for one in admin(guard, "/clients").json["clients"]}
    return next(one["spent"] for one in clients[client] if one["budget"] == budget)


async def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)
