"""The families that a route's metrics are made of: plain numbers without a lock, collected and rendered by the library.

They belong to the event loop, which is a tenth of the cost of the library's own, made for threads.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_LABELS: Final = 64
"""Label sets of one family and route; what comes beyond is counted as `other`."""
OTHER: Final = "other"


class Tally(Collector):
    """A counter of one route.

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

    def expect(self, *labels: tuple[str, ...]) -> None:
        """Show sets of values before they are counted for the first time, as far as there is room for them."""
        for one in labels:
            if len(self._values) < MAX_LABELS:
                self._values.setdefault(one, 0)

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
