"""One soak, from a guard at rest to a guard at rest."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

from guard.model.ledger import Account
from guard.state.books import open_books
from tests.soak.actors import Cast
from tests.soak.faults import Faults
from tests.soak.notes import Notes
from tests.soak.samples import Sample, look
from tests.soak.stage import GRADED, LEDGERS, LIMITED, NAMES, Stage, stage
from tests.soak.verdict import Check, checks
from tests.support.clients import PATIENCE_S, admin

EVERY_S = 5.0
QUIET_S = 8.0
"""Idle connections to the model are kept for 4 s, and lists of clients are merged every half second."""
MOST_REDIS = 4 * LEDGERS + 8
"""A lane for each ledger and kind of call, and a few for what goes beside the lanes."""


@dataclass(frozen=True)
class Found:
    """What came of a soak.

    Args:
        duration_s: of the load.
        seed: of everything drawn.
        samples: every `EVERY_S`.
        before: at rest, before the load.
        after: at rest, behind it.
        causes: answers by what explains them.
        faults: that struck, by kind.
        latencies: (minute, answers, p50 ms, p99 ms) of honest clients' single rows.
        rows: answered in all.
        clients: that were answered.
        checks: what was asked of it.
    """

    duration_s: float
    seed: int
    samples: list[Sample]
    before: Sample
    after: Sample
    causes: dict[str, int]
    faults: dict[str, int]
    latencies: list[tuple[int, int, float, float]]
    rows: int
    clients: int
    checks: list[Check]


async def soak(folder: Path, duration_s: float, seed: int) -> Found:
    """Soak a guard for so long."""
    with stage(folder) as running:
        began = time.monotonic()
        notes = Notes(began)
        cast, faults = Cast(running.guard.port, notes, seed), Faults(running, notes)
        await everything_once(cast)
        await asyncio.sleep(QUIET_S)
        before = await sample(running, notes)
        notes.began = began = time.monotonic()
        acting, striking = cast.actors(), faults.all()
        samples: list[Sample] = []
        while time.monotonic() - began < duration_s:
            await asyncio.sleep(EVERY_S)
            samples.append(await sample(running, notes))
        cast.ended = True
        faults.ended.set()
        await asyncio.gather(*acting, *striking)
        await asyncio.sleep(QUIET_S)
        after = await sample(running, notes)
        wrong = await faults_found(running, notes)
        tracebacks = running.guard.log.read_text().count("Traceback")
    judged = checks(samples, before, after, duration_s, MOST_REDIS, wrong, tracebacks)
    rows = notes.witness.rows
    return Found(
        duration_s, seed, samples, before, after, dict(notes.causes), notes.faults, notes.latencies(),
        rows.total(), len(rows), judged,
    )  # fmt: skip


async def everything_once(cast: Cast) -> None:
    """Use every route once, and every model that breaks, so that what is made at first use is there."""
    for route in ("scores", "graded", "limited", "private"):
        await cast.once("honest", "honest-7", route, [[0.1] * 8])
    await asyncio.gather(*[cast.once("fault", "fault-1", "faulty", [[float(n), 0.5]]) for n in range(8)])


async def sample(running: Stage, notes: Notes) -> Sample:
    """Look at the guard, and at Redis where it is there."""
    exposed = (await asyncio.to_thread(admin, running.guard, "/metrics")).body.decode()
    ports = running.valkey.port, running.model_port
    found = await asyncio.to_thread(look, running.guard.running.pid, running.guard.log, exposed, ports, notes.began)
    if notes.failing("redis"):
        return found
    try:
        said = await asyncio.to_thread(running.valkey.command, "INFO", "memory")
        keys = await asyncio.to_thread(running.valkey.command, "DBSIZE")
        used = next(line for line in said.split(b"\r\n") if line.startswith(b"used_memory:"))
        return replace(found, redis_bytes=int(used[12:]), redis_keys=int(keys[1:]))
    except (OSError, StopIteration, ValueError):
        return found  # it was killed at this very moment


async def faults_found(running: Stage, notes: Notes) -> dict[str, list[str]]:
    """Return what must be empty."""
    witness = notes.witness
    limited = await accounts(running, "limited")
    graded = await accounts(running, "graded")
    private = await accounts(running, "private")
    over = witness.over(witness.rows, {"limited": LIMITED}) + witness.over(witness.distinct(), {"graded": GRADED})
    under: list[str] = []
    for name in NAMES:
        told = {
            "limited": witness.rows["limited", name],
            "graded": len(witness.graded.get(("graded", name), ())),
        }
        spent = {
            "limited": limited.get(f"rows/client client:{name}"),
            "graded": graded.get(f"information/client client:{name}"),
        }
        under += [
            f"{route}: {name} was told {count}"
            for route, count in told.items()
            if count > (0 if (account := spent[route]) is None else account.spend.spent)
        ]
    under += [
        f"private: {name} does not add up"
        for name, account in private.items()
        if sum(entry.amount for entry in account.entries) != account.spend.spent
    ]
    drawn = witness.drawn("private", NAMES)
    whole = private["privacy/model model"]
    if sum(entry.rows for entry in whole.entries) < drawn:
        under.append(f"private: {drawn} releases were drawn")
    return {
        "every failure is explained": notes.unexplained,
        "nobody waits too long": notes.late,
        "nothing is unguarded": witness.unguarded,
        "errors keep their form": witness.strange,
        "nothing is overspent": over,
        "nothing is undercounted": under,
    }


async def accounts(running: Stage, ledger: str) -> dict[str, Account]:
    """Return a ledger's accounts by `BUDGET SCOPE`."""
    books = open_books(running.valkey.url, write=False)
    try:
        async with asyncio.timeout(10 * PATIENCE_S):
            return {f"{one.budget} {one.scope}": one for one in await books.accounts(ledger)}
    finally:
        await books.aclose()
