"""Teachers: models trained on disjoint shards of digits, each under a base path of its own, that misbehave on demand.

A teacher is the nearest neighbour in its shard, whose images stand there five times: as they are, and moved by a pixel
in each direction. A process serves some of the teachers over Open Inference; `tell` says what one does from now on:

* `fine` answers; `slow` does not answer until it is told something else, or its client leaves;
* `nan`, `text`, `wide`, `outside` answer what is no probability vector of ten classes; `error` answers 500.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from guard.model.arrays import Floats, Ints
from guard.selftest.lab.data import digits
from tests.support.processes import process

CLASSES = 10
HELD_OUT = 360
_SOFTNESS = 0.3
_BLANK = {
    "nan": [0.5, *[None] * (CLASSES - 1)],
    "wide": [1.0 / (CLASSES + 1)] * (CLASSES + 1),
    "outside": [0.9] * CLASSES,
}
_TARGET = re.compile(r"/(?P<name>\w+)(?:/v2/models/digits/infer|/control/(?P<mode>\w+)|/v2/health/ready)")


@lru_cache
def parts(seed: int = 0) -> tuple[Floats, Ints, Floats, Ints]:
    """Return training images and labels, held-out images and labels; pixels from 0 to 16."""
    x, y = digits()
    order = np.random.default_rng(seed).permutation(len(x))
    train, held = order[:-HELD_OUT], order[-HELD_OUT:]
    return x[train], y[train], x[held], y[held]


def moved(images: Floats) -> Floats:
    """Return images, shape (n, 64), and each of them moved by one pixel in four directions, shape (5 n, 64)."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    views = [padded[:, dy : dy + 8, dx : dx + 8] for dy, dx in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
    return np.concatenate([view.reshape(-1, 64) for view in views])


@dataclass(frozen=True)
class Teacher:
    """The nearest neighbour in one shard.

    Args:
        x: images, shape (n, 64).
        y: their labels.
    """

    x: Floats
    y: Ints

    def scores(self, rows: Floats) -> Floats:
        """Return probabilities, shape (m, 10): by the distance of the nearest image of each class."""
        squares = (rows**2).sum(axis=1)[:, None] + (self.x**2).sum(axis=1) - 2 * rows @ self.x.T
        nearest = np.full((len(rows), CLASSES), np.inf)
        for label in range(CLASSES):
            if (of_class := self.y == label).any():
                nearest[:, label] = squares[:, of_class].min(axis=1)
        weights = np.exp((nearest.min(axis=1, keepdims=True) - nearest) / (256 * _SOFTNESS))
        return weights / weights.sum(axis=1, keepdims=True)


def teachers(count: int, seed: int = 0) -> list[Teacher]:
    """Train teachers on disjoint shards of the training images."""
    x, y, _, _ = parts(seed)
    return [Teacher(moved(x[s]), np.tile(y[s], 5)) for s in np.array_split(np.arange(len(x)), count)]


def request(rows: Floats) -> bytes:
    """Return the request that asks for some images."""
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return orjson.dumps({"inputs": [tensor]})


def scores_in(body: bytes) -> Floats:
    """Return the probabilities of an answer."""
    tensor = orjson.loads(body)["outputs"][0]
    return np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])


class _Server:
    """Answers for its teachers, one connection after the other."""

    def __init__(self, served: dict[str, Teacher]) -> None:
        self.served = served
        self.modes = dict.fromkeys(served, "fine")
        self.changed = asyncio.Event()
        self.asked: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self.one(reader, writer):
                await writer.drain()
        writer.close()

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        found = _TARGET.fullmatch(head.split(b" ", 2)[1].decode())
        if found is None or found["name"] not in self.served:
            writer.write(_response(b"{}", 404))
            return True
        name = found["name"]
        if found["mode"] is not None:
            self.modes[name] = found["mode"]
            self.changed.set()
            self.changed = asyncio.Event()
        if found["mode"] is not None or not body:
            writer.write(_response(orjson.dumps({"asked": self.asked[name]})))
            return True
        self.asked[name] += 1
        while self.modes[name] == "slow":
            if not await self.stays(reader):
                return False
        writer.write(self.answer(name, body))
        return True

    def answer(self, name: str, body: bytes) -> bytes:
        mode = self.modes[name]
        if mode == "error":
            return _response(b"{}", 500)
        if mode == "text":
            return _response(b"it is a seven")
        tensor = orjson.loads(body)["inputs"][0]
        rows = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        scores = self.served[name].scores(rows).tolist() if mode == "fine" else [_BLANK[mode]] * len(rows)
        flat = [value for row in scores for value in row]
        output = {"name": "probabilities", "shape": [len(rows), len(scores[0])], "datatype": "FP64", "data": flat}
        return _response(orjson.dumps({"model_name": "digits", "outputs": [output]}))

    async def stays(self, reader: asyncio.StreamReader) -> bool:
        """Wait until somebody is told something; False when the client left first."""
        told = asyncio.ensure_future(self.changed.wait())
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((told, gone), return_when=asyncio.FIRST_COMPLETED)
        left = gone.done()
        for task in (told, gone):
            task.cancel()
        await asyncio.gather(told, gone, return_exceptions=True)
        return not left


def _response(body: bytes, status: int = 200) -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    return head + body


async def _main(file: Path) -> None:
    with np.load(file) as kept:
        names = sorted({key[2:] for key in kept})
        served = {name: Teacher(kept[f"x_{name}"], kept[f"y_{name}"]) for name in names}
    server = await asyncio.start_server(_Server(served).serve, "127.0.0.1", 0, backlog=1024)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@dataclass(frozen=True)
class Served:
    """A process that serves some teachers.

    Args:
        port: where it listens.
        names: of its teachers.
        kill: ends it at once (SIGKILL).
    """

    port: int
    names: tuple[str, ...]
    kill: Any  # Any: a bound method without arguments

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    @property
    def upstreams(self) -> list[str]:
        """What `--upstream` takes."""
        return [f"{name}={self.url(name)}" for name in self.names]

    def tell(self, name: str, mode: str) -> int:
        """Say what a teacher does from now on; returns how often it was asked."""
        with urllib.request.urlopen(f"{self.url(name)}/control/{mode}", timeout=30) as reply:
            return orjson.loads(reply.read())["asked"]

    def scores(self, name: str, rows: Floats) -> Floats:
        """Ask a teacher directly."""
        with urllib.request.urlopen(f"{self.url(name)}/v2/models/digits/infer", request(rows), timeout=30) as reply:
            return scores_in(reply.read())


@contextlib.contextmanager
def serving(folder: Path, trained: Sequence[Teacher], first: int = 0) -> Generator[Served]:
    """Serve teachers from a process of their own; they are called t0, t1 and so on from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple([f"t{first + i}" for i in range(len(trained))])
    kept = {f"x_{name}": teacher.x for name, teacher in zip(names, trained, strict=True)}
    kept |= {f"y_{name}": teacher.y for name, teacher in zip(names, trained, strict=True)}
    file, log = folder / "teachers.npz", folder / "teachers.log"
    np.savez(file, allow_pickle=False, **kept)
    env = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with process([sys.executable, "-m", "tests.support.teachers", str(file)], log, env) as running:
        while (found := re.search(r"listening on (\d+)\n", log.read_text())) is None:
            assert running.poll() is None, log.read_text()
            time.sleep(0.005)
        yield Served(int(found[1]), names, running.kill)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(Path(sys.argv[1])))
