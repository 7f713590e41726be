"""Three Guards on one Redis, and everything that may happen to it: nothing is overspent, nothing is answered unguarded.

Each fault has clients of its own, whose budgets are a third spent when it strikes, and are spent to the end behind it.
The relays between the Guards and Redis are `tests.support.relay`'s; Guards, Redis and the model are real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from guard.policy.load import load_plan
from guard.state.books import open_books
from tests.support.clients import PATIENCE_S, Answered, KeepAlive, admin, ask, infer
from tests.support.model import CLASSES, Model, model, scores
from tests.support.processes import Guard, guard
from tests.support.relay import Mode, Relay
from tests.support.valkey import Valkey
from tests.support.witness import STATE_AWAY, Witness

if TYPE_CHECKING:
    from pathlib import Path

    from guard.model.ledger import Account

REPLICAS = 3
CLIENTS = 4
ROWS, GRADED = 300, 100
FAULT_S = 2.5
RECOVERY_S = 5.0
LONGEST_S = 4.5
"""No request takes longer, whatever the state does: four waits of a second for it, and what the busy machine adds."""
SECRET = {"GUARD_SECRET": "one secret for all three of them"}
WIDTH = 8
PROBE = "probe-0"

HEAD = """version: 1
limits: {upstream_timeout_s: 5}
identity:
  - {kind: api_key, header: x-api-key, keys_file: KEYS}
routes:
  - name: rows
    api: open_inference
    match: {path: /v2/models/rows/infer}
    defences: [{kind: round, decimals: 3}]
    budgets: [{kind: rows, per: client, limit: ROWS}]
  - name: graded
    api: open_inference
    match: {path: /v2/models/graded/infer}
    defences: [{kind: round, decimals: 3}]
    budgets: [{kind: information, per: client, graded_answers: GRADED}]
"""
PRIVATE = """  - name: NAME
    api: open_inference
    match: {path: /v2/models/NAME/infer}
    outputs: {kind: probabilities, classes: [a, b, c, d, e]}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: 0.001}
    defences: [{kind: dp_gaussian, noise_multiplier: 100}]
    budgets:
      - {kind: privacy, per: model, epsilon: 0.8, delta: 1.0e-5}
      - {kind: privacy, per: client, epsilon: 0.5, delta: 1.0e-5}
"""
WATCHED = """  - name: watched
    api: open_inference
    match: {path: /v2/models/watched/infer}
    inputs: {kind: vector, size: 8, low: 0, high: 1}
    defences: [{kind: round, decimals: 3}]
    detectors: default
    ladder: [{tier: structure, false_alarm: 1.0e-3, action: deny, hold: 1h}]
"""

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


def policy(folder: Path, *routes: str) -> Path:
    names = [f"{fault}-{i}" for fault in (*FAULTS, "probe", "thief", "apart") for i in range(CLIENTS)]
    keys = "".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in names)
    (folder / "keys").write_text(keys)
    path = folder / "policy.yaml"
    head = HEAD.replace("KEYS", str(folder / "keys")).replace("limit: ROWS", f"limit: {ROWS}")
    path.write_text(head.replace("GRADED", str(GRADED)) + "".join(routes))
    return path


@dataclass
class Fleet:
    """The replicas, what is in front of Redis for each, and what it takes to start one again."""

    policy: Path
    upstream: Model
    valkey: Valkey | None
    relays: list[Relay]
    folder: Path
    guards: list[Guard] = field(default_factory=list[Guard])
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    started: int = 0

    async def start(self, number: int) -> Guard:
        """Start one replica behind its relay, or with memory of its own."""
        self.started += 1
        url = self.relays[number].url if self.relays else "memory:"
        made = guard(self.policy, self.upstream.url, self.folder / f"guard{self.started}", "--state", url, env=SECRET)
        return await asyncio.to_thread(self.stack.enter_context, made)


@contextlib.asynccontextmanager
async def fleet(folder: Path, *routes: str, shared: bool = True) -> AsyncGenerator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        upstream = stack.enter_context(model(folder / "model"))
        valkey = stack.enter_context(Valkey(folder / "valkey")) if shared else None
        relays: list[Relay] = []
        if valkey is not None:
            relays = [await stack.enter_async_context(Relay(valkey.port)) for _ in range(REPLICAS)]
        made = Fleet(policy(folder, *routes), upstream, valkey, relays, folder)
        stack.enter_context(made.stack)
        for number in range(REPLICAS):
            made.guards.append(await made.start(number))
        yield made


Fault = Callable[[Fleet], Awaitable[None]]


# -- load --------------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Clients that ask all replicas at once until all their budgets are spent.

    Args:
        fleet: whom they ask.
        names: theirs.
        private: the private route, or none.
    """

    fleet: Fleet
    names: list[str]
    private: str = ""
    witness: Witness = field(default_factory=Witness)
    spent: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    async def one(self, number: int, name: str, seed: int) -> None:
        """Ask one replica, on one connection after the other, until nothing is left."""
        rng = random.Random(seed)
        while True:
            try:
                async with KeepAlive(self.fleet.guards[number].port, name) as connection:
                    if await self.turns(connection, name, rng):
                        return
            except (OSError, EOFError):
                await asyncio.sleep(0.02)  # the replica is gone

    async def turns(self, connection: KeepAlive, name: str, rng: random.Random) -> bool:
        routes = ("rows", "graded", self.private) if self.private else ("rows", "graded")
        while left := [route for route in routes if (route, name) not in self.spent]:
            got = await self.ask(connection, rng.choice(left), name, rng)
            if got.status not in (200, 429):
                await asyncio.sleep(0.02)
        return True

    async def ask(self, connection: KeepAlive, route: str, name: str, rng: random.Random) -> Answered:
        count = rng.randint(1, 3)
        # Other replicas are asked the same private queries; of the rest hardly any comes twice.
        kinds = 300 if route == self.private else 10**9
        rows = [[rng.randrange(kinds) / kinds, 0.25] for _ in range(count)]
        began = time.monotonic()
        got = await connection.ask(f"/v2/models/{route}/infer", infer(*rows))
        self.witness.saw(route, name, rows, got, time.monotonic() - began)
        if count == 1 and (got.status == 429 or (route == "graded" and got.status == 200 and self.labels(got))):
            self.spent.add((route, name))
        return got

    @staticmethod
    def labels(got: Answered) -> bool:
        return all(value in (0.0, 1.0) for value in got.json["outputs"][0]["data"])

    async def run(self) -> None:
        async with asyncio.timeout(60):
            places = [(number, name) for number in range(REPLICAS) for name in self.names]
            await asyncio.gather(*[self.one(number, name, seed) for seed, (number, name) in enumerate(places)])

    async def under_way(self) -> None:
        """Return when the fault may strike."""
        while sum(self.witness.rows["rows", name] for name in self.names) < ROWS * len(self.names) // 3:
            await asyncio.sleep(0.01)


# -- what holds --------------------------------------------------------------------------------------------------------


async def accounts(valkey: Valkey, ledger: str) -> dict[tuple[str, str], Account]:
    books = open_books(valkey.url, write=False)
    try:
        return {(one.budget, one.scope): one for one in await books.accounts(ledger)}
    finally:
        await books.aclose()


def limit_of(path: Path, route: str, budget: str) -> int:
    """Return a privacy budget's limit, in its own units."""
    plan = load_plan(path, api=None, env={})
    found = next(one for one in plan.routes if one.name == route)
    return next(b.limit_for(1) for b in found.budgets if b.name == budget)


async def check(load: Load) -> None:
    """Assert that no budget was overspent, no answer was unguarded, and nobody was told anything strange."""
    witness, valkey = load.witness, load.fleet.valkey
    assert valkey is not None
    assert witness.unguarded == []
    assert witness.strange == []
    assert witness.over(witness.rows, {"rows": ROWS}) == []
    assert witness.over(witness.distinct(), {"graded": GRADED}) == []
    rows, graded = await accounts(valkey, "rows"), await accounts(valkey, "graded")
    for name in load.names:
        assert rows["rows/client", f"client:{name}"].spend.spent == ROWS >= witness.rows["rows", name]
        spent = graded["information/client", f"client:{name}"].spend.spent
        assert spent == GRADED >= len(witness.graded["graded", name]) > 0
    private = await accounts(valkey, load.private)
    for (budget, scope), account in private.items():
        assert sum(entry.amount for entry in account.entries) == account.spend.spent
        assert account.spend.spent <= limit_of(load.fleet.policy, load.private, budget), scope
        names = [*load.names, PROBE] if budget == "privacy/model" else [scope.removeprefix("client:")]
        assert sum(entry.rows for entry in account.entries) >= witness.drawn(load.private, names)
    assert len(private) > len(load.names)
    assert witness.longest_s < LONGEST_S
    for outcome in witness.outcomes:
        status, _, said = outcome.partition(" ")
        assert status in ("200", "429") or (status == "503" and said in STATE_AWAY), witness.outcomes


async def recovered(load: Load) -> list[float]:
    """Return how long each replica takes from now to its first answers, a private one included."""
    since = time.monotonic()

    async def one(number: int) -> float:
        for route in ("rows", load.private):
            while not await answers(load, number, route):
                await asyncio.sleep(0.01)
        return time.monotonic() - since

    async with asyncio.timeout(PATIENCE_S):
        return list(await asyncio.gather(*[one(number) for number in range(REPLICAS)]))


async def answers(load: Load, number: int, route: str) -> bool:
    try:
        async with KeepAlive(load.fleet.guards[number].port, PROBE) as connection:
            return (await load.ask(connection, route, PROBE, random.Random(number))).status in (200, 429)
    except (OSError, EOFError):
        return False


# -- faults: each returns when Redis is within reach again -------------------------------------------------------------


async def killed(fleet: Fleet) -> None:
    gone = fleet.guards[1].running
    gone.kill()
    await asyncio.to_thread(gone.wait)
    fleet.guards[1] = await fleet.start(1)


async def restarted(fleet: Fleet) -> None:
    assert fleet.valkey is not None
    await asyncio.to_thread(fleet.valkey.kill)
    await asyncio.sleep(FAULT_S / 2)
    await asyncio.to_thread(fleet.valkey.start)


def everywhere(mode: Mode, delay_s: float = 0.0) -> Fault:
    return at(range(REPLICAS), mode, delay_s)


def at(numbers: Iterable[int], mode: Mode, delay_s: float = 0.0) -> Fault:
    relays = tuple(numbers)

    async def strike(fleet: Fleet) -> None:
        for number in relays:
            fleet.relays[number].become(mode, delay_s)
        await asyncio.sleep(FAULT_S)
        for number in relays:
            fleet.relays[number].become("pass")

    return strike


async def forgotten(fleet: Fleet) -> None:
    for relay in fleet.relays:
        relay.become("forget")


FAULTS: dict[str, Fault] = {
    "killed": killed,
    "restarted": restarted,
    "held": everywhere("hold"),
    "parted": at([0], "hold"),
    "deaf": at([0], "deaf"),
    "slow": everywhere("pass", 0.05),
    "cut": everywhere("cut"),
    "forgotten": forgotten,
}


# -- tests -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    folder = tmp_path_factory.mktemp("three")
    routes = [PRIVATE.replace("NAME", f"private-{fault}") for fault in FAULTS]
    async with fleet(folder, *routes, WATCHED) as running:
        yield running


@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_is_overspent_or_unguarded_and_it_recovers(
    three: Fleet, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Load(three, [f"{fault}-{i}" for i in range(CLIENTS)], f"private-{fault}")
    running = asyncio.create_task(load.run())
    await load.under_way()
    await FAULTS[fault](three)
    took = await recovered(load)
    await running
    with capsys.disabled():
        print(
            f"\n{fault}: recovered in {[round(s, 2) for s in took]} s, longest {load.witness.longest_s:.2f} s,", end=" "
        )
        print(dict(load.witness.outcomes))
    await check(load)
    assert max(took) < RECOVERY_S
    await same_everywhere(load)


async def same_everywhere(load: Load) -> None:
    """Assert that what was released is remembered: the same at every replica, and free."""
    target = f"/v2/models/{load.private}/infer"
    same = 0
    for name in load.names:
        for query, _ in list(load.witness.releases[load.private, name])[:10]:
            first, *others = [await ask(one.port, target, infer(list(query)), name) for one in load.fleet.guards]
            # What could not be remembered while Redis was away would be drawn again, and nothing is left for that.
            assert {other.status for other in others} == {first.status}
            if first.status == 200:
                same += 1
                said = {one.body for one in (first, *others)}
                assert len(said) == 1
    assert same > 5 * len(load.names)


async def test_who_is_denied_while_a_replica_is_cut_off_is_denied_everywhere_behind_it(
    three: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    target, rng = "/v2/models/watched/infer", np.random.default_rng(1)
    point = rng.random(WIDTH)
    ports = [one.port for one in three.guards]
    for port in ports:
        assert (await ask(port, target, infer(point.tolist()), "thief-0")).status == 200
    three.relays[0].become("hold")
    try:
        async with KeepAlive(ports[0], "thief-0") as connection:
            statuses = {200}
            for number in range(2000):
                row = point.copy()
                row[number % WIDTH] = rng.random()
                statuses.add((await connection.ask(target, infer(row.tolist()))).status)
                if len(statuses) > 1:
                    break
            assert statuses == {200, 403}
        assert (await ask(ports[1], target, infer(point.tolist()), "thief-0")).status == 200
    finally:
        three.relays[0].become("pass")
    healed = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        for port in ports[1:]:
            while (await ask(port, target, infer(point.tolist()), "thief-0")).status != 403:
                await asyncio.sleep(0.02)
    took_s = time.monotonic() - healed
    with capsys.disabled():
        print(f"\ndenied everywhere {took_s:.2f} s after the partition")
    assert took_s < RECOVERY_S
    assert (await ask(ports[1], target, infer(point.tolist()), PROBE)).status == 200


async def test_logs_hold_no_tracebacks_and_metrics_name_the_cause(three: Fleet) -> None:
    for one in three.guards:
        assert "Traceback" not in one.log.read_text()
        shown = (await asyncio.to_thread(admin, one, "/metrics")).body.decode()
        outcomes = set(re.findall(r'^guard_requests_total\{.*outcome="(\w+)"', shown, re.MULTILINE))
        assert {"ok", "budget_spent", "state_unavailable"} <= outcomes
        assert outcomes <= {"ok", "budget_spent", "state_unavailable", "denied", "aborted"}
        assert (await asyncio.to_thread(admin, one, "/readyz")).status == 200


async def test_the_witness_finds_what_replicas_with_memories_of_their_own_overspend(tmp_path: Path) -> None:
    async with fleet(tmp_path, shared=False) as apart:
        load = Load(apart, ["apart-0"])
        await load.run()
    witness = load.witness
    assert len(witness.over(witness.rows, {"rows": ROWS})) == 1
    assert len(witness.over(witness.distinct(), {"graded": GRADED})) == 1


async def test_the_witness_finds_an_answer_that_nobody_guarded() -> None:
    witness, row = Witness(), [0.5, 0.25]
    body = json.dumps({"outputs": [{"data": scores(row), "shape": [1, CLASSES]}]}).encode()
    assert witness.saw("rows", "a", [row], Answered(200, {}, body), 0.0)
    assert len(witness.unguarded) == 1
