"""What clients' budgets have left, as the console shows it: read from the state a bounded number at a time.

A client's counters are read when it has asked since they were last read, those first that were read longest ago. So a
page that has just been opened knows little of a thousand clients, says so, and knows more at every look; and the state
is never asked for more than `AT_ONCE` counters at a look, however many clients there are.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from guard.errors import StateError
from guard.model.ledger import Charge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.budgets.base import Budget
    from guard.policy.plan import Plan, RoutePlan
    from guard.ports import State
    from guard.proxy.agreement import Agreements
    from guard.proxy.clients import RecentClients, Sighting
    from guard.proxy.metering import Meters
    from guard.telemetry.pseudonyms import Pseudonyms

AT_ONCE: Final = 128
KEPT: Final = 4096
PATIENCE_S: Final = 0.5
SHOWN: Final = 10
"""Counters of each kind of scope that are shown."""
_PIECE = 512
_MOST_CLIENTS = 1000

Object = dict[str, Any]  # Any: JSON
Key = tuple[str, str, str]
"""Ledger, budget, scope."""


class Reading(NamedTuple):
    """A counter as last read.

    Args:
        budget: whose counter.
        route: the first route that charges it.
        spent: counts against the limit.
        limit: None where it is only known request by request.
        window: the window's number.
        closed: an information meter has closed it.
    """

    budget: Budget
    route: str
    spent: int
    limit: int | None
    window: int
    closed: bool

    @property
    def left(self) -> float:
        """The share that is left; 1 where there is no limit to know."""
        if self.limit is None:
            return 0.0 if self.closed else 1.0
        # A migration may have left a limit of nothing.
        return 0.0 if self.closed or self.limit <= 0 else max(0.0, 1.0 - self.spent / self.limit)


class BudgetReadings:
    """The counters of recently seen clients.

    Args:
        state: the ledgers.
        clients: who was seen.
        meters: information meters, whose readings close budgets.
        agreements: what migrations count as spent.
        pseudonyms: clients' names as they are shown.
        patience_s: how long a look waits for the state.
    """

    def __init__(
        self,
        state: State,
        clients: RecentClients,
        meters: Meters,
        agreements: Agreements,
        pseudonyms: Pseudonyms,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._state = state
        self._clients = clients
        self._meters = meters
        self._agreements = agreements
        self._names = pseudonyms
        self._patience_s = patience_s
        self._plan: Plan | None = None
        self._known: OrderedDict[Key, Reading] = OrderedDict()
        self._read_s: dict[str, float] = {}
        self._reading: asyncio.Task[str] | None = None
        self._lost = ""

    async def look(self, plan: Plan, now_s: float) -> Object:
        """Read what is due, and return the counters with the least left.

        Returns:
            `clients` seen and `due`, those not read yet; `counters` that are known; `lowest`: everybody's budgets,
            then groups', then clients'; `state`, why nothing could be read, where that is so.
        """
        if plan is not self._plan:
            # Another policy has other limits, and counters that nobody charges any more.
            self._plan, self._known, self._read_s = plan, OrderedDict(), {}
        if not any(route.budgets for route in plan.routes):
            return {"clients": len(self._clients), "due": 0, "counters": 0, "lowest": [], "none": True}
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(self._due(), plan, now_s))
        # Waited for and never cancelled: a state that hangs is asked by one task, and the page shows what is known.
        await asyncio.wait({self._reading}, timeout=self._patience_s)
        if self._reading.done():
            self._lost, self._reading = self._reading.result(), None
        else:
            self._lost = "the state is slow"
        unread = sum(s.client.name not in self._read_s for s in self._clients.latest(_MOST_CLIENTS))
        found: Object = {"clients": len(self._clients), "due": unread, "counters": len(self._known)}
        found["lowest"] = await self._lowest(now_s)
        return found | {"state": self._lost} if self._lost else found

    def _due(self) -> list[Sighting]:
        """Return the clients that have asked since they were read, those first that were read longest ago."""
        seen = self._clients.latest(_MOST_CLIENTS)
        self._read_s = {s.client.name: at_s for s in seen if (at_s := self._read_s.get(s.client.name)) is not None}
        due = [s for s in seen if s.last_s > self._read_s.get(s.client.name, -1.0)]
        return sorted(due, key=lambda s: self._read_s.get(s.client.name, 0.0))

    async def _read(self, due: list[Sighting], plan: Plan, now_s: float) -> str:
        """Read counters; return why that failed, or nothing."""
        try:
            await self._read_clients(due, plan, now_s)
        except StateError as error:
            return error.message
        return ""

    async def _read_clients(self, due: list[Sighting], plan: Plan, now_s: float) -> None:
        routes = {route.name: route for route in plan.routes}
        floors: dict[str, Mapping[str, int]] = {}
        read: set[Key] = set()
        for sighting in due:
            if len(read) >= AT_ONCE or plan is not self._plan:
                return
            for name in sorted(sighting.routes & routes.keys()):
                route = routes[name]
                if route.private is not None and name not in floors:
                    floors[name] = await self._agreements.floors(route, now_s)
                for budget in route.budgets:
                    # A budget in shadow on a route that enforces is counted apart.
                    apart = budget.mode == "shadow" and route.mode == "enforce"
                    ledger = f"shadow:{route.ledger}" if apart else route.ledger
                    key = (ledger, budget.name, budget.scope(sighting.client))
                    if key not in read:
                        read.add(key)
                        floor = floors.get(name, {}).get(budget.name, 0)
                        await self._counter(key, budget, route, floor, now_s)
            self._read_s[sighting.client.name] = max(now_s, sighting.last_s)
            await asyncio.sleep(0)

    async def _counter(self, key: Key, budget: Budget, route: RoutePlan, floor: int, now_s: float) -> None:
        ledger, name, scope = key
        size = route.inputs.size if route.inputs is not None else None
        # A limit that scales with a dimension nobody has declared is only known request by request.
        limit = None if budget.scales and size is None else budget.limit_for(size or 1) - floor
        charge = Charge(name, scope, budget.window_s, limit or 1, 1)
        spend = await self._state.spend(ledger, charge, now_s)
        closed = budget.closes(self._meters.reading(route.ledger, scope) or 0.0)
        self._known[key] = Reading(budget, route.name, spend.spent, limit, charge.window(now_s), closed)
        self._known.move_to_end(key)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    async def _lowest(self, now_s: float) -> list[Object]:
        """Return the counters of each kind of scope with the least left, in pieces."""
        known = list(self._known.items())
        lowest: dict[str, list[tuple[Key, Reading]]] = {"model": [], "group": [], "client": []}
        for first in range(0, len(known), _PIECE):
            piece = known[first : first + _PIECE]
            for per, held in lowest.items():
                of = [(key, r) for key, r in piece if r.budget.per == per and r.window == _window(r.budget, now_s)]
                held[:] = nsmallest(SHOWN, held + of, key=lambda pair: pair[1].left)
            await asyncio.sleep(0)
        return [self._shown(key, reading) for held in lowest.values() for key, reading in held]

    def _shown(self, key: Key, reading: Reading) -> Object:
        ledger, name, scope = key
        budget = reading.budget
        limit = reading.limit
        left = None if limit is None else 0 if reading.closed else max(0, limit - reading.spent)
        ends = (reading.window + 1) * budget.window_s if budget.window_s else None
        return {
            "route": reading.route,
            "budget": name,
            "kind": budget.kind,
            "per": budget.per,
            "of": "" if budget.per == "model" else self._names.of(scope.partition(":")[2]),
            "shadow": ledger.startswith("shadow:"),
            "then": budget.then,
            "share_left": round(reading.left, 4),
            "answers_left": None if left is None else left // budget.amount_for(1, 1),
            "answers": None if limit is None else max(0, limit) // budget.amount_for(1, 1),
            "closed": reading.closed,
            "ends_s": ends,
        }


def _window(budget: Budget, now_s: float) -> int:
    return int(now_s // budget.window_s) if budget.window_s else 0
