"""One policy over recorded requests: the product's own handler, with the recorded clock and nothing outside.

No socket is opened, no model is asked, and ledgers live and end in this process's memory: a live ledger, of a budget or
of differential privacy, is never read and never charged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from guard.engine.failures import Phase
from guard.errors import GuardError
from guard.evidence.bodies import Asked
from guard.evidence.recording import ADDRESS
from guard.model.client import Client
from guard.model.exchange import Call, Reply
from guard.policy.plan import Plan, RoutePlan
from guard.proxy.app import DataApp
from guard.proxy.clients import RecentClients
from guard.proxy.exchange import Exchange
from guard.proxy.handler import Handler
from guard.proxy.observers import Observers
from guard.proxy.plans import Active, Plans
from guard.proxy.secret import derived
from guard.proxy.watching import SYNC_S
from guard.replay.seen import Seen, never_handled, seen_of
from guard.replay.sketched import Stage
from guard.replay.stand_ins import RecordedClock, RecordedIdentity, RecordedModel, ReplayState, Sink
from guard.replay.traffic import ReplayError, Request, Sketched
from guard.telemetry.metrics import Metrics
from guard.wire.base import Endpoint

_SKETCHED = Endpoint("POST", "/", "scoring")


class Tapped(Handler):
    """Keeps the request at hand, and what it failed on."""

    last: Exchange | None = None
    failures: tuple[str, ...] = ()

    def count_failure(self, x: Exchange, phase: Phase, error: GuardError) -> None:
        """Note the failure too, since shadow passes over it."""
        self.failures = (*self.failures, error.code)
        super().count_failure(x, phase, error)

    def record(self, x: Exchange) -> None:
        """Keep the request."""
        self.last = x
        super().record(x)


class Engine:
    """Runs one policy.

    Args:
        plan: compiled with a salt that `secret` gives.
        secret: keys noise, digests and salts.
        pseudonym: a client's name as recordings have it; None when the secret that they were made with is not known.

    Raises:
        PolicyError: the plan cannot run.
    """

    def __init__(self, plan: Plan, secret: bytes, pseudonym: Callable[[str], str] | None = None) -> None:
        self.missing: Counter[str] = Counter()
        """Rows of sketches of which something could not be replayed, by category."""
        self.skipped: Counter[str] = Counter()
        """Requests that were not replayed at all, by reason."""
        self.unmatched = sum(len(r.detection.exempt) for r in plan.routes if r.detection and pseudonym is None)
        """Exceptions that name clients, which pseudonyms cannot be matched with."""
        self.plan = replace(plan, routes=tuple(_renamed(route, pseudonym) for route in plan.routes))
        self._identity = RecordedIdentity()
        self._active = Active(self.plan, self._identity, ())
        self._clock = RecordedClock()
        self._model = RecordedModel()
        self._sink = Sink()
        self._metrics = Metrics()
        self._state = ReplayState()
        observers = Observers(audit=self._sink)
        self._handler = Tapped(
            self._state, self._model, self._clock, secret, self._metrics, RecentClients(), observers, shared=False
        )
        plans = Plans(lambda: self._active, lambda _ok, _message: None, self._active)
        self._handler.watching.adopt(self.plan)
        self._app = DataApp(plans, self._handler, self._metrics, self._clock)
        salt = derived(secret, b"guard detectors")
        self._stages = {route.name: Stage(route, salt, self.missing) for route in self.plan.routes}
        self._synced_s = 0.0

    async def ask(self, request: Request) -> Seen | None:
        """Take one request; None for one that cannot be replayed under this policy, which is counted.

        Raises:
            ReplayError: the policy has no route for it.
        """
        self._clock.now_s = request.now_s
        if request.now_s - self._synced_s >= SYNC_S:  # as the running product does
            await self._handler.watching.sync()
            self._synced_s = request.now_s
        self._handler.last, self._handler.failures = None, ()
        self._sink.events.clear()
        self._state.made.clear()
        return await (self._sketched(request) if isinstance(request, Sketched) else self._asked(request))

    async def _asked(self, asked: Asked) -> Seen | None:
        matched = self.plan.match(asked.method, asked.path)
        if matched is not None and (why := _unasked(matched.route, asked)):
            self.skipped[why] += 1
            return None
        self._identity.client = Client(asked.client, asked.group, asked.source)
        self._model.said = tuple(None if s is None else Reply(s.status, list(s.headers), s.body) for s in asked.said)
        scope: dict[str, Any] = {  # Any: ASGI
            "type": "http",
            "method": asked.method,
            "raw_path": asked.path.encode("latin-1", "replace"),
            "query_string": b"",
            "headers": asked.headers,
            "client": ("192.0.2.1", 1),
            "http_version": "1.1",
        }

        async def receive() -> dict[str, Any]:  # Any: ASGI
            return {"type": "http.request", "body": asked.body, "more_body": False}

        response, _ = await self._app.respond(scope, receive)
        x = self._handler.last
        return never_handled(response.status) if x is None else self._seen(x)

    async def _sketched(self, request: Sketched) -> Seen | None:
        route = self._stages[self._route_for(request.route)].set(request)
        if route is None:
            self.skipped["a mechanism of differential privacy needs bodies"] += 1
            return None
        source = "address" if int(request.records["flags"][0]) & ADDRESS else "api_key"
        self._identity.client = Client(request.client, request.client, source)
        self._model.said = (Reply(200, [], b""),)
        x = Exchange(
            active=self._active,
            route=route,
            endpoint=_SKETCHED,
            metrics=self._metrics.route(route.name),
            call=Call("/", {}, "", b""),
            method=b"POST",
            peer="",
            began_s=self._clock.monotonic_s(),
            now_s=request.now_s,
            id="replayed",
        )
        await self._handler.handle(x)
        return self._seen(x)

    def _seen(self, x: Exchange) -> Seen:
        return seen_of(x, self._handler.failures, self._sink.events, self._state.made)

    def _route_for(self, recorded: str) -> str:
        """Return the policy's route for a recorded one: of its name, or the only one."""
        if recorded in self._stages:
            return recorded
        if len(self._stages) == 1:
            return next(iter(self._stages))
        known = ", ".join(self._stages)
        raise ReplayError(f"policy {self.plan.name} has no route {recorded}, only {known}: name them alike, or --route")


def _unasked(route: RoutePlan, asked: Asked) -> str:
    """Return why recorded answers cannot stand for what the route would ask its models; empty when they can."""
    if (route.ensemble is not None) != (len(asked.said) > 1):
        return "recorded from one model and not several" if len(asked.said) == 1 else "recorded from several models"
    return ""


def _renamed(route: RoutePlan, pseudonym: Callable[[str], str] | None) -> RoutePlan:
    """Return the route with exceptions for pseudonyms in place of names."""
    detection = route.detection
    if detection is None or not detection.exempt:
        return route
    exempt = {} if pseudonym is None else {pseudonym(name): held for name, held in detection.exempt.items()}
    return replace(route, detection=replace(detection, exempt=exempt))
