"""A real model server in a process of its own, Open Inference and KServe V1, that misbehaves on demand.

It stands on asyncio streams because it has to break HTTP: the model's name in the path says how.

* `slow` answers when it is told to (`Model.release`), and notes when its client leaves first;
* `reset` resets the connection, `half` sends half of its answer and closes;
* `closing` closes the connection right behind its answer, without having said so;
* `garbage` answers no JSON, `huge` 20 MB, `busy` 503, `gzip` packs its answer although nobody asked;
* every other name just answers.

It counts what it saw, before it answers. Scores are a fixed function of a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import math
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.processes import process

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

CLASSES = 5
_SCORING = re.compile(r"/v2/models/([\w-]+)/infer|/v1/models/([\w-]+):predict")

Json = Any  # Any: JSON


def scores(row: list[float]) -> list[float]:
    """Return the probabilities of a row."""
    projected = sum((place + 1) * value for place, value in enumerate(row))
    powers = [math.exp(2 * math.sin((k + 1) * 1.3 + 0.37 * projected)) for k in range(CLASSES)]
    return [power / sum(powers) for power in powers]


def rows_of(document: Json) -> list[list[float]]:
    """Return the rows of a request of either API."""
    if "instances" in document:
        return document["instances"]
    tensor = document["inputs"][0]
    count, size = tensor["shape"]
    flat = tensor["data"] if not isinstance(tensor["data"][0], list) else [x for row in tensor["data"] for x in row]
    return [flat[i * size : (i + 1) * size] for i in range(count)]


def answer(document: Json, name: str) -> Json:
    """Return the answer in the request's own API."""
    found = [scores(row) for row in rows_of(document)]
    if "instances" in document:
        return {"predictions": found}
    data = [value for row in found for value in row]
    tensor = {"name": "probabilities", "shape": [len(found), CLASSES], "datatype": "FP64", "data": data}
    return {"model_name": name, "outputs": [tensor]}


class _Server:
    """Counts, and answers one connection after the other."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self.one(reader, writer):
                await writer.drain()
        writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False closes the connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        target = head.split(b" ", 2)[1].decode()
        found = _SCORING.fullmatch(target)
        if found is None:
            writer.write(_response(json.dumps(self.control(target)).encode()))
            return True
        name = found[1] or found[2]
        document = json.loads(body)
        self.counts[f"requests/{name}"] += 1
        self.counts[f"rows/{name}"] += len(rows_of(document))
        return await self.score(name, json.dumps(answer(document, name)).encode(), reader, writer)

    async def score(self, name: str, made: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer, or do what the name says."""
        if name == "reset":
            writer.transport.abort()
            return False
        if name == "half":
            whole = _response(made)
            writer.write(whole[: len(whole) - len(made) // 2])
            return False
        if name in BROKEN:
            writer.write(BROKEN[name])
            return True
        if name == "slow" and not await self.wait(reader):
            return False
        writer.write(_response(gzip.compress(made), "gzip") if name == "gzip" else _response(made))
        if name == "closing":
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            self.counts["closed"] += 1
            return False
        return True

    async def wait(self, reader: asyncio.StreamReader) -> bool:
        """Wait to be released; False when the client left first."""
        self.counts["waiting"] += 1
        released = asyncio.ensure_future(self.released.wait())
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((released, gone), return_when=asyncio.FIRST_COMPLETED)
        self.counts["waiting"] -= 1
        left = gone.done()
        self.counts["left"] += left
        for task in (released, gone):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await task
        return not left

    def control(self, target: str) -> Json:
        if target == "/control/release":
            self.released.set()
            self.released = asyncio.Event()
        return dict(self.counts) if target == "/control/counts" else {"ready": True}


def _response(body: bytes, coding: str = "") -> bytes:
    packed = f"content-encoding: {coding}\r\n" if coding else ""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{packed}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


BROKEN = {
    "garbage": _response(b"<html>"),
    "huge": _response(b"[" + b"0," * 10_000_000 + b"0]"),
    "busy": b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
}


async def _main(port: int) -> None:
    server = await asyncio.start_server(_Server().serve, "127.0.0.1", port)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@dataclass(frozen=True)
class Model:
    """A running model server.

    Args:
        port: where it listens.
    """

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> Counter[str]:
        """Return what it saw: `requests/NAME`, `rows/NAME`, `waiting` and `left` (slow ones), `closed` connections."""
        return Counter(self._ask("/control/counts"))

    def release(self) -> None:
        """Let those answer that are slow now."""
        self._ask("/control/release")

    def _ask(self, target: str) -> Json:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", target)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextlib.contextmanager
def model(folder: Path, port: int = 0) -> Generator[Model]:
    """Run a model server, on a free port unless one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "model.log"
    with process([sys.executable, "-m", "tests.support.model", str(port)], log) as running:
        while (found := re.search(r"listening on (\d+)\n", log.read_text())) is None:
            assert running.poll() is None, log.read_text()
            time.sleep(0.005)
        yield Model(int(found[1]))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1])))
