"""Whether any budget is ever overspent: many processes charge at once while they and the server are killed.

    python -m tests.benchmarks.overspend --charges 1e7 --processes 4 --state redis      (1e8 for a longer run)

Every process has hundreds of tasks that charge randomised amounts to shared scopes: a client's rows, and the privacy of
the client, its group and the model, in one call; a few are refunded. What was acknowledged it adds up in a mapped file,
which survives its own kill -9, at once and before a refund is asked for. Meanwhile kill -9 strikes the processes, and
Valkey (appendonly yes, appendfsync always), as the work advances. SQLite has one owner at a time: the processes take
turns, each from the death of the one before. In the end, for every scope:

    acknowledged <= spent <= limit, spent = replay of its journal, and
    clients' privacy together = groups' together = the model's, since a call charges all three or none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from guard.errors import StateError
from guard.model.ledger import Account, Admission, Charge
from guard.ports import State
from guard.state.books import open_books
from guard.state.open import open_state
from tests.support.valkey import Valkey

NOW_S = 1_800_000_000.0
CLIENTS, GROUPS, TASKS, MOST_ROWS = 48, 8, 300, 8
COSTS = {"gaussian(1000.0)": 1_000_001, "gaussian(600.0)+pure(0.001)": 2_777_779}
MEAN = (1 + MOST_ROWS) / 2 * sum(COSTS.values()) / len(COSTS)
REFUNDED = 0.03
LEDGER = "m"
CHARGES_A_CALL = 4
Counter = tuple[str, str]
Sums = np.ndarray[tuple[int], np.dtype[np.int64]]
NAMES = [
    *(("rows", f"client:{i}") for i in range(CLIENTS)),
    *(("privacy/client", f"client:{i}") for i in range(CLIENTS)),
    *(("privacy/group", f"group:{i}") for i in range(GROUPS)),
    ("privacy/model", "model"),
]
COUNTS = range(len(NAMES), len(NAMES) + 4)
ANSWERED, ADMITTED, REFUNDS, ERRORS = COUNTS


@dataclass(frozen=True)
class Job:
    """What the processes are to do.

    Args:
        url: of the state.
        directory: for the files of what was acknowledged.
        calls: answered in all, admitted or denied, of four charges each.
        processes: that charge.
        seed: of clients, amounts and victims.
    """

    url: str
    directory: str
    calls: int
    processes: int
    seed: int

    def limits(self) -> dict[Counter, int]:
        """Limits of which some are reached early, some late and some never."""
        share = self.calls * MEAN
        limits = {("rows", f"client:{i}"): int(self.calls * (1 + MOST_ROWS) / CLIENTS) for i in range(CLIENTS)}
        limits |= {("privacy/client", f"client:{i}"): int(share / CLIENTS * (0.3 + i / 24)) for i in range(CLIENTS)}
        limits |= {("privacy/group", f"group:{i}"): int(share / GROUPS * (0.5 + i / 8)) for i in range(GROUPS)}
        return limits | {("privacy/model", "model"): int(0.8 * share)}

    def acknowledged(self, number: int) -> Sums:
        """Map the file of one process: a sum for every counter, and the counts behind them."""
        path = Path(self.directory) / f"acknowledged-{number}"
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(bytes(8 * (len(NAMES) + 4)))
        return np.memmap(path, np.int64, "r+")

    def all_acknowledged(self) -> list[Sums]:
        """Map the files of all processes."""
        return [self.acknowledged(number) for number in range(self.processes)]


# -- one process -------------------------------------------------------------------------------------------------------


async def work(job: Job, number: int, seed: int) -> None:
    """Charge until this process's share has been answered; it may be killed at any moment."""
    limits, places = job.limits(), {name: place for place, name in enumerate(NAMES)}
    sums = job.acknowledged(number)
    share = job.calls // job.processes
    state = await opened(job.url)
    rng = random.Random(seed)

    def call(client: int, rows: int, event: str) -> tuple[list[Charge], list[int]]:
        scopes = {"rows": f"client:{client}", "privacy/client": f"client:{client}"}
        scopes |= {"privacy/group": f"group:{client % GROUPS}", "privacy/model": "model"}
        charges = [
            Charge(budget, scope, 0, limits[budget, scope], rows * COSTS[event], event=event, rows=rows)
            if budget != "rows"
            else Charge(budget, scope, 0, limits[budget, scope], rows)
            for budget, scope in scopes.items()
        ]
        return charges, [places[charge.budget, charge.scope] for charge in charges]

    kinds = itertools.product(range(CLIENTS), range(1, MOST_ROWS + 1), COSTS)
    calls = [call(*kind) for kind in kinds]

    async def one() -> None:
        while sums[ANSWERED] < share:
            charges, at = calls[int(rng.random() * len(calls))]
            try:
                receipt = await state.charge(LEDGER, charges, NOW_S)
                sums[ANSWERED] += 1
                if receipt.admission is not Admission.ALLOW:
                    continue
                for place, charge in zip(at, charges, strict=True):
                    sums[place] += charge.amount
                sums[ADMITTED] += 1
                if rng.random() < REFUNDED:
                    for place, charge in zip(at, charges, strict=True):
                        sums[place] -= charge.amount
                    sums[REFUNDS] += 1
                    await state.refund(LEDGER, charges, receipt, NOW_S)
            except StateError:
                sums[ERRORS] += 1
                await asyncio.sleep(0.02)

    await asyncio.gather(*[one() for _ in range(TASKS)])
    await state.aclose()


async def opened(url: str) -> State:
    """Open the state and agree on its terms, as soon as it is there and nobody else's."""
    while True:
        with contextlib.suppress(StateError):
            state = open_state(url)
            with contextlib.suppress(StateError):
                await state.agree(LEDGER, b"{}")
                return state
            await state.aclose()
        await asyncio.sleep(0.02)


# -- all of them -------------------------------------------------------------------------------------------------------


class Crew:
    """The processes that charge; a dead one is replaced until its share is done."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._seeds = itertools.count(job.seed)
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Crew:
        for number in range(self._job.processes):
            self._start(number)
        return self

    def _start(self, number: int) -> None:
        words = ["work", json.dumps(asdict(self._job)), str(number), str(next(self._seeds))]
        self._running[number] = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.overspend", *words])

    def busy(self) -> bool:
        """Say whether anybody works; a process that failed is an error."""
        for number, process in list(self._running.items()):
            if process.poll() is not None:
                assert process.returncode == 0, process.returncode
                del self._running[number]
        return bool(self._running)

    def kill(self, rng: random.Random) -> None:
        """Kill a process and start another in its place: with SQLite the one that owns the file."""
        path = Path(self._job.url.removeprefix("sqlite:") + ".lock")
        owner = int(path.read_text() or 0) if path.exists() else 0
        victims = [number for number, process in self._running.items() if process.pid == owner]
        if victims := victims or list(self._running):
            number = rng.choice(victims)
            self._running[number].kill()
            self._running[number].wait()
            self._start(number)

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGKILL)
            process.wait()


def supervise(job: Job, kills: int, server: Valkey | None) -> int:
    """Let the crew work, and kill as the work advances; returns how often the server, which is every third time."""
    rng, of_server = random.Random(job.seed), 0
    due = sorted(rng.uniform(0.02, 0.9) * job.calls for _ in range(kills))
    files = job.all_acknowledged()
    with Crew(job) as crew:
        while crew.busy():
            time.sleep(0.02)
            if due and sum(int(sums[ANSWERED]) for sums in files) >= due[0]:
                due.pop(0)
                if server is not None and len(due) % 3 == 0:
                    server.restart()
                    of_server += 1
                else:
                    crew.kill(rng)
    assert not due
    return of_server


async def accounts(job: Job) -> list[Account]:
    """Return the ledger's accounts."""
    books = open_books(job.url, write=False)
    try:
        return await books.accounts(LEDGER)
    finally:
        await books.aclose()


def problems(job: Job, found: list[Account]) -> Iterator[str]:
    """Yield, in words, every way in which the accounts are not what they must be."""
    limits, sums = job.limits(), np.sum(job.all_acknowledged(), axis=0)
    spent = {(account.budget, account.scope): account.spend.spent for account in found}
    for place, name in enumerate(NAMES):
        if not sums[place] <= spent.get(name, 0) <= limits[name]:
            yield f"{name}: acknowledged {sums[place]:,}, spent {spent.get(name, 0):,}, limit {limits[name]:,}"
    for account in found:
        replayed = sum(entry.amount for entry in account.entries)
        if account.budget != "rows" and replayed != account.spend.spent:
            yield f"{account.budget} {account.scope}: replay {replayed:,}, spent {account.spend.spent:,}"
        for entry in account.entries:
            if entry.amount != entry.rows * COSTS[entry.event]:
                yield f"{account.budget} {account.scope}: {entry.rows:,} rows of {entry.event} cost {entry.amount:,}"
    together = {budget: sum(s for (b, _), s in spent.items() if b == budget) for budget, _ in NAMES}
    if not together["privacy/client"] == together["privacy/group"] == together["privacy/model"]:
        yield f"the scopes differ: {together}"


def run(state: str, calls: int, processes: int, kills: int, seed: int, directory: Path) -> list[str]:
    """Charge, kill and compare; prints what was done, and returns the problems."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Valkey(directory / "valkey")) if state == "redis" else None
        url = server.url if server is not None else f"sqlite:{directory / 'guard.db'}"
        job = Job(url, str(directory), calls, processes, seed)
        of_server = supervise(job, kills, server)
        found = asyncio.run(accounts(job))
    wrong = list(problems(job, found))
    answered, admitted, refunds, errors = (int(sum(sums[i] for sums in job.all_acknowledged())) for i in COUNTS)
    unknown = sum(account.spend.spent for account in found if account.budget == "privacy/model")
    unknown -= sum(int(sums[NAMES.index(("privacy/model", "model"))]) for sums in job.all_acknowledged())
    print(
        f"{state}: {answered * CHARGES_A_CALL:,} charges in {answered:,} calls, {processes} processes, {TASKS} tasks, "
        f"in {time.monotonic() - began:.0f} s; {admitted:,} calls admitted, {refunds:,} refunded; {kills} kill -9, "
        f"{of_server} of them of the server; {errors:,} calls failed meanwhile; spent and never acknowledged: "
        f"{unknown / MEAN:,.0f} calls' worth; problems: {len(wrong)}"
    )
    return wrong


def main() -> int:
    if sys.argv[1:2] == ["work"]:
        asyncio.run(work(Job(**json.loads(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--charges", type=float, default=1e6, help="four a call; 1e8 takes hours")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--state", choices=["redis", "sqlite"], default="redis")
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=os.getpid())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        calls = int(given.charges) // CHARGES_A_CALL
        wrong = run(given.state, calls, given.processes, given.kills, given.seed, Path(directory))
    print(f"seed {given.seed}", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
