"""What the audit log costs a request: CPU on the event loop, and of the writer's thread, which shares its core.

    python -m tests.benchmarks.audit

In process, on CPU time (machines are shared), on exchanges that went through the whole handler. `trace` is what it
costs to have every defence say what it changed; `decision` makes the entry, `add` hands it over; `writer` is all that
the thread does for a line: chaining, writing, checkpoints, heads, waking up. Entries come in bursts of what arrives
within one gathering of the writer, so `writer` depends on the rate. Figures are medians over `ROUNDS` rounds, with the
quartiles.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guard.engine.randomness import QueryNoise
from guard.engine.release import release
from guard.model.exchange import Reply
from guard.model.prediction import Answer, Prediction
from guard.proxy.audit import open_audit
from guard.proxy.decisions import decision_of
from guard.telemetry.audit_target import PACE
from guard.telemetry.metrics import Metrics
from guard.telemetry.pseudonyms import Pseudonyms
from tests.support.fakes import SECRET, Guarded, Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.ports import AuditSink
    from guard.proxy.exchange import Exchange, Response
    from guard.proxy.handler import Handler

FEATURES, CLASSES, CLIENTS = 64, 10, 100
GATHER_S = PACE.gather_s
ROUNDS, REQUESTS, PIECE = 15, 1000, 20
RATES = (200, 2000)
GOAL_US = 15.0


class Keeping:
    """A handler that keeps the exchanges that went through it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.kept: list[Exchange] = []

    async def handle(self, x: Exchange) -> Response:
        self.kept.append(x)
        return await self.handler.handle(x)


def distributions(rows: int, seed: int) -> np.ndarray:
    """Scores of a model that knows what it says."""
    raw = np.exp(3.0 * np.random.default_rng(seed).normal(size=(rows, CLASSES)))
    return raw / raw.sum(axis=1, keepdims=True)


async def exchanges(preset: str, rows: int, folder: Path) -> list[Exchange]:
    """Exchanges of `CLIENTS` clients after all phases, twice each: the second time they are known."""
    guard = Guarded(preset, folder, api="open_inference")
    # `trace` is set where there is an audit log; this one only keeps exchanges.
    guard.handler.audit = open_audit(f"file:{folder / 'warm.jsonl'}", SECRET, guard.metrics)
    keeping = Keeping(guard.handler)
    guard.app.handler = keeping  # pyright: ignore[reportAttributeAccessIssue] (it has the one method that is called)

    def answer(seen: Seen) -> Reply:
        del seen
        data = distributions(rows, 5).ravel().tolist()
        output = {"name": "probabilities", "datatype": "FP64", "shape": [rows, CLASSES], "data": data}
        return Reply(200, [(b"content-type", b"application/json")], json.dumps({"outputs": [output]}).encode())

    guard.upstream.answer = answer
    random = np.random.default_rng(7)
    for number in range(2 * CLIENTS):
        tensor = {"name": "x", "datatype": "FP64", "shape": [rows, FEATURES]}
        tensor["data"] = random.normal(size=rows * FEATURES).tolist()
        peer = f"192.0.2.{number % CLIENTS}"
        got = await guard.ask("POST", "/v2/models/m/infer", json.dumps({"inputs": [tensor]}).encode(), peer=peer)
        assert got.status == 200, got
    guard.handler.audit.close()
    return keeping.kept[CLIENTS:]


def timed(work: Callable[[], None]) -> list[float]:
    """Return microseconds of this thread's CPU a request, one figure a round."""
    found: list[float] = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        work()
        found.append((time.thread_time() - began) / REQUESTS * 1e6)
    return found


def tracing(x: Exchange) -> list[float]:
    """Return what it costs to have every defence say what it changed."""
    reading = x.reading
    assert reading is not None
    route, scores = x.route, distributions(x.rows, 5)

    def once(trace: bool) -> None:
        for _ in range(PIECE):
            noise = QueryNoise(SECRET, route.ledger, "client", reading.queries, route.inputs)
            answer = Answer(x.rows, None, [Prediction("p", scores, lambda made: None)])
            release(route.defences, route.outputs, answer, noise, labels_only=False, trace=trace)

    def cpu(trace: bool) -> float:
        began = time.thread_time()
        once(trace)
        return time.thread_time() - began

    # Short pieces in turn, and of both the fastest tenth: the rest is what else the machine does.
    pieces = ROUNDS * REQUESTS // PIECE
    times = [(cpu(True), cpu(False)) for _ in range(pieces)]
    on, off = (sorted(column)[: pieces // 10] for column in zip(*times, strict=True))
    return [(one - other) / PIECE * 1e6 for one, other in zip(on, off, strict=True)]


def written(entries: list[dict[str, object]], sink: AuditSink, rate: int) -> tuple[list[float], list[float]]:
    """Return microseconds a line of `add`, and of the writer."""
    burst = max(1, int(rate * GATHER_S))
    adds: list[float] = []
    writes: list[float] = []
    for _ in range(ROUNDS):
        whole, mine, added = time.process_time(), time.thread_time(), 0.0
        count = 0
        while count < REQUESTS:
            began = time.thread_time()
            for entry in entries[:burst]:
                sink.room()
                sink.add(entry)
            added += time.thread_time() - began
            count += burst
            time.sleep(GATHER_S)
        others = (time.process_time() - whole) - (time.thread_time() - mine)
        adds.append(added / count * 1e6)
        writes.append(others / count * 1e6)
    return adds, writes


def said(name: str, found: list[float]) -> float:
    """Print one figure and return it."""
    low, middle, high = statistics.quantiles(found, n=4)
    print(f"  {name:<28}{middle:6.2f} us  [{low:.2f} to {high:.2f}]")
    return middle


def measure(preset: str, rows: int, folder: Path) -> None:
    """Measure one preset and batch."""
    kept = asyncio.run(exchanges(preset, rows, folder))
    x = kept[-1]
    names = Pseudonyms(bytes(32))

    def decisions() -> None:
        for number in range(REQUESTS):
            decision_of(kept[number % CLIENTS], "allow", names)

    entries = [decision_of(one, "allow", names) for one in kept]
    print(f"{preset}, {rows} rows, a line of {len(json.dumps(entries[0])) + 80} bytes")
    on_loop = said("trace", tracing(x)) + said("decision", timed(decisions))
    for rate in RATES:
        sink = open_audit(f"file:{folder / f'{rate}.jsonl'}", SECRET, Metrics())
        adds, writes = written(entries, sink, rate)
        sink.close()
        add, writer = said(f"add, {rate}/s", adds), said(f"writer, {rate}/s", writes)
        whole = on_loop + add + writer
        print(f"  in all at {rate}/s: {on_loop + add:.1f} us on the loop, {whole:.1f} us (goal {GOAL_US})")


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    gc.disable()
    for preset in ("balanced", "strict"):
        for rows in (1, 64):
            with tempfile.TemporaryDirectory() as made:
                measure(preset, rows, Path(made))
