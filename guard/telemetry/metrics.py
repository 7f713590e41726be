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
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Info, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from guard import __version__
from guard.telemetry.census import Census

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
LATENCY_BUCKETS_S: Final = (50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 0.1, 0.5, 2.0, 10.0)
SHIFT_BUCKETS_L1: Final = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""A probability vector is at most 2 away from another."""
MAX_LABELS: Final = 64
"""Label sets of one family and route; what comes beyond is counted as `other`."""
MAX_ROUTES: Final = 256
"""Routes over the life of the process, all reloads together; likewise."""
OTHER: Final = "other"
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
        self._verdicts = tally("guard_verdicts_total", "Requests by action and mode.", "action", "mode").inc
        text = "Mean L1 distance from what the model said to what was released."
        self.shift = spread("guard_score_shift_l1", text, SHIFT_BUCKETS_L1)
        """Observe an answer's mean L1 shift."""
        self._changed = tally("guard_top1_changed_total", "Rows whose most likely class was changed.").inc
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


class Tally(Collector):
    """A counter of one route. It belongs to the event loop, so it takes no lock: a tenth of the library's own counter.

    Args:
        family: the metric's name, with `_total`.
        text: its help.
        route: the first label's value.
        labels: the other labels' names; at most `MAX_LABELS` sets of values, what comes beyond is `other`.
    """

    def __init__(self, family: str, text: str, route: str, labels: tuple[str, ...] = ()) -> None:
        self._family = family
        self._text = text
        self._route = route
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    @property
    def values(self) -> Mapping[tuple[str, ...], float]:
        """Every count, by the labels' values."""
        return self._values

    def inc(self, labels: tuple[str, ...], n: float) -> None:
        """Add `n` under the labels' values."""
        values = self._values
        if labels not in values:
            if len(values) >= MAX_LABELS:
                labels = (OTHER,) * len(labels)
            values.setdefault(labels, 0)
        values[labels] += n

    def collect(self) -> Iterable[Metric]:
        """Return the family, for prometheus-client."""
        family = CounterMetricFamily(self._family, self._text, labels=("route", *self._labels))
        for labels, value in self._values.items():
            family.add_metric((self._route, *labels), value)
        return (family,)


class Spread(Collector):
    """A histogram of one route, likewise.

    Args:
        family: the metric's name.
        text: its help.
        route: its only label's value.
        bounds: upper bounds of the buckets, ascending; one without bound follows.
    """

    def __init__(self, family: str, text: str, route: str, bounds: tuple[float, ...]) -> None:
        self._family = family
        self._text = text
        self._route = route
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def counts(self) -> Sequence[int]:
        """How many values fell into each bucket, not added up."""
        return self._counts

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        """Return the family, for prometheus-client."""
        names = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        family = HistogramMetricFamily(self._family, self._text, labels=("route",))
        family.add_metric((self._route,), buckets, self._sum)
        return (family,)


class Lowest(Collector):
    """The lowest share of each budget that any client has left in the window seen last.

    Args:
        route: the first label's value.
    """

    def __init__(self, route: str) -> None:
        self._route = route
        self._found: dict[str, tuple[int, float]] = {}

    def note(self, budget: str, window: int, ratio: float) -> None:
        """Note how much of a budget a client has left.

        Args:
            budget: its name.
            window: the window's number; a greater one begins anew, an older one is passed over.
            ratio: share left; below 0 counts as 0.
        """
        known = self._found.get(budget)
        if known is None:
            if len(self._found) >= MAX_LABELS:
                return
        elif window < known[0] or (window == known[0] and ratio >= known[1]):
            return
        self._found[budget] = (window, ratio)

    def collect(self) -> Iterable[Metric]:
        """Return the family, for prometheus-client."""
        text = "Lowest share of a budget that a client had left, in the window seen last."
        family = GaugeMetricFamily("guard_budget_remaining_ratio", text, labels=("route", "budget"))
        for budget, (_, ratio) in self._found.items():
            family.add_metric((self._route, budget), max(0.0, ratio))
        return (family,)


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
        self._policy = Info("guard_policy", "The policy in force.", registry=self.registry)
        self.build = Info("guard_build", "The version that runs.", registry=self.registry)
        self.build.info({"version": __version__, "python": platform.python_version()})

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

    def policy(self, name: str, digest: str, mode: str) -> None:
        """Say which policy is in force."""
        self._policy.info({"name": name, "digest": digest, "mode": mode})

    async def expose(self) -> AsyncIterator[bytes]:
        """Yield the text exposition in pieces, and let the event loop serve requests between them."""
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


class _Ready(Collector):
    """A family that was collected before, as prometheus-client's renderer wants it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


def render(parts: list[Metric], *, header: bool) -> bytes:
    """Render parts of one family together, without the times of creation, which would double the counters.

    Args:
        parts: at least one; all of one family.
        header: begin with the family's help and type.
    """
    first = parts[0]
    whole = Metric(first.name, first.documentation, first.type)
    whole.samples = [sample for part in parts for sample in part.samples if not sample.name.endswith("_created")]
    text = generate_latest(_Ready(whole))
    return text if header else text.split(b"\n", 2)[2]
