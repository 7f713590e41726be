"""What the console shows, as one JSON document: `GET /live`, asked every two seconds by every page that is open.

Pages share one document a second, and it is put together in pieces between which requests are served. It names no
client: pseudonyms stand for them, as in the audit log. The policy in words does not change from look to look and is
asked for apart, when the document says that it is another one: `GET /live/policy`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson

from guard import __version__
from guard.proxy import admin_evidence
from guard.proxy.admin_budgets import BudgetReadings
from guard.proxy.admin_report import ReportFile
from guard.proxy.admin_samples import EVERY_S, OUTCOMES, VERDICTS, Samples, percentiles
from guard.proxy.plans import said
from guard.proxy.words import plan_in_words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from guard.policy.plan import Plan, RoutePlan
    from guard.proxy.admin_samples import Latency, Sample
    from guard.proxy.decisions import Recent
    from guard.proxy.handler import Handler
    from guard.proxy.plans import Active, Plans

FRESH_S: Final = 1.0
SHOWN_DECISIONS: Final = 50
MOST_ROUTES: Final = 64
_AT_ONCE = 8

Object = dict[str, Any]  # Any: JSON
Checks = dict[str, str]


class Live:
    """Puts the document together.

    Args:
        plans: the plan in force.
        handler: what serves requests, and knows of them.
        report: the last self-test's JSON report; None for none.
    """

    def __init__(self, plans: Plans, handler: Handler, report: Path | None = None) -> None:
        self._plans = plans
        self._handler = handler
        self._clock = handler.clock
        self._began_s = handler.clock.monotonic_s()
        self.samples = Samples(handler.metrics, handler.clock.monotonic_s)
        self._budgets = BudgetReadings(
            handler.state, handler.clients, handler.watching.meters, handler.agreements, handler.pseudonyms
        )
        self._report = ReportFile(report)
        self._building: asyncio.Task[bytes] | None = None
        self._built_s = float("-inf")
        self._words: tuple[Active, int, bytes] | None = None

    async def document(self, check: Callable[[], Awaitable[Checks]]) -> bytes:
        """Return the document; those who ask within a second share one.

        Args:
            check: returns what is wrong with policy, state and model, by name.
        """
        now_s = self._clock.monotonic_s()
        if self._building is None or (self._building.done() and now_s - self._built_s >= FRESH_S):
            self._built_s = now_s
            self._building = asyncio.create_task(self._build(check))
        # Shielded: one page that leaves must not take the others' document along.
        return await asyncio.shield(self._building)

    async def _build(self, check: Callable[[], Awaitable[Checks]]) -> bytes:
        handler, plan = self._handler, self._plans.current.plan
        now_s = self._clock.wall_s()
        found = await check()
        evidence = await admin_evidence.look(handler.watching, plan, handler.pseudonyms, now_s)
        document: Object = {
            "now_s": round(now_s, 3),
            "version": __version__,
            "uptime_s": round(self._clock.monotonic_s() - self._began_s, 1),
            "policy": self._policy(plan),
            "ready": {"ready": not any(found.values()), "checks": found},
            "traffic": self._traffic(),
            "latency": self._latency(),
            "routes": await self._routes(plan, evidence.pop("by_route")),
            "evidence": evidence,
            "budgets": await self._budgets.look(plan, now_s),
            "recent": self._decisions(handler.recent.latest),
            "recent_other": self._decisions(one for one in handler.recent.latest if not _plain(one)),
            "selftest": await self._report.look(),
            "counters": self._counters(),
        }
        if (crowd := handler.clients.crowd()) != "":
            document["crowd"] = handler.pseudonyms.of(crowd)
        return orjson.dumps(document)

    def _policy(self, plan: Plan) -> Object:
        active = self._plans.current
        return {
            "name": plan.name,
            "digest": plan.digest,
            "mode": plan.mode,
            "revision": f"{plan.digest[:16]}.{self._acts(plan)}",
            "shadow": [route.name for route in plan.routes if route.mode == "shadow"][:MOST_ROUTES],
            "warnings": len(plan.warnings) + len(active.identity.warnings),
        }

    def _acts(self, plan: Plan) -> int:
        return sum(len(self._handler.agreements.acts(route.ledger)) for route in plan.routes)

    async def policy(self) -> bytes:
        """Return the policy in words, with clients' names as pseudonyms; worked out once for each."""
        active, acts = self._plans.current, self._acts(self._plans.current.plan)
        if self._words is None or self._words[0] is not active or self._words[1] != acts:
            warnings = [said(warning) for warning in active.plan.warnings] + list(active.identity.warnings)
            words = await plan_in_words(active.plan, self._handler.agreements.acts, self._handler.pseudonyms.of)
            words |= {"warnings": warnings, "revision": f"{active.plan.digest[:16]}.{acts}"}
            made = self._words = (active, acts, orjson.dumps(words))
            return made[2]
        return self._words[2]

    def _traffic(self) -> Object:
        kept = self.samples.kept
        pairs = list(zip(kept, list(kept)[1:], strict=False))
        return {
            "every_s": EVERY_S,
            "ages_s": [round(kept[-1].at_s - later.at_s, 1) for _, later in pairs],
            "rates": {name: [_rate(a, b, n) for a, b in pairs] for n, name in enumerate(OUTCOMES)},
            "total": dict(zip(OUTCOMES, kept[-1].outcomes if kept else (0,) * len(OUTCOMES), strict=True)),
            "minute": self._minute("outcomes", OUTCOMES),
            "verdicts": self._minute("verdicts", VERDICTS),
        }

    def _minute(self, member: str, names: tuple[str, ...]) -> dict[str, int]:
        """Return what was counted in the last minute."""
        ends = self.samples.last_minute()
        if ends is None:
            return dict.fromkeys(names, 0)
        before, now = (getattr(end, member) for end in ends)
        return {name: b - a for name, a, b in zip(names, before, now, strict=True)}

    def _latency(self) -> Object:
        ends = self.samples.last_minute()
        curve = list(self.samples.curve)[1:]
        found: Object = {"p50_ms": [_ms(p.p50) for p in curve], "p99_ms": [_ms(p.p99) for p in curve]}
        for member in ("added", "upstream"):
            before, now = (((), ())) if ends is None else (getattr(end, member) for end in ends)
            found[member] = _in_ms(percentiles([b - a for a, b in zip(before, now, strict=True)]))
        return found

    async def _routes(self, plan: Plan, standing: dict[str, dict[str, int]]) -> list[Object]:
        shown: list[Object] = []
        for number, route in enumerate(plan.routes[:MOST_ROUTES]):
            shown.append(self._route(route, standing.get(route.name, {})))
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        return shown

    def _route(self, route: RoutePlan, standing: dict[str, int]) -> Object:
        seconds, outcomes, added = self.samples.of_route(route.name)
        detection = route.detection
        return {
            "name": route.name,
            "mode": route.mode,
            "rates": {
                name: round(n / seconds, 3) if seconds else 0 for name, n in zip(OUTCOMES, outcomes, strict=True)
            },
            "added": _in_ms(added),
            "detection": detection is not None,
            "profile": None if detection is None or detection.profile is None else detection.profile.name,
            "steps": [] if detection is None else list(dict.fromkeys(step.rung.action for step in detection.ladder)),
            "ladder": standing,
            "drift": self._handler.watching.drift_of(route.name),
            "private": bool(route.statement),
        }

    def _decisions(self, decisions: Iterable[Recent]) -> list[Object]:
        """Return the last decisions, newest first."""
        name = self._handler.pseudonyms.of
        return [
            {
                "now_s": round(one.now_s, 3),
                "id": one.id,
                "route": one.route,
                "client": name(one.client) if one.client else None,
                "rows": one.rows,
                "verdict": one.verdict,
                "outcome": one.outcome,
                "status": one.status,
            }
            for one in list(decisions)[: -SHOWN_DECISIONS - 1 : -1]
        ]

    def _counters(self) -> dict[str, int]:
        """Return what should stay at 0."""
        read = self._handler.metrics.registry.get_sample_value
        return {
            "state_errors": int(read("guard_state_errors_total") or 0),
            "audit_dropped": int(read("guard_audit_dropped_total") or 0),
            "recording_dropped": int(read("guard_recording_dropped_total") or 0),
            "reloads_failed": int(read("guard_policy_reloads_total", {"result": "failed"}) or 0),
        }


def _plain(one: Recent) -> bool:
    return one.verdict == "allow" and one.outcome == "ok"


def _rate(before: Sample, after: Sample, place: int) -> float:
    seconds = after.at_s - before.at_s
    return round((after.outcomes[place] - before.outcomes[place]) / seconds, 2) if seconds > 0 else 0.0


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _in_ms(found: Latency) -> Object:
    return {"p50_ms": _ms(found.p50), "p95_ms": _ms(found.p95), "p99_ms": _ms(found.p99), "n": found.n}
