"""The admin listener: the console, health, readiness, metrics, the policy in force, recent clients, and reload.

It shares the event loop with the data listener, so nothing here may hold it for long. `Access` decides who gets in.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from guard.errors import StateError
from guard.model.ledger import Charge
from guard.proxy.admin_access import OPEN, Access, refusal
from guard.proxy.admin_console import Console
from guard.proxy.admin_readiness import CHECK_TIMEOUT_S, Readiness
from guard.proxy.plans import said
from guard.proxy.words import plan_in_words
from guard.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from guard.budgets.base import Budget
    from guard.model.client import Client
    from guard.policy.plan import RoutePlan
    from guard.ports import State
    from guard.privacy.terms import Act
    from guard.proxy.admin_live import Live
    from guard.proxy.clients import RecentClients, Sighting
    from guard.proxy.plans import Plans
    from guard.telemetry.metrics import Metrics

_MOST_CLIENTS = 1000
_SHOWN_CLIENTS = 100

Object = dict[str, Any]  # Any: JSON


def admin_app(
    plans: Plans,
    metrics: Metrics,
    state: State,
    upstream_ready: Callable[[], Awaitable[bool | str]],
    clients: RecentClients,
    *,
    token: str | None,
    hosts: Iterable[str] = (),
    acts: Callable[[str], tuple[Act, ...]] = lambda _: (),
    evidence: Callable[[Client], list[Object]] = lambda _: [],
    pseudonym: Callable[[str], str] | None = None,
    live: Live | None = None,
    wall_s: Callable[[], float] = time.time,
    check_timeout_s: float = CHECK_TIMEOUT_S,
) -> Starlette:
    """Return the admin application.

    Args:
        plans: the plan in force.
        metrics: what `/metrics` shows.
        state: the ledgers.
        upstream_ready: True when the model answers; otherwise False, or why not.
        clients: who was seen.
        token: secret that callers must bring; None for none.
        hosts: names beside localhost that the Host header may hold.
        acts: what operators did to a ledger.
        evidence: what a client's queries look like, route by route.
        pseudonym: what stands for a client's name in the console and the audit log; None where neither is.
        live: what the console shows; None for no console.
        wall_s: seconds since the epoch.
        check_timeout_s: how long a readiness check may take.
    """
    pages = _Pages(plans, metrics, state, clients, acts, evidence, pseudonym, wall_s)
    readiness = Readiness(plans, state, upstream_ready, check_timeout_s)
    routes = [
        Route("/healthz", pages.healthz),
        Route("/readyz", readiness.readyz),
        Route("/metrics", pages.expose),
        Route("/policy", pages.policy),
        Route("/clients", pages.recent),
        Route("/reload", pages.reload, methods=["POST"]),
    ]
    opened = OPEN
    if live is not None:
        console = Console(live, readiness.glance)
        routes += console.routes
        opened |= console.opened
    access = Middleware(Access, token=token, hosts=tuple(hosts), opened=opened)
    return Starlette(routes=routes, middleware=[access])


class _Pages:
    """Answers everything else."""

    def __init__(
        self,
        plans: Plans,
        metrics: Metrics,
        state: State,
        clients: RecentClients,
        acts: Callable[[str], tuple[Act, ...]],
        evidence: Callable[[Client], list[Object]],
        pseudonym: Callable[[str], str] | None,
        wall_s: Callable[[], float],
    ) -> None:
        self._plans = plans
        self._metrics = metrics
        self._state = state
        self._clients = clients
        self._acts = acts
        self._evidence = evidence
        self._pseudonym = pseudonym
        self._wall_s = wall_s

    async def healthz(self, request: Request) -> Response:
        """200 while the process runs."""
        del request
        return PlainTextResponse("ok\n")

    async def expose(self, request: Request) -> Response:
        """Metrics, in pieces between which requests are served."""
        del request
        return _Pieces(self._metrics)

    async def policy(self, request: Request) -> Response:
        """The policy in force."""
        del request
        active = self._plans.current
        warnings = [said(warning) for warning in active.plan.warnings] + list(active.identity.warnings)
        return _json({**await plan_in_words(active.plan, self._acts), "warnings": warnings})

    async def reload(self, request: Request) -> Response:
        """Load the policy again: 200 when it is in force, 409 with every problem when the old one stays."""
        del request
        ok, message = await self._plans.reload()
        if not ok:
            return _json({"ok": False, "problems": message.splitlines()}, 409)
        plan = self._plans.current.plan
        return _json({"ok": True, "name": plan.name, "digest": plan.digest, "mode": plan.mode})

    async def recent(self, request: Request) -> Response:
        """The clients seen last, with what their budgets have left; `?limit=` says how many."""
        asked = request.query_params.get("limit", str(_SHOWN_CLIENTS))
        if not (asked.isascii() and asked.isdigit() and 0 < int(asked[:9]) <= _MOST_CLIENTS):
            return refusal(400, "bad_request", f"limit is a number from 1 to {_MOST_CLIENTS}")
        routes = {route.name: route for route in self._plans.current.plan.routes}
        now_s = self._wall_s()
        shown: list[Object] = []
        lost = ""
        for sighting in self._clients.latest(int(asked)):
            budgets: list[Object] | None = None
            if not lost:
                try:
                    budgets = await self._budgets(sighting, routes, now_s)
                except StateError as error:
                    # One call that fails is enough to know; the rest would only wait for their time-outs.
                    lost = error.message
            seen = _seen(sighting, budgets) | {"evidence": self._evidence(sighting.client)}
            if self._pseudonym is not None:
                seen["pseudonym"] = self._pseudonym(sighting.client.name)
            shown.append(seen)
            await asyncio.sleep(0)
        body: Object = {"clients": shown, "known": len(self._clients)}
        if lost:
            body["state"] = lost
        if crowd := self._clients.crowd():
            body["warning"] = (
                f"nearly every request comes from {crowd}: with an ingress in front, name it in trusted_proxies"
            )
        return _json(body)

    async def _budgets(self, sighting: Sighting, routes: dict[str, RoutePlan], now_s: float) -> list[Object]:
        found: dict[tuple[str, str], Object] = {}
        for name in sorted(sighting.routes & routes.keys()):
            route = routes[name]
            for budget in route.budgets:
                # A budget in shadow on a route that enforces is counted apart.
                apart = budget.mode == "shadow" and route.mode == "enforce"
                ledger = f"shadow:{route.ledger}" if apart else route.ledger
                if (ledger, budget.name) not in found:
                    found[ledger, budget.name] = await self._budget(ledger, budget, route, sighting, now_s)
        return list(found.values())

    async def _budget(self, ledger: str, budget: Budget, route: RoutePlan, sighting: Sighting, now_s: float) -> Object:
        size = route.inputs.size if route.inputs is not None else None
        # A limit that scales with a dimension nobody has declared is only known request by request.
        limit = None if budget.scales and size is None else budget.limit_for(size or 1)
        charge = Charge(budget.name, budget.scope(sighting.client), budget.window_s, limit or 1, 1)
        spend = await self._state.spend(ledger, charge, now_s)
        left = None if limit is None else max(0, limit - spend.spent)
        cost = budget.amount_for(1, 1)
        return {
            "ledger": ledger,
            "budget": budget.name,
            "spent": spend.spent,
            "total": spend.total,
            "limit": limit,
            "left": left,
            "answers_left": None if left is None else left // cost,
            "then": budget.then,
        }


class _Pieces(Response):
    """Sends metrics piece by piece. Starlette's own streaming response first imports anyio's backend, for 20 ms."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(media_type=CONTENT_TYPE)
        del self.headers["content-length"]
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the exposition; a client that has gone costs no more than one that stays."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._metrics.expose():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _json(body: Object, status: int = 200) -> Response:
    # orjson: a thousand clients take json 10 ms, in which no request would be served.
    return Response(orjson.dumps(body), status, media_type="application/json")


def _seen(sighting: Sighting, budgets: list[Object] | None) -> Object:
    client = sighting.client
    return {
        "name": client.name,
        "group": client.group,
        "source": client.source,
        "last_seen": datetime.fromtimestamp(sighting.last_s, UTC).isoformat(timespec="seconds"),
        "requests": sighting.requests,
        "rows": sighting.rows,
        "routes": sorted(sighting.routes),
        "budgets": budgets,
    }
