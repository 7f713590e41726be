"""Turning a request into charges, and a receipt into a decision. Pure; the state does the charging."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import orjson

from guard.budgets.base import Budget
from guard.errors import ClientError, Denied
from guard.model.client import Client
from guard.model.ledger import Admission, Charge, Receipt
from guard.model.queries import Queries
from guard.model.text import Most

TEXT_DIMENSION = 64
"""Dimension of a query that is not a vector of numbers: the width of the sketches that stand for texts."""


def dimension_of(queries: Queries) -> int:
    """Return the number of features of a query; `TEXT_DIMENSION` when it is not a vector of numbers."""
    matrix = queries.matrix()
    return TEXT_DIMENSION if matrix is None else matrix.shape[1]


def digests(secret: bytes, queries: Queries) -> tuple[bytes, ...]:
    """Return a 16-byte keyed digest for each snapped row.

    Equal rows agree, and nothing can be read back without the secret. The same numbers under other names are another
    query: where features may be left out, they would be asked one by one for the price of the first.
    """
    keyed = hashlib.blake2b(digest_size=16, key=secret[:32], person=b"guard graded")
    if queries.names is not None:
        keyed.update(orjson.dumps(queries.names))
    if queries.context:
        keyed.update(b"%d:%b" % (len(queries.context), queries.context))
    found: list[bytes] = []
    for row in queries.row_bytes():
        state = keyed.copy()
        state.update(row)
        found.append(state.digest())
    return tuple(found)


def charges(
    budgets: tuple[Budget, ...],
    client: Client,
    rows: int,
    dimension: int,
    seen: tuple[bytes, ...] | None,
    drawn: int | None = None,
    floors: Mapping[str, int] = MappingProxyType({}),
    readings: Mapping[str, float] = MappingProxyType({}),
    most: Most | None = None,
) -> tuple[Charge, ...]:
    """Return one charge for each budget.

    Args:
        budgets: the route's.
        client: who asks.
        rows: rows in the batch, all of which are charged.
        dimension: features of a query, for limits that scale with it.
        seen: digests of the snapped rows; None when no budget counts distinct queries.
        drawn: distinct queries whose release is not remembered: what privacy budgets charge; None: all rows.
        floors: what a migration counts as spent for every scope of a budget, by the budget's name.
        readings: of the information meter, by scope; a budget that a reading closes has a limit of 0, so nothing of
            the batch is graded, repeats included, and what it would have cost is not counted as spent.
        most: what an answer of generated text may hold; None for other answers.

    Raises:
        ClientError: 413, the batch is larger than a limit itself, so it can never fit.
    """
    made: list[Charge] = []
    drawn = rows if drawn is None else drawn
    for budget in budgets:
        scope = budget.scope(client)
        limit = budget.limit_for(dimension) - floors.get(budget.name, 0)
        if budget.closes(readings.get(scope, 0.0)):
            limit = 0
        amount = budget.amount_for(budget.counted(rows, most), drawn)
        if not amount:
            continue  # every release is remembered, or nothing of what it counts can be answered
        # A batch of graded answers over its limit can still be answered with labels; a batch of rows can never fit.
        bound = limit if not budget.distinct else budget.hard_limit
        if bound is not None and amount > max(bound, limit):
            if budget.name in floors:
                raise Denied("the budget is spent", code="budget_spent", status=429)
            raise ClientError(
                "the batch is larger than the budget itself; send smaller ones", code="batch_too_large", status=413
            )
        seen_here = seen if budget.distinct else None
        made.append(
            Charge(
                budget.name,
                scope,
                budget.window_s,
                limit,
                amount,
                budget.then,
                budget.hard_limit,
                seen_here,
                budget.event,
                drawn if budget.event is not None else 0,
            )
        )
    return tuple(made)


def decision(receipt: Receipt, made: tuple[Charge, ...], now_s: float) -> bool:
    """Return whether the batch is label-only.

    Raises:
        Denied: 429, with Retry-After when the binding budget's window ends, if that gives anything back.
    """
    if receipt.admission is not Admission.DENY:
        return receipt.admission is Admission.LABEL_ONLY
    binding = made[receipt.binding or 0]
    retry = None
    if binding.window_s and binding.limit:
        # What the information meter has closed does not open with the next window.
        retry = max(1, int((binding.window(now_s) + 1) * binding.window_s - now_s + 0.999))
    raise Denied("the budget is spent", code="budget_spent", status=429, retry_after_s=retry)
