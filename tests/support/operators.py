"""Operators' commands in this process, and ledgers for them to look at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.main import main
from guard.engine.admit import charges
from guard.model.client import Client
from guard.policy.load import load_plan
from guard.state.books import open_books
from guard.state.open import open_state

if TYPE_CHECKING:
    from guard.model.ledger import Account

POLICY = """version: 1
name: private
routes:
  - name: digits
    api: kserve_v1
    outputs: {{kind: probabilities, classes: [a, b, c, d, e]}}
    privacy: {{claim: {claim}, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 1000}}
    defences: [{mechanism}]
    budgets: [{budgets}]
"""
GAUSSIAN = "{kind: dp_gaussian, noise_multiplier: 20.0}"
LAPLACE = "{kind: dp_laplace, noise_multiplier: 20.0}"
MODEL = "{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6}"
CLIENT = "{kind: privacy, per: client, epsilon: 4, delta: 1.0e-6}"
ROWS = "{kind: rows, per: client, limit: 100, window: 24h}"


def policy(folder: Path, *budgets: str, mechanism: str = GAUSSIAN, name: str = "policy.yaml") -> Path:
    """Write a policy with these budgets, and return its file."""
    path = folder / name
    claim = "dp" if any("privacy" in budget for budget in budgets) else "none"
    path.write_text(POLICY.format(claim=claim, mechanism=mechanism, budgets=", ".join(budgets)))
    return path


def spend(url: str, file: Path, asked: dict[str, int]) -> None:
    """Charge rows of clients as a guard with this policy would, at once and for good.

    Args:
        url: of the state.
        file: the policy.
        asked: rows by client; `name@group` names its group.
    """

    async def run() -> None:
        plan = load_plan(file, api=None, env={})
        state = open_state(url)
        try:
            for route in plan.routes:
                if route.private is not None and route.private.charged:
                    await state.agree(route.ledger, route.private.terms.dumps())
                for who, rows in asked.items():
                    name, _, group = who.partition("@")
                    made = charges(route.budgets, Client(name, group or name, "api_key"), rows, 4, None)
                    await state.charge(route.ledger, made, 1_800_000_000.0)
        finally:
            await state.aclose()

    asyncio.run(run())


def accounts(url: str, ledger: str = "digits") -> dict[tuple[str, str], Account]:
    """Return a ledger's counters by budget and scope."""

    async def run() -> list[Account]:
        books = open_books(url, write=False)
        try:
            return await books.accounts(ledger)
        finally:
            await books.aclose()

    return {(account.budget, account.scope): account for account in asyncio.run(run())}


def operate(*command: str | Path) -> int:
    """Run a command of guard's and return its exit code."""
    return main([str(word) for word in command])
