"""What a privacy budget adds to a request that is charged anyway: CPU a call, with every state.

    python -m tests.benchmarks.charging

Calls with a budget of rows alone take turns with calls that have privacy budgets beside it, so that a busy machine
slows both; of the rounds of each the best counts. CPU is `process_time`: of all threads of this process, the kernel's
part included, so SQLite's fsync is in it as far as it costs CPU. The server of Redis is another process, told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import time
from pathlib import Path

from guard.model.ledger import Charge
from guard.ports import State
from guard.state.open import open_state
from tests.support.valkey import Valkey

NOW_S = 1_800_000_000.0
MOST = 2**53 - 1
ROWS = Charge("rows/client", "client:a", 86_400, MOST, 1)
CLIENT = Charge("privacy/client", "client:a", 0, MOST, 1_000_001, event="gaussian(1000.0)", rows=1)
ALL = (
    CLIENT,
    CLIENT._replace(budget="privacy/group", scope="group:g"),
    CLIENT._replace(budget="privacy/model", scope="model"),
)
PLANS = {"rows": (ROWS,), "rows and privacy": (ROWS, CLIENT), "rows and privacy of three scopes": (ROWS, *ALL)}


async def round_us(state: State, charges: tuple[Charge, ...], calls: int, callers: int) -> float:
    """Charge from many callers at once and return the CPU that a call took."""

    async def one(number: int) -> None:
        mine = [
            charge._replace(scope=f"{charge.scope}{number}" if "client" in charge.scope else charge.scope)
            for charge in charges
        ]
        for _ in range(calls // callers):
            await state.charge("m", mine, NOW_S)

    began = time.process_time()
    await asyncio.gather(*[one(number) for number in range(callers)])
    return (time.process_time() - began) / calls * 1e6


def server_us(server: Valkey) -> float:
    """Return the CPU that a server has used so far."""
    return 1e6 * sum(map(float, re.findall(rb"used_cpu_(?:user|sys):([\d.]+)", server.command("INFO", "cpu"))))


async def measure(name: str, url: str, calls: int, callers: int, rounds: int, server: Valkey | None = None) -> None:
    state = open_state(url)
    best = dict.fromkeys(PLANS, float("inf"))
    at_server = dict.fromkeys(PLANS, float("inf"))
    for _ in range(rounds):
        for plan, charges in PLANS.items():
            before = server_us(server) if server else 0.0
            best[plan] = min(best[plan], await round_us(state, charges, calls, callers))
            if server:
                at_server[plan] = min(at_server[plan], (server_us(server) - before) / calls)
    await state.aclose()
    print(f"{name}, {callers} at once:")
    for plan, us in best.items():
        beside = f"   (server {at_server[plan]:.1f} us)" if server else ""
        print(f"  {plan:34} {us:7.2f} us   + {us - best['rows']:6.2f} us{beside}")


async def main(calls: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name, Valkey(Path(name) / "valkey") as server:
        for callers in (1, 32):
            await measure("memory", "memory:", calls, callers, rounds)
            await measure("sqlite", f"sqlite:{name}/{callers}.db", calls // (1 if callers > 1 else 10), callers, rounds)
            await measure(
                "redis, appendfsync always", server.url, calls // (1 if callers > 1 else 10), callers, rounds, server
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=9_600, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    asyncio.run(main(given.calls, given.rounds))
