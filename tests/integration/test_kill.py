"""kill -9 of a whole Guard while clients are being answered: no restart gives back what has been answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

from guard.state.books import open_books
from tests.support.clients import PATIENCE_S, KeepAlive, ask, infer, spent
from tests.support.model import model
from tests.support.processes import guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from guard.model.ledger import Account

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
ANSWERS = 1600  # what epsilon 1.5 at delta 1e-5 comes to, and a little more
PRIVATE = """version: 1
routes:
  - name: digits
    api: open_inference
    outputs: {kind: probabilities, classes: [a, b, c, d, e]}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: 0.001}
    defences: [{kind: dp_gaussian, noise_multiplier: 100}]
    budgets:
      - {kind: privacy, per: model, epsilon: 1.5, delta: 1.0e-5}
      - {kind: privacy, per: client, epsilon: 3, delta: 1.0e-5}
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


async def one_client(port: int, tally: Tally, number: int, values: Iterator[float] | None = None) -> None:
    """Ask batches of one to three rows, in the end single rows, until the budget is spent or Guard is gone.

    Args:
        port: Guard's.
        tally: of answers.
        number: the first batch's size.
        values: where new queries come from; without it all rows are the same.
    """
    values = itertools.repeat(1.0) if values is None else values
    rows = number
    with contextlib.suppress(OSError, EOFError):
        async with KeepAlive(port) as connection:
            while True:
                rows = rows % MOST_ROWS + 1
                got = await connection.ask("/v2/models/m/infer", infer(*[[next(values), 2.0] for _ in range(rows)]))
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


async def accounts(directory: Path) -> list[Account]:
    """Return the ledger's accounts, the model's last."""
    books = open_books(f"sqlite:{directory / 'guard.db'}", write=False)
    try:
        return sorted(await books.accounts("digits"))
    finally:
        await books.aclose()


async def test_kill_9_under_load_refunds_no_privacy(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(PRIVATE)
    state = ("--state", f"sqlite:{tmp_path / 'guard.db'}")
    tally, values = Tally(), itertools.count(0.5)
    with model(tmp_path) as upstream:
        for number in range(KILLS):
            last = number == KILLS - 1
            tally.target, tally.enough = tally.answered + A_ROUND, asyncio.Event()
            with guard(tmp_path / "policy.yaml", upstream.url, tmp_path / f"{number}", *state) as running:
                load = [asyncio.create_task(one_client(running.port, tally, i, values)) for i in range(CLIENTS)]
                if not last:
                    async with asyncio.timeout(PATIENCE_S):
                        await tally.enough.wait()
                    running.running.kill()
                    running.running.wait()
                await asyncio.gather(*load)
            for account in await accounts(tmp_path):
                assert sum(entry.amount for entry in account.entries) == account.spend.spent
                assert sum(entry.rows for entry in account.entries) >= upstream.counts()["rows/m"] >= tally.answered
    client, whole = await accounts(tmp_path)
    assert client.entries == whole.entries
    assert ANSWERS * 0.9 < whole.entries[0].rows <= ANSWERS
    assert tally.answered >= whole.entries[0].rows - KILLS * CLIENTS * MOST_ROWS
