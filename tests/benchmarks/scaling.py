"""What a client and a request cost Redis, and what that comes to for many: docs/scaling.md.

    python -m tests.benchmarks.scaling                                  # measure, then the model
    python -m tests.benchmarks.scaling --model-only --clients 1e6 --rps 1e5 --cores-used 0.6

Bytes are what `used_memory` of a real Valkey grows by, over `--many` clients. Microseconds are what the server's main
thread uses (`used_cpu_*_main_thread`), so a busy machine does not change them much; the best of `--rounds` counts.
Bytes on the wire are counted by a relay. The model multiplies; it knows nothing of queues, and calls a core full at
`--cores-used` of its time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from guard.evidence.values import BINS, BUCKET, KEPT, WINDOW, field
from guard.model.evidence import Delta
from guard.model.ledger import Charge
from guard.proxy.watching import SYNC_S
from guard.state.redis import RedisState
from tests.support.relay import Relay
from tests.support.valkey import Valkey

NOW_S = 1_800_000_000.0
MOST = 2**53 - 1
DAY_S = 86_400
SIGNALS = 13
HOT_BYTES, GUARD_BYTES = 55e3, 152e6
"""Of a watched client, and of a Guard with a profile: docs/detection.md, docs/benchmarks.md."""
SHARES = [0.5, 0.3, 0.12, 0.05, 0.02, 0.007, 0.002, 0.001]
EVIDENCE, MARKS = "evidence/m/0123456789ab", "marks/m"


@dataclass
class Constants:
    """What was measured; see docs/scaling.md for the units."""

    bytes_a_client: dict[str, float]
    charge_us: dict[str, dict[int, float]]
    merge_us: dict[str, float]
    wire_bytes: dict[str, tuple[float, float]]


def digests(first: int, count: int) -> tuple[bytes, ...]:
    return tuple(i.to_bytes(16, "big") for i in range(first, first + count))


def rows(client: int) -> Charge:
    return Charge("rows/client", f"client:{client:08d}", DAY_S, MOST, 1)


def graded(client: int, count: int, first: int = 0) -> Charge:
    name = f"client:{client:08d}"
    return Charge("information/client", name, DAY_S, MOST, count, digests=digests(client * 10_000 + first, count))


def private(client: int) -> tuple[Charge, ...]:
    one = Charge("privacy/client", f"client:{client:08d}", 0, MOST, 1_000_001, event="gaussian(1000.0)", rows=1)
    return one, one._replace(budget="privacy/model", scope="model")


PLANS: dict[str, Callable[[int, int], tuple[Charge, ...]]] = {
    "rows": lambda client, n: (rows(client),),
    "rows, information": lambda client, n: (rows(client), graded(client, 1, n)),
    "rows, privacy per client and model": lambda client, n: (rows(client), *private(client)),
}


def evidence(client: int, windows: int, seen: int = -1, once: int = 0, first: int = 0) -> Delta:
    """Return what `windows` windows of a client's queries count, `seen` of its record being known.

    Bins are drawn as honest clients fill them, so that a full record has about 1,900 of its 3,328 fields.
    """
    rng = np.random.default_rng([client, first])
    bins = rng.choice(BINS, size=(windows, SIGNALS), p=SHARES)
    counts: Counter[int] = Counter()
    for window, found in enumerate(bins.tolist()):
        for signal, bin_ in enumerate(found):
            counts[field((first + window) // BUCKET, signal, bin_)] += 1
    return Delta(f"{client:08d}#0", counts, {}, seen, once)


# -- measuring ---------------------------------------------------------------------------------------------------------


class Bench:
    """One server, and what it has used."""

    def __init__(self, server: Valkey, rounds: int) -> None:
        self.server = server
        self.rounds = rounds

    def used(self) -> int:
        """Return bytes of data: all memory but what connections take."""
        said = self.server.command("INFO", "memory")
        whole, clients = (
            int(re.findall(name, said)[0]) for name in (rb"used_memory:(\d+)", rb"mem_clients_normal:(\d+)")
        )
        return whole - clients

    def cpu_us(self) -> float:
        """Return the CPU of the main thread so far."""
        found = re.findall(rb"used_cpu_(?:user|sys)_main_thread:([\d.]+)", self.server.command("INFO", "cpu"))
        return 1e6 * sum(map(float, found))

    async def bytes_each(self, many: int, one: Callable[[RedisState, int], Awaitable[object]]) -> float:
        """Return how many bytes each of `many` adds."""
        self.server.command("FLUSHALL", "SYNC")
        state = RedisState(self.server.url, timeout_s=10)
        await one(state, many)
        before = self.used()
        for first in range(0, many, 200):
            await asyncio.gather(*[one(state, first + i) for i in range(200)])
        grown = (self.used() - before) / many
        await state.aclose()
        return grown

    async def us_each(self, calls: int, callers: int, one: Callable[[RedisState, int], Awaitable[object]]) -> float:
        """Return what a call costs the server, the best of several rounds."""
        best = float("inf")
        self.server.command("FLUSHALL", "SYNC")
        state = RedisState(self.server.url, timeout_s=10)

        async def caller(number: int, round_: int) -> None:
            for i in range(calls // callers):
                await one(state, (round_ * calls + number * (calls // callers) + i))

        for round_ in range(self.rounds):
            before = self.cpu_us()
            await asyncio.gather(*[caller(number, round_) for number in range(callers)])
            best = min(best, (self.cpu_us() - before) / calls)
        await state.aclose()
        return best


async def measure(many: int, rounds: int) -> Constants:
    """Measure all constants on servers of their own."""
    with tempfile.TemporaryDirectory() as name, Valkey(Path(name) / "v", "--appendfsync", "no") as server:
        bench = Bench(server, rounds)
        sizes: dict[str, float] = {}

        def charge(make: Callable[[int], tuple[Charge, ...]]) -> Callable[[RedisState, int], Awaitable[object]]:
            return lambda state, i: state.charge("m", make(i), NOW_S)

        def record(make: Callable[[int], Delta], space: str) -> Callable[[RedisState, int], Awaitable[object]]:
            return lambda state, i: state.merge(space, [make(i)], NOW_S)

        sizes["rows budget with a window"] = await bench.bytes_each(many, charge(lambda i: (rows(i),)))
        for count in (10, 100, 1000):
            n = max(400, many // max(1, count // 10))
            sizes[f"information budget, {count} distinct queries"] = await bench.bytes_each(
                n, charge(lambda i, count=count: (graded(i, count),))
            )
        sizes["privacy budget per client"] = await bench.bytes_each(many, charge(lambda i: (private(i)[0],)))
        for windows in (1, 6, 64, 512):
            n = max(400, many // windows)
            sizes[f"evidence after {windows * WINDOW} queries"] = await bench.bytes_each(
                n, record(lambda i, windows=windows: evidence(i, windows, once=1), EVIDENCE)
            )
        server.command("CONFIG", "SET", "hash-max-listpack-entries", "4096")
        sizes["the same, hash-max-listpack-entries 4096"] = await bench.bytes_each(
            400, record(lambda i: evidence(i, 512, once=1), EVIDENCE)
        )
        server.command("CONFIG", "SET", "hash-max-listpack-entries", "512")
        marked = {0: 1, 1: 1_800_000_000, 2: 1_800_000_000}
        sizes["marks of a client that stands on the ladder"] = await bench.bytes_each(
            many, record(lambda i: Delta(f"{i:08d}", {}, marked, -1, 1), MARKS)
        )
        release = bytes(100)
        sizes["remembered release of 10 scores (at most 16,384 a ledger)"] = await bench.bytes_each(
            many, lambda state, i: state.remember("m", [(i.to_bytes(4, "big") * 4, release)])
        )
        charged = {
            plan: {
                callers: await bench.us_each(
                    6_400 if callers > 1 else 1_600,
                    callers,
                    lambda state, i, make=make: state.charge("m", make(i % 1000, i), NOW_S),
                )
                for callers in (1, 16, 256)
            }
            for plan, make in PLANS.items()
        }
        merged = await merges(bench)
        wired = await wire(server)
    return Constants(sizes, charged, merged, wired)


async def merges(bench: Bench) -> dict[str, float]:
    """Return what the server uses for one record of a merge, by what is asked of it."""
    found: dict[str, float] = {}
    revisions: dict[int, int] = {}
    once = 0

    async def sync(state: RedisState, start: int) -> None:
        nonlocal once
        once += 1
        deltas = [evidence(i, 1, revisions.get(i, -1), once) for i in range(start * 32 % 2048, start * 32 % 2048 + 32)]
        for delta, record in zip(deltas, await state.merge(EVIDENCE, deltas, NOW_S), strict=True):
            revisions[int(delta.key[:8])] = record.revision

    async def look(state: RedisState, start: int) -> None:
        first = start * 32 % 2048
        deltas = [Delta(f"{i:08d}#0", {}, {}, revisions.get(i, -1)) for i in range(first, first + 32)]
        for delta, record in zip(deltas, await state.merge(EVIDENCE, deltas, NOW_S), strict=True):
            revisions[int(delta.key[:8])] = record.revision

    async def bring(state: RedisState, start: int) -> None:
        await asyncio.gather(
            state.merge(EVIDENCE, [Delta(f"{start % 2048:08d}#0")], NOW_S),
            state.merge(MARKS, [Delta(f"{start % 2048:08d}")], NOW_S),
        )

    found["one window added, nothing new from others"] = await bench.us_each(640, 4, sync) / 32
    found["a client seen, nothing new"] = await bench.us_each(640, 4, look) / 32
    for entries in ("512", "4096"):
        bench.server.command("CONFIG", "SET", "hash-max-listpack-entries", entries)
        bench.server.command("FLUSHALL", "SYNC")
        name = f"one window added to a full record, hash-max-listpack-entries {entries}"
        found[name] = await full(bench)
    bench.server.command("CONFIG", "SET", "hash-max-listpack-entries", "512")
    state = RedisState(bench.server.url, timeout_s=10)
    for start in range(64):
        await state.merge(EVIDENCE, [evidence(i, 6, -1, 1) for i in range(start * 32, start * 32 + 32)], NOW_S)
    await state.aclose()
    best = float("inf")
    state = RedisState(bench.server.url, timeout_s=10)
    for _ in range(bench.rounds):
        before = bench.cpu_us()
        await asyncio.gather(*[bring(state, i) for i in range(2048)])
        best = min(best, (bench.cpu_us() - before) / 2048)
    await state.aclose()
    found["a client brought (evidence of 96 queries, and marks)"] = best
    return found


async def full(bench: Bench) -> float:
    """Return what one window costs the server when the record has all that may be kept, others having added nothing."""
    state, best, once = RedisState(bench.server.url, timeout_s=10), float("inf"), 1
    revisions = [(await state.merge(EVIDENCE, [evidence(i, 510, -1, 1)], NOW_S))[0].revision for i in range(32)]
    for _ in range(bench.rounds):
        before = bench.cpu_us()
        for _ in range(20):
            once += 1
            deltas = [evidence(i, 1, revisions[i], once, first=510) for i in range(32)]
            revisions = [one.revision for one in await state.merge(EVIDENCE, deltas, NOW_S)]
        best = min(best, (bench.cpu_us() - before) / 640)
    await state.aclose()
    return best


async def wire(server: Valkey) -> dict[str, tuple[float, float]]:
    """Return bytes to Redis and back for each call, 64 at once."""
    found: dict[str, tuple[float, float]] = {}

    async def count(name: str, calls: int, one: Callable[[RedisState, int], Awaitable[object]]) -> None:
        async with Relay(server.port) as relay:
            state = RedisState(relay.url, timeout_s=10)
            await one(state, 10**6)
            up, down = relay.bytes_up, relay.bytes_down
            for first in range(0, calls, 64):
                await asyncio.gather(*[one(state, first + i) for i in range(64)])
            found[name] = (relay.bytes_up - up) / calls, (relay.bytes_down - down) / calls
            await state.aclose()

    for plan, make in PLANS.items():
        await count(f"charge: {plan}", 1280, lambda state, i, make=make: state.charge("m", make(i % 1000, i), NOW_S))
    revisions: dict[int, int] = {}

    async def merge(state: RedisState, delta: Delta) -> None:
        (record,) = await state.merge(EVIDENCE, [delta], NOW_S)
        revisions[int(delta.key[:8])] = record.revision

    async def added(state: RedisState, i: int) -> None:
        client = i % 1280  # known from the first round on, so that the record comes back without its counts
        await merge(state, evidence(client, 1, revisions.get(client, -1), i + 1))

    async def seen(state: RedisState, i: int) -> None:
        await merge(state, Delta(f"{i % 1280:08d}#0", seen=revisions.get(i % 1280, -1)))

    for _ in range(2):
        await count("merge: one window added", 1280, added)
    await count("merge: a client seen", 1280, seen)
    return found


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What the reader brings; rows of a request count little, so a request has one.

    Args:
        clients: that ask, evenly.
        rps: requests a second.
        distinct: graded answers a client and window that an information budget remembers.
        guard_rps: requests a second of one Guard on one core, with the policy that is meant.
        full: share of a core's time at which it is called full.
        watched: `limits.watched_clients`.
        sticky: each client's requests go to one replica.
    """

    clients: float
    rps: float
    distinct: int
    guard_rps: float
    full: float
    watched: int
    sticky: bool


class Needs(NamedTuple):
    """What a load needs."""

    replicas: float
    warm: float
    client_bytes: float
    charge_us: float
    detection_us: float
    wire_bytes: float


def needs(found: Constants, load: Load) -> Needs:
    """Work out what a load needs; the formulas are those of docs/scaling.md."""
    sizes, merge = found.bytes_a_client, found.merge_us
    replicas = max(1.0, load.rps / load.guard_rps / load.full)
    homes = replicas if load.sticky else 1.0  # replicas that share the clients between them
    warm = min(1.0, load.watched * homes / load.clients)
    queries = min(KEPT * BUCKET * WINDOW, 30 * DAY_S * load.rps / load.clients) if warm == 1.0 else 0.0
    steps = [(n, sizes[f"evidence after {n} queries"]) for n in (16, 96, 1024, 8192)]
    evidence_bytes = float(np.interp(queries, [0, *(n for n, _ in steps)], [0.0, *(size for _, size in steps)]))
    kept = [(n, sizes[f"information budget, {n} distinct queries"]) for n in (10, 100, 1000)]
    graded_bytes = float(np.interp(load.distinct, [0, *(n for n, _ in kept)], [0.0, *(size for _, size in kept)]))
    plan = "rows, information"
    # Each of a replica's clients that was seen in the last half second has two records looked at, in one merge.
    own = load.rps / replicas * SYNC_S
    seen = min(1.0, (load.clients / homes) * -np.expm1(-own * homes / load.clients) / own)
    detection_us = (
        2 * seen * merge["a client seen, nothing new"]
        + warm * merge["one window added, nothing new from others"] / WINDOW
        + (1 - warm) * merge["a client brought (evidence of 96 queries, and marks)"]
    )
    up, down = found.wire_bytes[f"charge: {plan}"]
    seen_up, seen_down = found.wire_bytes["merge: a client seen"]
    wire = up + down + 2 * (seen + 1 - warm) * (seen_up + seen_down)
    client_bytes = sizes["rows budget with a window"] + graded_bytes + evidence_bytes
    return Needs(replicas, warm, client_bytes, found.charge_us[plan][256], float(detection_us), float(wire))


def model(found: Constants, load: Load) -> list[tuple[str, str]]:
    """Say what a load needs, line by line."""
    need = needs(found, load)
    both = need.charge_us + need.detection_us
    homes = need.replicas if load.sticky else 1.0
    watched_bytes = min(load.watched, load.clients / homes) * HOT_BYTES
    return [
        ("Guards, of one core each", f"{need.replicas:,.0f}"),
        ("memory of a Guard", f"{(GUARD_BYTES + watched_bytes) / 1e6:,.0f} MB at most"),
        ("requests whose client is in the Guard's memory", f"{need.warm:.0%}"),
        ("bytes a client in Redis", f"{need.client_bytes:,.0f}"),
        ("memory in Redis", f"{need.client_bytes * load.clients / 1e9:.1f} GB"),
        ("Redis us a request: budgets, detection", f"{need.charge_us:.1f}, {need.detection_us:.1f}"),
        ("one ledger's ceiling, budgets alone", f"{load.full * 1e6 / need.charge_us:,.0f} requests/s"),
        ("one ledger's ceiling, with detection", f"{load.full * 1e6 / both:,.0f} requests/s"),
        ("ledgers, on a shard each", f"{np.ceil(load.rps * both / 1e6 / load.full):.0f}"),
        ("network to and from Redis", f"{load.rps * need.wire_bytes * 8 / 1e9:.2f} Gbit/s"),
    ]


def show(found: Constants, load: Load) -> None:
    """Print constants and the model, as docs/scaling.md has them."""
    print("| in Redis | bytes |\n|---|---|")
    for name, size in found.bytes_a_client.items():
        print(f"| {name} | {size:,.0f} |")
    print("\n| a charge, server us | 1 caller | 16 | 256 | bytes to, from |\n|---|---|---|---|---|")
    for plan, by_callers in found.charge_us.items():
        up, down = found.wire_bytes[f"charge: {plan}"]
        print(f"| {plan} | {' | '.join(f'{us:.1f}' for us in by_callers.values())} | {up:.0f}, {down:.0f} |")
    print("\n| a merge, server us a record | us |\n|---|---|")
    for name, us in found.merge_us.items():
        print(f"| {name} | {us:.1f} |")
    for name, (up, down) in found.wire_bytes.items():
        if name.startswith("merge"):
            print(f"| bytes to, from: {name[7:]} | {up:.0f}, {down:.0f} |")
    print(f"\n| {load.clients:,.0f} clients, {load.rps:,.0f} requests/s | |\n|---|---|")
    for name, value in model(found, load):
        print(f"| {name} | {value} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--constants", type=Path, default=Path(".bench/scaling.json"))
    parser.add_argument("--model-only", action="store_true", help="take the constants that were measured before")
    parser.add_argument("--clients", type=float, default=1e6)
    parser.add_argument("--rps", type=float, default=1e5)
    parser.add_argument("--distinct", type=int, default=64)
    parser.add_argument("--guard-rps", type=float, default=2148, help="docs/benchmarks.md")
    parser.add_argument("--cores-used", type=float, default=0.6)
    parser.add_argument("--watched", type=int, default=2048, help="limits.watched_clients")
    parser.add_argument("--not-sticky", action="store_true", help="a client's requests go to any replica")
    given = parser.parse_args()
    if given.model_only:
        held = json.loads(given.constants.read_text())
        held["charge_us"] = {plan: {int(n): us for n, us in by.items()} for plan, by in held["charge_us"].items()}
        found = Constants(**held)
    else:
        found = asyncio.run(measure(given.many, given.rounds))
        given.constants.parent.mkdir(parents=True, exist_ok=True)
        given.constants.write_text(json.dumps(asdict(found), indent=1) + "\n")
    load = Load(
        given.clients, given.rps, given.distinct, given.guard_rps, given.cores_used, given.watched, not given.not_sticky
    )
    show(found, load)


if __name__ == "__main__":
    main()
