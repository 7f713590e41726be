"""What detection costs: CPU of a request's phases `decide` and `observe`, one row and batches, few clients and many.

    python -m tests.benchmarks.watching

In process, on CPU time (machines are shared): features, all nine detectors with a profile, windows, evidence, restarts,
pools and the ladder. Every figure is the mean over all requests, so the one request in sixteen that ends a window is in
it; `longest` is the longest single piece of work that the event loop waits for.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from guard.detectors.profile import encode
from guard.model.client import Client
from guard.model.exchange import Call
from guard.model.prediction import Answer, Prediction
from guard.model.queries import Queries
from guard.proxy.exchange import Exchange
from guard.wire.base import Reading
from tests.support.fakes import Guarded
from tests.support.simulated_profile import client, profile, softmax

FEATURES, CLASSES = 64, 10
POLICY = """version: 1
routes:
  - name: bench
    api: open_inference
    profile: bench.profile.json
    ladder:
      - {tier: any, false_alarm: 1.0e-2, action: alert}
      - {tier: any, false_alarm: 1.0e-3, action: degrade, defences: [{kind: label_only}]}
      - {tier: structure, false_alarm: 1.0e-3, action: alert}
      - {tier: any, over: group, false_alarm: 1.0e-3, action: degrade, defences: [{kind: label_only}]}
      - {tier: any, over: all, false_alarm: 1.0e-3, action: alert}
"""


class Bench:
    """A guard that is asked without a wire.

    Args:
        folder: where its policy is.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "bench.profile.json").write_bytes(encode(profile(FEATURES, CLASSES)))
        self.guard = Guarded(POLICY, folder)
        self.watching = self.guard.handler.watching
        self.active = self.guard.plans.current
        self.route = self.active.plan.routes[0]
        self.cpu: list[float] = []

    async def ask(self, rows: np.ndarray, who: str) -> None:
        """Take rows through `decide` and `observe`, each timed by its own CPU."""
        asked = Queries(len(rows), rows.ravel().tolist(), width=FEATURES)
        asked.matrix()
        x = Exchange(
            active=self.active,
            route=self.route,
            endpoint=self.route.endpoints[0].endpoint,
            metrics=self.guard.metrics.route("bench"),
            call=Call("/", {}, "application/json", b"", [], b"", b"/"),
            method=b"POST",
            peer="127.0.0.1",
            began_s=0.0,
            now_s=1.8e9,
            client=Client(who, "group", "api_key"),
            reading=Reading(asked, b"", b""),
            rows=len(rows),
        )
        scores = softmax(rows, CLASSES)
        x.answer = Answer(len(rows), None, [Prediction("p", scores, lambda _: None)])
        client_ = Client(who, "group", "api_key")
        began = time.thread_time()
        pending = self.watching.decide(x, client_)
        if pending is not None:
            await pending
        pending = self.watching.observe(x, client_)
        if pending is not None:
            await pending
        self.cpu.append(time.thread_time() - began)


async def rows_of(bench: Bench, batch: int, requests: int) -> tuple[float, float, float]:
    """Return (mean us a row, 99th percentile us a request, longest us a request) of one client after a warm-up."""
    rng = np.random.default_rng(batch)
    warm = max(8, 1024 // batch)
    for number, rows in enumerate(np.split(client(rng, FEATURES, batch * (warm + requests)), warm + requests)):
        if number == warm:
            bench.cpu.clear()
        await bench.ask(rows, f"client{batch}")
        if number % 64 == 63:
            await bench.watching.sync()
    us = np.array(bench.cpu) * 1e6
    return float(us.mean() / batch), float(np.quantile(us, 0.99)), float(us.max())


async def clients_of(bench: Bench, clients: int, requests: int) -> float:
    """Return mean us a request of one row where each is of one of `clients` clients, drawn anew."""
    rng = np.random.default_rng(clients)
    rows = client(rng, FEATURES, requests)
    bench.cpu.clear()
    for number in range(requests):
        await bench.ask(rows[number][None], f"many{rng.integers(clients)}")
        if number % 2048 == 2047:
            await bench.watching.sync()
    return float(np.mean(bench.cpu) * 1e6)


async def bytes_of(folder: Path, clients: int) -> float:
    """Return bytes a client after 10,000 rows each: the most that one takes."""
    bench = Bench(folder)
    rng = np.random.default_rng(1)
    await bench.ask(client(rng, FEATURES, 64), "first")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(clients):
        for _ in range(157):
            await bench.ask(client(rng, FEATURES, 64), f"c{number}")
    bench.cpu.clear()
    await bench.watching.sync()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / clients


async def main_async(options: argparse.Namespace) -> None:
    logging.disable(logging.WARNING)  # what the ladder tells
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        print("| rows a request | mean us a row | 99% us a request | longest us a request |\n|---|---|---|---|")
        for batch, requests in ((1, 8000), (16, 1000), (64, 400)):
            mean, most, longest = await rows_of(bench, batch, requests)
            print(f"| {batch} | {mean:.1f} | {most:.0f} | {longest:.0f} |", flush=True)
        print("\n| clients | mean us a request of one row |\n|---|---|")
        for clients in (100, 1_000, 10_000, 100_000, 1_000_000):
            print(f"| {clients:,} | {await clients_of(bench, clients, options.requests):.1f} |", flush=True)
        print(f"\nbytes a client after 10,000 rows: {await bytes_of(Path(name), 8):,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    asyncio.run(main_async(parser.parse_args()))


if __name__ == "__main__":
    main()
