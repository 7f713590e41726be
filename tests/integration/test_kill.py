"""kill -9 of a whole Guard while clients are being answered: no restart gives back what has been answered."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from tests.support.clients import PATIENCE_S, KeepAlive, ask, infer, spent
from tests.support.model import model
from tests.support.processes import guard

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 3000
KILLS = 5
CLIENTS = 12
MOST_ROWS = 3
A_ROUND = 250
ANYBODY = "address:127.0.0.1"
POLICY = f"""version: 1
routes:
  - name: digits
    api: open_inference
    budgets: [{{kind: rows, per: client, limit: {LIMIT}}}]
"""


class Tally:
    """Rows that clients have been answered; `enough` is set from `target` on."""

    def __init__(self) -> None:
        self.answered = 0
        self.target = 0
        self.enough = asyncio.Event()

    def add(self, rows: int) -> None:
        self.answered += rows
        if self.answered >= self.target:
            self.enough.set()


async def one_client(port: int, tally: Tally, number: int) -> None:
    """Ask batches of one to three rows, in the end single rows, until the budget is spent or Guard is gone."""
    rows = number
    with contextlib.suppress(OSError, EOFError):
        async with KeepAlive(port) as connection:
            while True:
                rows = rows % MOST_ROWS + 1
                got = await connection.ask("/v2/models/m/infer", infer(*[[1.0, 2.0]] * rows))
                if got.status == 429 and rows == 1:
                    return
                assert got.status in (200, 429), got
                if got.status == 200:
                    tally.add(rows)


async def test_kill_9_under_load_refunds_nothing(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    state = ("--state", f"sqlite:{tmp_path / 'guard.db'}")
    tally = Tally()
    with model(tmp_path) as upstream:
        for number in range(KILLS):
            tally.target, tally.enough = tally.answered + A_ROUND, asyncio.Event()
            with guard(tmp_path / "policy.yaml", upstream.url, tmp_path / f"{number}", *state) as running:
                tally.add((await ask(running.port, "/v2/models/m/infer", infer([0.0, 0.0]))).status == 200)
                assert spent(running, ANYBODY, "rows/client") >= tally.answered
                load = [asyncio.create_task(one_client(running.port, tally, i)) for i in range(CLIENTS)]
                async with asyncio.timeout(PATIENCE_S):
                    await tally.enough.wait()
                running.running.kill()
                running.running.wait()
                await asyncio.gather(*load)
            # Nothing reached the model that was not charged first.
            assert upstream.counts()["rows/m"] <= LIMIT
        assert A_ROUND * KILLS <= tally.answered < LIMIT
        with guard(tmp_path / "policy.yaml", upstream.url, tmp_path / "last", *state) as running:
            await asyncio.gather(*[one_client(running.port, tally, i) for i in range(CLIENTS)])
            assert spent(running, ANYBODY, "rows/client") == LIMIT
        lost = KILLS * CLIENTS * MOST_ROWS  # at most what was under way at each kill
        assert LIMIT - lost <= tally.answered <= upstream.counts()["rows/m"] <= LIMIT
