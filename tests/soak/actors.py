"""Who asks: honest clients, thieves, batches, strangers by the thousand, leavers, and those who send rubbish."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from guard.model.arrays import Floats
from tests.soak.notes import Notes
from tests.soak.stage import FEATURES
from tests.support.clients import KeepAlive, infer
from tests.support.simulated_profile import client

BROKEN_MODELS = ("slow", "reset", "half", "garbage", "huge", "busy", "closing", "gzip")
FLOOD, FLOOD_RATE = 5000, 80.0
"""Strangers that come at first, and how many a second: 2,048 clients are watched, 4,096 metered, 1,000 listed."""
AT_ONCE = 32
"""Strangers, so that a slow machine has no more requests in flight than Guard takes."""
HEAD = b"POST /v2/models/scores/infer HTTP/1.1\r\nhost: g\r\nx-api-key: fault-0\r\n"


@dataclass
class Cast:
    """All actors.

    Args:
        port: Guard's.
        notes: where answers go.
        seed: of everything they do.
    """

    port: int
    notes: Notes
    seed: int

    def __post_init__(self) -> None:
        self.ended = False

    async def pace(self, rate: float, rng: random.Random) -> AsyncIterator[None]:
        """Yield about `rate` times a second, at random, until the load ends."""
        while not self.ended:
            yield
            await asyncio.sleep(rng.expovariate(rate))

    def actors(self) -> list[asyncio.Task[None]]:
        """Start everybody."""
        ways = [self.steady("honest", i, ("scores", "graded"), 1, 4.0) for i in range(6)]
        ways += [self.steady("batch", i, ("scores",), 48, 0.8) for i in range(2)]
        ways += [self.steady("thief", i, ("scores",), 1, 6.0) for i in range(3)]
        ways += [self.steady("limited", i, ("limited",), 2, 3.0) for i in range(2)]
        ways += [self.steady("private", i, ("private",), 1, 3.0) for i in range(2)]
        ways += [self.strangers(22.0), self.faulty(1.5), self.leavers(2.0), self.rubbish(4.0), self.loris(0.3)]
        return [asyncio.create_task(way) for way in ways]

    # -- those who behave ----------------------------------------------------------------------------------------------

    async def steady(self, kind: str, number: int, routes: tuple[str, ...], rows: int, rate: float) -> None:
        """Ask as one client over a connection that is kept."""
        rng = random.Random(f"{self.seed} {kind} {number}")
        draw = np.random.default_rng([self.seed, number, len(kind)])
        asked = _thief(draw, 4096) if kind == "thief" else client(draw, FEATURES, 4096)
        if kind == "private":
            asked = asked[:512]  # most are asked again, and remembered
        name = f"{kind}-{number}"
        connection: KeepAlive | None = None
        at = 0
        async for _ in self.pace(rate, rng):
            part = np.take(asked, range(at, at + rows), axis=0, mode="wrap").tolist()
            at += rows
            try:
                if connection is None:
                    connection = await KeepAlive(self.port, name).__aenter__()
                route = rng.choice(routes)
                began = time.monotonic()
                got = await connection.ask(f"/v2/models/{route}/infer", infer(*part))
                self.notes.saw(kind, route, name, part, got, time.monotonic() - began)
                closed = got.headers.get("connection") == "close"
            except (OSError, EOFError, TimeoutError) as error:
                self.notes.lost(kind, error)
                closed = True
            if closed and connection is not None:
                connection.writer.close()
                connection = None
        if connection is not None:
            connection.writer.close()

    async def strangers(self, rate: float) -> None:
        """Be somebody new each time, by address: so many at first that every bounded set of clients is soon full."""
        rng, draw = random.Random(self.seed), np.random.default_rng(self.seed)
        met, room = 0, asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            async for _ in self.pace(FLOOD_RATE, rng):
                met += 1
                await room.acquire()
                if met > FLOOD:
                    await asyncio.sleep(rng.expovariate(rate))
                address = socket.inet_ntoa(struct.pack(">I", rng.randrange(2**32 - 2**29)))
                rows = client(draw, FEATURES, rng.randint(1, 3)).tolist()
                route = "graded" if met <= FLOOD else rng.choice(("scores", "graded"))
                asked = group.create_task(self.once("stranger", f"address:{address}", route, rows, address))
                asked.add_done_callback(lambda _: room.release())

    async def once(self, kind: str, name: str, route: str, rows: list[list[float]], address: str = "") -> None:
        body = json.dumps(infer(*rows)).encode()
        who = f"x-forwarded-for: {address}" if address else f"x-api-key: {name}"
        model = rows_model(rows) if route == "faulty" else route
        head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: g\r\n{who}\r\ncontent-length: {len(body)}\r\n\r\n"
        began = time.monotonic()
        try:
            async with KeepAlive(self.port) as connection:
                connection.writer.write(head.encode() + body)
                got = await connection.receive()
                self.notes.saw(kind, route, name, rows, got, time.monotonic() - began)
        except (OSError, EOFError, TimeoutError) as error:
            self.notes.lost(kind, error)

    async def faulty(self, rate: float) -> None:
        """Ask models that break in every way; each in a task of its own, since some take their time."""
        rng = random.Random(self.seed + 1)
        async with asyncio.TaskGroup() as group:
            async for _ in self.pace(rate, rng):
                which = rng.randrange(len(BROKEN_MODELS))
                group.create_task(self.once("fault", "fault-1", "faulty", [[float(which), 0.5]]))

    # -- those who do not ----------------------------------------------------------------------------------------------

    async def leavers(self, rate: float) -> None:
        """Ask, and go before the answer comes: of a slow model, in the middle of a body, before anything."""
        rng = random.Random(self.seed + 2)
        async with asyncio.TaskGroup() as group:
            async for _ in self.pace(rate, rng):
                group.create_task(self.leave(rng.random()))

    async def leave(self, chance: float) -> None:
        body = json.dumps(infer([1.0] * FEATURES)).encode()
        head = b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: g\r\nx-api-key: leaver-0\r\ncontent-length: %d\r\n\r\n"
        whole = head % len(body) + body
        sent = whole if chance < 0.5 else whole[: int(chance * len(whole))]
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(chance)
            if chance < 0.25:
                writer.transport.abort()
            writer.close()

    async def rubbish(self, rate: float) -> None:
        """Send what is no request, or not the one that it says it is; Guard must answer 4xx or close."""
        rng = random.Random(self.seed + 3)
        async with asyncio.TaskGroup() as group:
            async for _ in self.pace(rate, rng):
                group.create_task(self.spoil(rng))

    async def spoil(self, rng: random.Random) -> None:
        body = json.dumps(infer([1.0] * FEATURES)).encode()
        n = len(body)
        made = {
            "noise": rng.randbytes(400),
            "no json": HEAD + b"content-length: 6\r\n\r\n{{{{{{",
            "deep": HEAD + b"content-length: 40000\r\n\r\n" + b"[" * 40_000,
            "nan": HEAD + b"content-length: %d\r\n\r\n" % (n - 1) + body.replace(b"1.0", b"NaN", 1)[: n - 1],
            "too large": HEAD + b"content-length: 70000\r\n\r\n" + b"0" * 70_000,
            "too large, chunked": HEAD
            + b"transfer-encoding: chunked\r\n\r\n"
            + (b"4000\r\n" + b"0" * 16384 + b"\r\n") * 5,
            "longer than it says": HEAD + b"content-length: %d\r\n\r\n" % (n - 9) + body,
            "two lengths": HEAD + b"content-length: 5\r\ncontent-length: %d\r\n\r\n" % n + body,
            "a bomb": _packed(gzip.compress(b"0" * 10_000_000)),
            "no gzip": _packed(body),
            "many headers": HEAD + b"x: y\r\n" * 9000 + b"\r\n",
            "closed path": b"POST /admin HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\n\r\n",
            "unknown key": HEAD.replace(b"fault-0", b"nobody") + b"content-length: %d\r\n\r\n" % n + body,
        }
        name = rng.choice(list(made))
        status = await self.raw(made[name], half_close=rng.random() < 0.3)
        # Nothing may be let out, and nothing may fail but by the sender's own fault.
        fine = status is None or 400 <= status < 500 or (status == 503 and self.notes.failing("redis"))
        self.notes.causes[f"rubbish: {'closed' if status is None else status}"] += 1
        if not fine:
            self.notes.unexplained.append(f"{name}: {status}")

    async def loris(self, rate: float) -> None:
        """Send a request so slowly that it must be given up: its head, or its body."""
        rng = random.Random(self.seed + 4)
        async with asyncio.TaskGroup() as group:
            async for _ in self.pace(rate, rng):
                group.create_task(self.crawl(HEAD + b"content-length: 500\r\n\r\n" if rng.random() < 0.5 else HEAD))

    async def crawl(self, head: bytes) -> None:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(head)
            gone = asyncio.ensure_future(reader.read())
            while not gone.done() and time.monotonic() - began < 30:
                writer.write(b"x")
                await asyncio.wait([gone], timeout=0.5)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await gone
        took_s = time.monotonic() - began
        self.notes.causes["crawled, and was closed"] += 1
        if took_s > 10:
            self.notes.late.append(f"a crawling client was borne for {took_s:.0f} s")

    async def raw(self, sent: bytes, *, half_close: bool) -> int | None:
        """Send bytes and return the status of what comes back; None for a connection that is closed."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(sent)
                    if half_close and writer.can_write_eof():
                        writer.write_eof()
                    head = await reader.readuntil(b"\r\n\r\n")
                    return int(head.split(b" ", 2)[1])
                finally:
                    writer.transport.abort()
        return None


def rows_model(rows: list[list[float]]) -> str:
    """Return which broken model the first number of a row names."""
    return BROKEN_MODELS[int(rows[0][0])]


def _packed(body: bytes) -> bytes:
    return HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _thief(rng: np.random.Generator, n: int) -> Floats:
    """Return a point of which one feature at a time is moved."""
    rows = np.repeat(client(rng, FEATURES, 1), n, axis=0)
    rows[np.arange(n), np.arange(n) % FEATURES] += 0.01 * (1 + np.arange(n) // FEATURES)
    return rows
