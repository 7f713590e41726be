"""Detection on the way of one request: evidence, the ladder, pools, meters, and what is told of them.

The work on a large batch is done in pieces of `PIECE` rows, between which other requests are served.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.defences.label_only import LabelOnly
from guard.detectors.base import Margins
from guard.engine.ladder import ACTIONS, Verdict, decide
from guard.engine.margins import margins
from guard.errors import Denied, StateError
from guard.evidence.drift import STALE, drift
from guard.evidence.values import BINS, Strength, unfield
from guard.policy.detection import Detection, Rung, Step
from guard.proxy.metering import Meters, metered
from guard.proxy.pools import Pools
from guard.proxy.secret import derived
from guard.proxy.watched import HotSet, Watched
from guard.telemetry.census import Seen

if TYPE_CHECKING:
    from guard.model.arrays import Floats, Ints
    from guard.model.client import Client
    from guard.model.queries import Queries
    from guard.policy.plan import Plan, RoutePlan
    from guard.ports import Clock, State
    from guard.proxy.exchange import Exchange
    from guard.telemetry.events import Events
    from guard.telemetry.metrics import Metrics
    from guard.telemetry.pseudonyms import Pseudonyms

PIECE = 64
SYNC_S = 0.5
_DRIFT_EVERY, _DRIFT_FIRST = 120, 40
"""Rounds of `SYNC_S` between two looks at drift, a minute, and before the first: after a restart it is soon known."""
_DRIFT_CLIENTS = 256
"""Recently seen clients that are looked at."""
_LN10 = math.log(10.0)
_LABELS = Step(Rung(false_alarm=0.5, action="degrade", defences=(LabelOnly(),)), None, (LabelOnly(),), ())
"""What degrades a client where the ladder has no step for it."""

Object = dict[str, Any]  # Any: JSON


class Watching:
    """What `decide` and `observe` do.

    Args:
        state: where evidence and marks are merged.
        clock: time.
        secret: keys salts.
        metrics: all metrics.
        events: where it is told what the ladder does.
        pseudonyms: clients' names as events may hold them.
        shared: other replicas may use the same state.
    """

    def __init__(
        self,
        state: State,
        clock: Clock,
        secret: bytes,
        metrics: Metrics,
        events: Events,
        pseudonyms: Pseudonyms,
        *,
        shared: bool,
    ) -> None:
        self.hot = HotSet(state, clock, metrics, shared=shared)
        self.meters = Meters(state, metrics, derived(secret, b"guard meters"))
        self._clock = clock
        self._metrics = metrics
        self._events = events
        self._names = pseudonyms
        self._pools: dict[str, tuple[str, Pools]] = {}
        self._drift: dict[str, float] = {}
        self._plan: Plan | None = None

    def decide(self, x: Exchange, client: Client) -> Awaitable[None] | None:
        """Fold the queries and place the client on the ladder; waits only for a client that is not in memory.

        Raises:
            Denied: 403 or 429.
            StateError: the client's standing cannot be had, and the ladder does more than alert.
        """
        watched = self.hot.peek(x.route, client)
        if watched is None or x.rows > PIECE:
            return self._slowly(x, client)
        moved = x.reading is not None and self._fold(x, watched, x.reading.queries)
        self._place(x, watched, moved=moved)
        return None

    async def _slowly(self, x: Exchange, client: Client) -> None:
        """Do the same for a client that must be read first, or for a large batch."""
        try:
            watched = self.hot.peek(x.route, client) or await self.hot.bring(x.route, client, x.now_s)
        except StateError:
            if any(step.rung.action != "alert" for step in _of(x).ladder):
                raise
            self._metrics.state_error()
            return
        if x.reading is not None:
            for first, last in pieces(x.reading.queries.rows):
                if first:
                    await asyncio.sleep(0)
                self._fold(x, watched, x.reading.queries.part(first, last))
        self._place(x, watched, moved=True)

    def _fold(self, x: Exchange, watched: Watched, queries: Queries) -> bool:
        """Fold queries; return whether they completed a window."""
        features = _of(x).setup.sketcher.features(queries)
        x.features.append(features)
        if not watched.tracker.ask(features):
            return False
        self.hot.touched(watched)
        return True

    def _place(self, x: Exchange, watched: Watched, *, moved: bool) -> None:
        """Place the client on the ladder, and refuse where it says so.

        Evidence is worked out when a window of queries is complete (`moved`); what answers and other replicas have
        added meanwhile is in it then.
        """
        detection, client = _of(x), watched.client
        x.watched = watched
        if moved or not watched.pooled:
            excepted = detection.excepted(client.name, x.now_s)
            strength = watched.tracker.strength(frozenset() if excepted is None else excepted.signals)
            watched.strength = strength
            watched.pooled = self._pools_of(x.route).change(
                client.group, watched.shares, strength, x.now_s, alone=client.group == client.name
            )
        verdict = decide(
            detection,
            {"client": watched.strength, **watched.pooled},
            watched.marks,
            watched.offences(x.now_s),
            x.now_s,
            deniable=client.source != "address",
        )
        if verdict.marks:
            self.hot.mark(watched, verdict.marks)
        for step in verdict.entered:
            self._tell(x, watched, step)
        self._act(x, watched, verdict)

    def _act(self, x: Exchange, watched: Watched, verdict: Verdict) -> None:
        x.action = verdict.action
        if verdict.action == "degrade":
            x.step = verdict.step or _LABELS
        elif verdict.action == "deny":
            raise Denied("this client may not ask", code="denied", status=403)
        elif verdict.action == "throttle" and verdict.step is not None:
            rate = (verdict.step.rung.rows_per_minute or 1) / 60.0
            wait_s = watched.throttle(x.rows, rate, x.now_s)
            if wait_s:
                retry_s = max(1, math.ceil(wait_s))
                raise Denied("too many rows; slow down", code="throttled", status=429, retry_after_s=retry_s)

    def _tell(self, x: Exchange, watched: Watched, step: Step) -> None:
        """Count and log that a client has reached a step."""
        signals = _of(x).setup.null.signals
        spoke = [] if step.rung.tier == "protocol" else watched.tracker.wealth.spoke()
        for detector in dict.fromkeys(signals[number].detector for number, _ in spoke):
            x.metrics.detection(detector)
        strength = watched.strength if step.rung.over == "client" else watched.pooled.get(step.rung.over, Strength())
        self._events.add(
            {
                "event": "ladder",
                "time": datetime.fromtimestamp(x.now_s, UTC).isoformat(timespec="milliseconds"),
                "route": x.route.name,
                "mode": x.route.mode,
                "client": self._names.of(watched.client.name),
                "tier": step.rung.tier,
                "over": step.rung.over,
                "action": step.rung.action,
                "level": f"{step.rung.count} offences an hour" if step.level is None else str(step.level),
                "log10_e": round((strength.structure if step.rung.tier == "structure" else strength.any) / _LN10, 2),
                "spoke": {signals[number].name: round(value / _LN10, 2) for number, value in spoke},
                "hold_s": step.rung.hold,
                "policy": x.active.plan.digest,
            }
        )

    def observe(self, x: Exchange, client: Client) -> Awaitable[None] | None:
        """Fold the answers; what they say binds the client's next request.

        Under differential privacy only what was released is looked at.
        """
        watched, report = x.watched, x.report
        if watched is None or x.answer is None or not x.answer.predictions:
            return None
        released = None if report is None else report.released
        first = x.answer.predictions[0]
        seen = first.scores if x.route.private is None else None if released is None else released.scores
        if seen is not None and _of(x).setup.answers:
            found = margins(x.route.outputs.kind, seen)
            if found is not None and len(found):
                for first_row, last in pieces(len(found)):
                    if watched.tracker.answer(Margins(found[first_row:last])):
                        self.hot.touched(watched)
        graded = released is not None and not released.labels_only and not x.labels_only
        if released is None or not graded or not x.route.metered or first.rows is not None:
            return None
        scopes = metered(x.route, client)
        if len(released.scores) <= PIECE:
            self._meter(x, scopes, released.scores)
            return None
        return self._meter_slowly(x, scopes, released.scores)

    def _meter(self, x: Exchange, scopes: set[str], released: Floats) -> None:
        vectors = x.features[0].vectors if x.features else None
        if vectors is not None and len(vectors) == len(released):
            self.meters.add(x.route, scopes, vectors, released)

    async def _meter_slowly(self, x: Exchange, scopes: set[str], released: Floats) -> None:
        first = 0
        for features in x.features:
            if features.vectors is not None:
                part = released[first : first + len(features.vectors)]
                if len(part) == len(features.vectors):
                    self.meters.add(x.route, scopes, features.vectors, part)
            first += len(features.keys)
            await asyncio.sleep(0)

    def offence(self, x: Exchange, client: Client) -> None:
        """Count a query that was refused for what it is: unreadable, incomplete, outside the domain."""
        x.metrics.detection("protocol")
        self.hot.offence(x.route, client, x.now_s)

    def _pools_of(self, route: RoutePlan) -> Pools:
        detection = route.detection
        found = self._pools.get(route.name)
        if detection is not None and (found is None or found[0] != detection.setup.fingerprint):
            found = self._pools[route.name] = (detection.setup.fingerprint, Pools(detection.clip_mean))
        if found is None:
            raise ValueError("the route has no detection")
        return found[1]

    def adopt(self, plan: Plan) -> None:
        """Take note of the plan in force: metrics follow its routes, and its exceptions are told of."""
        before, self._plan = self._plan, plan
        self.hot.limit, self.meters.limit = plan.limits.watched_clients, 2 * plan.limits.watched_clients
        if before is not None:
            for route in before.routes:
                self._metrics.route(route.name).census.look = None
        self._pools = {name: found for name, found in self._pools.items() if any(r.name == name for r in plan.routes)}
        for route in plan.routes:
            signals = () if route.detection is None else route.detection.setup.null.signals
            detectors = {signal.detector: None for signal in signals} | ({"protocol": None} if signals else {})
            metrics = self._metrics.route(route.name)
            metrics.expect(route.mode, [budget.name for budget in route.budgets], detectors)
            if route.detection is None:
                continue
            metrics.census.look = _Look(self, route)
            if before is None or before.digest != plan.digest:
                self._tell_exceptions(route, route.detection, plan.digest)

    def _tell_exceptions(self, route: RoutePlan, detection: Detection, digest: str) -> None:
        now_s = self._clock.wall_s()
        for client in detection.exempt:
            held = detection.excepted(client, now_s)
            if held is not None:
                names = sorted({detection.setup.null.signals[number].detector for number in held.signals})
                until = datetime.fromtimestamp(held.until_s, UTC).date().isoformat()
                event: Object = {
                    "event": "exception",
                    "route": route.name,
                    "client": self._names.of(client),
                    "skip": names,
                }
                self._events.add({**event, "until": until, "reason": held.reason, "policy": digest})

    def look(self, route: RoutePlan) -> Seen:
        """Return what a route's clients look like now."""
        now_s = self._clock.wall_s()
        evidence: list[float] = []
        standing: dict[str, int] = {}
        for watched in self.hot.on(route):
            evidence.append(watched.strength.any / _LN10)
            action = standing_of(watched.marks, now_s)
            if action is not None:
                standing[action] = standing.get(action, 0) + 1
        return Seen(evidence, self.meters.seen(route.ledger), standing, self._drift.get(route.name))

    def drift_of(self, route: str) -> float | None:
        """Return how far a route's traffic has moved from its profile when that was last looked at."""
        return self._drift.get(route)

    def of_client(self, client: Client) -> list[Object]:
        """Return a client's evidence by route, for operators."""
        found: list[Object] = []
        now_s = self._clock.wall_s()
        for route in () if self._plan is None else self._plan.routes:
            watched = None if route.detection is None else self.hot.at(route, client)
            if watched is None or route.detection is None:
                continue
            signals = route.detection.setup.null.signals
            readings = {s: r for s in metered(route, client) if (r := self.meters.reading(route.ledger, s)) is not None}
            found.append(
                {
                    "route": route.name,
                    "log10_e": {
                        "any": round(watched.strength.any / _LN10, 2),
                        "structure": round(watched.strength.structure / _LN10, 2),
                        **{over: round(s.any / _LN10, 2) for over, s in watched.pooled.items()},
                    },
                    "spoke": {signals[n].name: round(v / _LN10, 2) for n, v in watched.tracker.wealth.spoke()},
                    "action": standing_of(watched.marks, now_s) or "allow",
                    "meters": {scope: round(reading, 3) for scope, reading in readings.items()},
                }
            )
        return found

    async def run(self) -> None:
        """Merge with the other replicas until cancelled."""
        rounds = 0
        while True:
            await asyncio.sleep(SYNC_S)
            await self.sync()
            rounds += 1
            if rounds % _DRIFT_EVERY == _DRIFT_FIRST:
                self.look_at_drift()

    async def sync(self) -> None:
        """Merge once."""
        now_s = self._clock.wall_s()
        await self.hot.sync(now_s)
        await self.meters.sync(now_s)

    async def aclose(self) -> None:
        """Merge for the last time."""
        now_s = self._clock.wall_s()
        await self.hot.aclose(now_s)
        await self.meters.sync(now_s)

    def look_at_drift(self) -> None:
        """Compare recent clients with each route's profile, and tell when one has gone stale."""
        for route in () if self._plan is None else self._plan.routes:
            if route.detection is None or route.detection.profile is None:
                continue
            null = route.detection.setup.null
            recent = tuple(self.hot.on(route))[-_DRIFT_CLIENTS:]
            windows = [_windows(watched.tracker.wealth.counts(), len(null.signals)) for watched in recent]
            found = drift(null.signals, null.mean, windows)
            before, self._drift[route.name] = self._drift.get(route.name, 0.0), found
            if found > STALE >= before:
                self._events.add({"event": "profile_stale", "route": route.name, "drift": round(found, 3)})


class _Look:
    """A route's look, as its metrics want it."""

    def __init__(self, watching: Watching, route: RoutePlan) -> None:
        self._watching = watching
        self._route = route

    def __call__(self) -> Seen:
        return self._watching.look(self._route)


def pieces(rows: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of pieces of at most `PIECE` rows."""
    for first in range(0, rows, PIECE):
        yield first, min(first + PIECE, rows)


def standing_of(marks: Mapping[int, int], now_s: float) -> str | None:
    """Return the strictest action that holds; None for none.

    >>> standing_of({1: 100, 2: 50}, 60.0), standing_of({1: 100, 2: 50}, 40.0)
    ('alert', 'degrade')
    """
    held = [action for number, action in enumerate(ACTIONS, 1) if marks.get(number, 0) > now_s]
    return held[-1] if held else None


def _windows(counts: Mapping[int, int], signals: int) -> Ints:
    """Return a client's windows by signal and bin, all buckets together, shape (signals, BINS)."""
    found = np.zeros((signals, BINS), dtype=np.int64)
    for number, n in counts.items():
        _, signal, bin_ = unfield(number)
        found[signal, bin_] += n
    return found


def _of(x: Exchange) -> Detection:
    detection = x.route.detection
    if detection is None:
        raise ValueError("the route has no detection")
    return detection
