"""Metrics for Prometheus.

Labels are bounded: route, outcome, action, mode, budget; never a client.

Counting is on the way of every request, so a route's own metrics are plain numbers without a lock, which the library
only collects and renders. Every route has families of its own, which `expose` puts together family by family in small
pieces: a scrape of 64 routes would otherwise stop the event loop, and with it every request, for longer than a request
takes.
"""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from guard import __version__
from guard.engine.ladder import ACTIONS
from guard.telemetry.census import Census
from guard.telemetry.families import OTHER, Lowest, Spread, Tally, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
LATENCY_BUCKETS_S: Final = (50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 0.1, 0.5, 2.0, 10.0)
SHIFT_BUCKETS_L1: Final = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""A probability vector is at most 2 away from another."""
LAG_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
LAG_PERIOD_S: Final = 0.1
MAX_ROUTES: Final = 256
"""Routes over the life of the process, all reloads together; what comes beyond is counted as `other`."""
_PIECE_SAMPLES = 32


class RouteMetrics:
    """What is counted for one route.

    Args:
        name: the route's.
    """

    def __init__(self, name: str) -> None:
        self.families: list[Collector] = []
        self.tallies: dict[str, Tally] = {}
        self.spreads: dict[str, Spread] = {}

        def tally(family: str, text: str, *labels: str) -> Tally:
            made = self.tallies[family] = Tally(family, text, name, labels)
            self.families.append(made)
            return made

        def spread(family: str, text: str, bounds: tuple[float, ...]) -> Callable[[float], None]:
            made = self.spreads[family] = Spread(family, text, name, bounds)
            self.families.append(made)
            return made.observe

        self._requests = tally("guard_requests_total", "Requests by outcome.", "outcome").inc
        self._rows = tally("guard_rows_total", "Rows answered.").inc
        self.added = spread("guard_added_latency_seconds", "Time in Guard, without the model.", LATENCY_BUCKETS_S)
        """Observe the seconds that Guard itself took."""
        self.upstream = spread("guard_upstream_latency_seconds", "Time the model took.", LATENCY_BUCKETS_S)
        """Observe the seconds that the model took."""
        text = "Time the state took to charge a request's budgets, whether it did or failed."
        self.state = spread("guard_state_latency_seconds", text, LATENCY_BUCKETS_S)
        """Observe the seconds that a charge took."""
        self._verdicts = tally("guard_verdicts_total", "Requests by action and mode.", "action", "mode").inc
        text = "Mean L1 distance from what the model said to what was released."
        self.shift = spread("guard_score_shift_l1", text, SHIFT_BUCKETS_L1)
        """Observe an answer's mean L1 shift."""
        self._changed = tally("guard_top1_changed_total", "Rows whose most likely class was changed.").inc
        text = "Secrets that were taken out of generated text."
        self._redactions = tally("guard_redactions_total", text, "mode").inc
        self._charges = tally("guard_budget_charges_total", "What budgets were charged.", "budget").inc
        self._refusals = tally("guard_budget_refusals_total", "Requests that a budget refused.", "budget").inc
        self._remaining = Lowest(name)
        self.families.append(self._remaining)
        self.remaining = self._remaining.note
        """Note how much of a budget a client has left: see `Lowest.note`."""
        self._unreadable = tally("guard_unreadable_total", "Answers that could not be read.").inc
        text = "Clients that reached a step of the ladder, by the detectors that spoke; protocol offences."
        self._detections = tally("guard_detections_total", text, "detector").inc
        self.census = Census(name)
        """What clients look like at the moment of a scrape; detection sets its `look`."""
        self.families += self.census.families

    def expect(self, mode: str, budgets: Iterable[str], detectors: Iterable[str]) -> None:
        """Show what the route may come to count, at 0.

        Prometheus sees what a counter grows by, not where it begins: of a series that begins with the first event, such
        as a detector's first word, that event would be lost.

        Args:
            mode: the route's.
            budgets: names of its budgets.
            detectors: names of its detectors; none where there is no detection.
        """
        spoken = [*detectors]
        actions = ("allow", *(ACTIONS if spoken else ("deny",)), "label_only")
        charged = [(name,) for name in budgets]
        self.tallies["guard_requests_total"].expect(("ok",))
        self.tallies["guard_verdicts_total"].expect(*((action, mode) for action in actions))
        self.tallies["guard_budget_charges_total"].expect(*charged)
        self.tallies["guard_budget_refusals_total"].expect(*charged)
        self.tallies["guard_redactions_total"].expect((mode,))
        self.tallies["guard_detections_total"].expect(*((name,) for name in spoken))

    def request(self, outcome: str) -> None:
        """Count a request: `ok`, or an error's code."""
        self._requests((outcome,), 1)

    def rows(self, n: int) -> None:
        """Count rows that were answered."""
        self._rows((), n)

    def verdict(self, action: str, mode: str) -> None:
        """Count what was decided on a request."""
        self._verdicts((action, mode), 1)

    def top1_changed(self, n: int) -> None:
        """Count rows whose argmax was changed."""
        self._changed((), n)

    def redacted(self, n: int, mode: str) -> None:
        """Count what was taken out of generated text; in shadow, what would have been."""
        self._redactions((mode,), n)

    def charge(self, budget: str, n: float) -> None:
        """Count what was charged to a budget."""
        self._charges((budget,), n)

    def refusal(self, budget: str) -> None:
        """Count a request that a budget refused."""
        self._refusals((budget,), 1)

    def unreadable(self) -> None:
        """Count an answer that could not be read."""
        self._unreadable((), 1)

    def detection(self, detector: str) -> None:
        """Count what a detector has seen."""
        self._detections((detector,), 1)


class Metrics:
    """All metrics of one process, in registries of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._routes: dict[str, RouteMetrics] = {}
        self._state_errors = Counter(
            "guard_state_errors_total", "Calls to the state that failed.", registry=self.registry
        )
        text = "Events that the audit log has lost."
        self._audit_dropped = Counter("guard_audit_dropped_total", text, registry=self.registry)
        text = "Rows that could not be recorded for calibration."
        self._recording_dropped = Counter("guard_recording_dropped_total", text, registry=self.registry)
        self._reloads = Counter(
            "guard_policy_reloads_total", "Reloads of the policy by result.", ("result",), registry=self.registry
        )
        self._reload_ok, self._reload_failed = self._reloads.labels("ok"), self._reloads.labels("failed")
        text = "1 while the policy's files cannot be used: the last reload failed, and the old policy is in force."
        self._reload_failing = Gauge("guard_policy_reload_failing", text, registry=self.registry)
        self._policy = Info("guard_policy", "The policy in force.", registry=self.registry)
        self.build = Info("guard_build", "The version that runs.", registry=self.registry)
        self.build.info({"version": __version__, "python": platform.python_version()})
        text = "How late the event loop wakes: what every request waits at least once."
        self._lag = Histogram("guard_loop_lag_seconds", text, buckets=LAG_BUCKETS_S, registry=self.registry)
        text = "Tasks of the event loop: what grows while requests in flight do not is a leak."
        Gauge("guard_tasks", text, registry=self.registry).set_function(_tasks)
        self._process = ProcessCollector(registry=None)
        self._asked: dict[str, Gauge] = {}

    @property
    def routes(self) -> Mapping[str, RouteMetrics]:
        """What is counted, by route."""
        return self._routes

    def route(self, name: str) -> RouteMetrics:
        """Return the route's metrics; made when they are first asked for, and kept, since counters never go back."""
        found = self._routes.get(name)
        if found is None:
            if len(self._routes) >= MAX_ROUTES:
                name = OTHER
            found = self._routes.setdefault(name, RouteMetrics(name))
        return found

    def audit_dropped(self) -> None:
        """Count an event that the audit log has lost."""
        self._audit_dropped.inc()

    def recording_dropped(self, rows: int) -> None:
        """Count rows that could not be recorded."""
        self._recording_dropped.inc(rows)

    def state_error(self) -> None:
        """Count a call to the state that failed."""
        self._state_errors.inc()

    def reload(self, ok: bool) -> None:
        """Count a reload."""
        (self._reload_ok if ok else self._reload_failed).inc()
        self._reload_failing.set(not ok)

    def policy(self, name: str, digest: str, mode: str) -> None:
        """Say which policy is in force."""
        self._policy.info({"name": name, "digest": digest, "mode": mode})

    def load(self, in_flight: Callable[[], int], limit: Callable[[], int]) -> None:
        """Show how many requests are in flight, and how many may be.

        Args:
            in_flight: requests now; asked at each scrape.
            limit: `limits.concurrency` of the policy in force; more are refused.
        """
        self._ask("guard_requests_in_flight", "Requests in flight.", in_flight)
        text = "Requests that may be in flight; more are refused (overloaded)."
        self._ask("guard_requests_in_flight_limit", text, limit)

    def audit(self, waiting: Callable[[], int], sequence: Callable[[], int]) -> None:
        """Show how the audit log is doing.

        Args:
            waiting: lines that are not written yet; asked at each scrape.
            sequence: number of the last line that was taken.
        """
        self._ask("guard_audit_waiting", "Lines of the audit log that are not written yet.", waiting)
        self._ask("guard_audit_sequence", "Number of the audit log's last line.", sequence)

    def _ask(self, name: str, text: str, look: Callable[[], int]) -> None:
        """Have a gauge ask at each scrape; whoever is named last is asked."""
        if name not in self._asked:
            self._asked[name] = Gauge(name, text, registry=self.registry)
        self._asked[name].set_function(look)

    async def watch_loop(self, period_s: float = LAG_PERIOD_S) -> None:
        """Measure how late the event loop is, until cancelled."""
        now_s = asyncio.get_running_loop().time
        while True:
            due_s = now_s() + period_s
            await asyncio.sleep(period_s)
            self._lag.observe(max(0.0, now_s() - due_s))

    async def expose(self) -> AsyncIterator[bytes]:
        """Yield the text exposition in pieces, and let the event loop serve requests between them."""
        # In a thread: with 8,000 connections it takes 7 ms to count the open files.
        for family in await asyncio.to_thread(lambda: list(self._process.collect())):
            yield render([family], header=True)
            await asyncio.sleep(0)
        for piece in self._pieces():
            yield piece
            await asyncio.sleep(0)

    def _pieces(self) -> Iterator[bytes]:
        for family in self.registry.collect():
            yield render([family], header=True)
        # Families stand in the same order in every route, because the same lines made them.
        for family in zip(*[route.families for route in self._routes.values()], strict=True):
            gathered: list[Metric] = []
            samples, header = 0, True
            for collector in family:
                found = list(collector.collect())
                gathered += found
                samples += sum(len(metric.samples) for metric in found)
                if samples >= _PIECE_SAMPLES:
                    yield render(gathered, header=header)
                    gathered, samples, header = [], 0, False
            if gathered:
                yield render(gathered, header=header)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0  # no loop runs, so nothing is served
