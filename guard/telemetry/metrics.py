"""Metrics for Prometheus. Labels are bounded: route, outcome, action, mode, budget; never a client.

Counting is on the way of every request, so `RouteMetrics` holds children that are bound already: binding costs more
than counting. Every route has families of its own, which `expose` puts together family by family in small pieces: a
scrape of 64 routes would otherwise stop the event loop, and with it every request, for longer than a request takes.
"""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from guard import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

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
        self._name = name
        self.families: list[Collector] = []
        self._requests = _Bound(self._counter("guard_requests_total", "Requests by outcome.", "outcome"), name)
        self.rows: Callable[[float], None] = self._counter("guard_rows_total", "Rows answered.").labels(name).inc
        """Count rows that were answered."""
        self.added = self._histogram(
            "guard_added_latency_seconds", "Time in Guard, without the model.", LATENCY_BUCKETS_S
        )
        """Observe the seconds that Guard itself took."""
        self.upstream = self._histogram("guard_upstream_latency_seconds", "Time the model took.", LATENCY_BUCKETS_S)
        """Observe the seconds that the model took."""
        verdicts = self._counter("guard_verdicts_total", "Requests by action and mode.", "action", "mode")
        self._verdicts = _Bound(verdicts, name)
        self.shift = self._histogram(
            "guard_score_shift_l1", "Mean L1 distance from what the model said to what was released.", SHIFT_BUCKETS_L1
        )
        """Observe an answer's mean L1 shift."""
        changed = self._counter("guard_top1_changed_total", "Rows whose most likely class was changed.")
        self.top1_changed: Callable[[float], None] = changed.labels(name).inc
        """Count rows whose argmax was changed."""
        self._charges = _Bound(
            self._counter("guard_budget_charges_total", "What budgets were charged.", "budget"), name
        )
        refusals = self._counter("guard_budget_refusals_total", "Requests that a budget refused.", "budget")
        self._refusals = _Bound(refusals, name)
        text = "Lowest share of a budget that a client had left, in the window seen last."
        self._remaining = Gauge("guard_budget_remaining_ratio", text, ("route", "budget"), registry=None)
        self.families.append(self._remaining)
        self._lowest: dict[str, _Lowest] = {}
        self._unreadable = self._counter("guard_unreadable_total", "Answers that could not be read.").labels(name).inc

    def _counter(self, family: str, text: str, *labels: str) -> Counter:
        made = Counter(family, text, ("route", *labels), registry=None)
        self.families.append(made)
        return made

    def _histogram(self, family: str, text: str, buckets: tuple[float, ...]) -> Callable[[float], None]:
        made = Histogram(family, text, ("route",), registry=None, buckets=buckets)
        self.families.append(made)
        return made.labels(self._name).observe

    def request(self, outcome: str) -> None:
        """Count a request: `ok`, or an error's code."""
        self._requests.inc((outcome,), 1)

    def verdict(self, action: str, mode: str) -> None:
        """Count what was decided on a request."""
        self._verdicts.inc((action, mode), 1)

    def charge(self, budget: str, n: float) -> None:
        """Count what was charged to a budget."""
        self._charges.inc((budget,), n)

    def refusal(self, budget: str) -> None:
        """Count a request that a budget refused."""
        self._refusals.inc((budget,), 1)

    def remaining(self, budget: str, window: int, ratio: float) -> None:
        """Note how much of a budget a client has left: the lowest of the window is shown.

        Args:
            budget: its name.
            window: the window's number; a greater one begins anew, an older one is passed over.
            ratio: share left; below 0 counts as 0.
        """
        lowest = self._lowest.get(budget)
        if lowest is None:
            if len(self._lowest) >= MAX_LABELS:
                return
            lowest = self._lowest[budget] = _Lowest(self._remaining.labels(self._name, budget))
        if window > lowest.window or (window == lowest.window and ratio < lowest.ratio):
            lowest.window, lowest.ratio = window, ratio
            lowest.gauge.set(max(0.0, ratio))

    def unreadable(self) -> None:
        """Count an answer that could not be read."""
        self._unreadable()


class _Bound:
    """A counter's children by their labels behind `route`, bound when they are first needed, at most `MAX_LABELS`."""

    __slots__ = ("_children", "_counter", "_name")

    def __init__(self, counter: Counter, name: str) -> None:
        self._counter = counter
        self._name = name
        self._children: dict[tuple[str, ...], Callable[[float], None]] = {}

    def inc(self, labels: tuple[str, ...], n: float) -> None:
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= MAX_LABELS:
                labels = (OTHER,) * len(labels)
            child = self._children[labels] = self._counter.labels(self._name, *labels).inc
        child(n)


class _Lowest:
    """A budget's running minimum in one window."""

    __slots__ = ("gauge", "ratio", "window")

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self.window = -1
        self.ratio = 1.0


class Metrics:
    """All metrics of one process, in registries of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._routes: dict[str, RouteMetrics] = {}
        self._state_errors = Counter(
            "guard_state_errors_total", "Calls to the state that failed.", registry=self.registry
        )
        self._reloads = Counter(
            "guard_policy_reloads_total", "Reloads of the policy by result.", ("result",), registry=self.registry
        )
        self._reload_ok, self._reload_failed = self._reloads.labels("ok"), self._reloads.labels("failed")
        self._policy = Info("guard_policy", "The policy in force.", registry=self.registry)
        self.build = Info("guard_build", "The version that runs.", registry=self.registry)
        self.build.info({"version": __version__, "python": platform.python_version()})

    def route(self, name: str) -> RouteMetrics:
        """Return the route's metrics; made when they are first asked for, and kept, since counters never go back."""
        found = self._routes.get(name)
        if found is None:
            if len(self._routes) >= MAX_ROUTES:
                name = OTHER
            found = self._routes.setdefault(name, RouteMetrics(name))
        return found

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
