"""Charging one request's budgets, and giving back what a model certainly never saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from guard.engine.admit import charges, decision, digests, dimension_of
from guard.errors import ClientError, StateError, UpstreamError
from guard.model.ledger import Admission, Spend
from guard.model.queries import Queries

if TYPE_CHECKING:
    from guard.budgets.base import Budget
    from guard.model.client import Client
    from guard.model.ledger import Charge, Receipt
    from guard.model.text import Most
    from guard.policy.plan import RoutePlan
    from guard.ports import Clock, State
    from guard.proxy.exchange import Exchange
    from guard.proxy.metering import Meters
    from guard.telemetry.metrics import Metrics


AUDIT_UNAVAILABLE = "audit_unavailable"


def check_audit(x: Exchange) -> None:
    """Refuse what the audit log has no room for, where the policy fails closed; a guest in shadow refuses nothing.

    Raises:
        StateError: 503.
    """
    if x.route.mode == "enforce" and x.active.plan.policy.audit.when_full == "refuse":
        raise StateError("the audit log cannot be written", code=AUDIT_UNAVAILABLE, retry_after_s=1)


def _used(charge: Charge, used: Most) -> int:
    """Return what an answer came to of what a charge counts; what is not settled came to all of it."""
    match charge.budget.partition("/")[0]:
        case "tokens":
            return used.tokens
        case "logprobs":
            return used.logprobs
        case _:
            return charge.amount


class Admissions:
    """Charges budgets: those whose outcome counts, and beside them those that only watch.

    Args:
        state: the ledgers.
        secret: keys the queries' digests.
        metrics: counts a state that is out of reach.
        meters: information meters, whose readings close budgets.
        clock: times the state.
    """

    def __init__(self, state: State, secret: bytes, metrics: Metrics, meters: Meters, clock: Clock) -> None:
        self._state = state
        self._secret = secret
        self._metrics = metrics
        self._meters = meters
        self._clock = clock
        self._dimensions: dict[str, int] = {}

    async def admit(self, x: Exchange, client: Client) -> None:
        """Charge every budget of the request in one atomic step.

        Raises:
            Denied: 429, a budget is spent.
            ClientError: 413, the batch can never fit.
            StateError: the state is out of reach.
        """
        if x.route.metered:
            x.readings = await self._meters.readings(x.route, client, x.now_s)
        if x.route.watched and x.route.binding:
            # Side by side, so that what only watches costs no second trip to the state.
            await asyncio.gather(self._watch(x, client), self._bind(x, client))
        elif x.route.watched:
            await self._watch(x, client)
        elif x.route.binding or x.step is not None:
            await self._bind(x, client)

    async def _bind(self, x: Exchange, client: Client) -> None:
        """Charge the budgets whose outcome counts."""
        budgets = x.route.binding
        if x.step is not None and x.step.budgets:
            # A budget of the ladder's that counts what one of the route's does takes its place.
            budgets = tuple({budget.name: budget for budget in (*budgets, *x.step.budgets)}.values())
        x.charges = made = self._claims(x, client, budgets)
        if not made:
            return  # every release is remembered, and nothing else is counted
        x.receipt = await self._charge(x, x.route.ledger, made)
        x.labels_only = decision(x.receipt, made, x.now_s)

    async def _watch(self, x: Exchange, client: Client) -> None:
        """Charge the budgets that are in shadow on an enforcing route; count what they would do, refuse nothing."""
        try:
            made = self._claims(x, client, x.route.watched)
            if not made:
                return
            receipt = await self._charge(x, f"shadow:{x.route.ledger}", made)
            x.beside = (made, receipt)
            if receipt.admission is not Admission.ALLOW:
                x.metrics.refusal(made[receipt.binding or 0].budget)
                x.metrics.verdict("deny" if receipt.admission is Admission.DENY else "label_only", "shadow")
        except ClientError:
            x.metrics.verdict("deny", "shadow")
        except StateError:
            self._metrics.state_error()

    async def _charge(self, x: Exchange, ledger: str, made: tuple[Charge, ...]) -> Receipt:
        began_s = self._clock.monotonic_s()
        try:
            return await self._state.charge(ledger, made, x.now_s)
        finally:
            x.metrics.state(self._clock.monotonic_s() - began_s)

    def _claims(self, x: Exchange, client: Client, budgets: tuple[Budget, ...]) -> tuple[Charge, ...]:
        """Return what the request charges to `budgets`; a body that shadow could not read is one opaque row."""
        drawn = None if x.memo is None else x.memo.due()
        most = None if x.reading is None else x.reading.most
        if not any(budget.distinct for budget in budgets):
            return charges(budgets, client, x.rows, 0, None, drawn, x.floors, x.readings, most)
        queries = x.reading.queries if x.reading is not None else Queries(1, None, opaque=x.call.body)
        seen = digests(self._secret, queries)
        size = self._dimension(x.route, queries)
        return charges(budgets, client, x.rows, size, seen, drawn, x.floors, x.readings, most)

    def _dimension(self, route: RoutePlan, queries: Queries) -> int:
        """Return a query's dimension for limits that scale with it.

        Declared, or the smallest that the model has answered.

        A client that pads its queries with features that the model ignores must not raise its own limit.
        """
        if route.inputs is not None and route.inputs.size is not None:
            return route.inputs.size
        asked = dimension_of(queries)
        return min(asked, self._dimensions.get(route.ledger, asked))

    def answered(self, route: RoutePlan, queries: Queries) -> None:
        """Note the dimension of queries that the model has answered."""
        asked = dimension_of(queries)
        self._dimensions[route.ledger] = min(asked, self._dimensions.get(route.ledger, asked))

    async def settle(self, x: Exchange, used: Most) -> None:
        """Give back what generated text was charged beyond what it came to: tokens, and log-probabilities.

        Args:
            x: the exchange; its receipt says afterwards what is charged.
            used: what the answer came to, at most what was charged.
        """
        if x.receipt is not None:
            x.receipt = await self._settle(x, x.route.ledger, x.charges, x.receipt, used)
        if x.beside is not None:
            await self._settle(x, f"shadow:{x.route.ledger}", *x.beside, used)

    async def _settle(
        self, x: Exchange, ledger: str, made: tuple[Charge, ...], receipt: Receipt, used: Most
    ) -> Receipt:
        spare = tuple(
            max(0, charged.spent - _used(charge, used)) for charge, charged in zip(made, receipt.charged, strict=True)
        )
        if receipt.admission is Admission.DENY or not any(spare):
            return receipt
        nothing: tuple[tuple[bytes, ...], ...] = ((),) * len(made)
        back = receipt._replace(charged=tuple(Spend(n, n) for n in spare), fresh=nothing)
        try:
            await self._state.refund(ledger, made, back, x.now_s)
        except StateError:
            self._metrics.state_error()
            return receipt  # it stays charged
        return receipt._replace(
            spends=tuple(Spend(s.spent - n, s.total - n) for s, n in zip(receipt.spends, spare, strict=True)),
            charged=tuple(Spend(c.spent - n, c.total - n) for c, n in zip(receipt.charged, spare, strict=True)),
        )

    async def refund(self, x: Exchange, error: Exception) -> None:
        """Give back what was charged, if upstream certainly never saw the request."""
        unseen = isinstance(error, UpstreamError) and not error.reached
        if not unseen or x.receipt is None or x.receipt.admission is Admission.DENY:
            return
        try:
            await self._state.refund(x.route.ledger, x.charges, x.receipt, x.now_s)
            x.receipt = None  # nothing of it is charged any more
        except StateError:
            self._metrics.state_error()
