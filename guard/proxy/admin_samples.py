"""What the console's curves are made of: counters, looked at every two seconds, kept for ten minutes.

They are kept here and not in the page, so that a page that is opened after an attack began still shows how it began.
Everything is bounded: `KEPT` samples of all routes together, and `MINUTE` of each route.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from guard.telemetry.metrics import LATENCY_BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guard.telemetry.metrics import Metrics, RouteMetrics

EVERY_S: Final = 2.0
KEPT: Final = 301
_COARSE: Final = 5
"""Samples to one that is kept of every route by itself: ten seconds."""
_MINUTE: Final = 7
_SMOOTHED: Final = 5
"""Samples whose requests a point of a latency curve is made of."""
ROUTES_AT_ONCE: Final = 16

OUTCOMES: Final[tuple[str, ...]] = ("answered", "refused", "bad", "model", "closed", "left")
"""What came of requests, for the eye: answered; refused by policy; bad requests and unknown credentials; the model
failed or its answer was withheld; Guard failed closed; the client left."""
VERDICTS: Final[tuple[str, ...]] = ("allow", "alert", "degrade", "label_only", "throttle", "deny")

_POLICY = frozenset(("denied", "throttled", "budget_spent", "batch_too_large"))
_MODEL = frozenset(
    (
        "no_quorum",
        "unreadable_answer",
        "too_many_predictions",
        "outside_outputs",
        "not_private",
        "not_combinable",
        "no_single_model",
        "models_disagree",
        "no_consensus",
    )
)
_CLOSED = frozenset(
    (
        "audit_unavailable",
        "internal",
        "ledger_damaged",
        "ledger_terms",
        "ledger_terms_changed",
        "no_secret",
        "overloaded",
        "shared_memory",
        "shutting_down",
        "state_unavailable",
        "stream_over",
    )
)


def outcome_class(code: str) -> str:
    """Return which of `OUTCOMES` an outcome of `guard_requests_total` is.

    >>> [outcome_class(code) for code in ("ok", "denied", "bad_json", "upstream_timeout", "state_unavailable")]
    ['answered', 'refused', 'bad', 'model', 'closed']
    """
    if code == "ok":
        return "answered"
    if code in _POLICY:
        return "refused"
    if code in _CLOSED:
        return "closed"
    if code in _MODEL or code.startswith("upstream_"):
        return "model"
    return "left" if code == "aborted" else "bad"


class Latency(NamedTuple):
    """Percentiles in seconds, interpolated inside a bucket; None where there was no request.

    Args:
        p50: the median.
        p95: 95 in 100 took at most so long.
        p99: likewise.
        n: how many were counted.
    """

    p50: float | None
    p95: float | None
    p99: float | None
    n: int


def percentiles(counts: Sequence[int]) -> Latency:
    """Return the percentiles of a histogram over `LATENCY_BUCKETS_S`; what lies beyond the last bound counts as it.

    >>> found = percentiles([0, 100] + [0] * 12)
    >>> f"{found.p50 * 1e6:.0f} µs, {found.p99 * 1e6:.1f} µs of {found.n}"
    '75 µs, 99.5 µs of 100'
    """
    total = sum(counts)
    if not total:
        return Latency(None, None, None, 0)
    p50, p95, p99 = (_quantile(counts, share * total) for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, total)


def _quantile(counts: Sequence[int], rank: float) -> float:
    for place, reached in enumerate(accumulate(counts)):
        if reached >= rank and counts[place]:
            if place == len(LATENCY_BUCKETS_S):
                break
            low = LATENCY_BUCKETS_S[place - 1] if place else 0.0
            high = LATENCY_BUCKETS_S[place]
            return low + (high - low) * (rank - reached + counts[place]) / counts[place]
    return LATENCY_BUCKETS_S[-1]


class Sample(NamedTuple):
    """Counters at one moment.

    Args:
        at_s: monotonic.
        outcomes: requests, as `OUTCOMES`.
        verdicts: likewise, as `VERDICTS`.
        added: Guard's own time, by bucket.
        upstream: the model's.
    """

    at_s: float
    outcomes: tuple[int, ...]
    verdicts: tuple[int, ...]
    added: tuple[int, ...]
    upstream: tuple[int, ...]


class Samples:
    """The samples of one process.

    Args:
        metrics: what is counted.
        clock_s: monotonic.
    """

    def __init__(self, metrics: Metrics, clock_s: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock_s = clock_s
        self._taken = 0
        self.kept: deque[Sample] = deque(maxlen=KEPT)
        self.curve: deque[Latency] = deque(maxlen=KEPT)
        """Guard's own time around each sample."""
        self._minute: deque[tuple[float, Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]]
        self._minute = deque(maxlen=_MINUTE)

    async def run(self) -> None:
        """Look every `EVERY_S` until cancelled."""
        while True:
            await self.take()
            await asyncio.sleep(EVERY_S)

    async def take(self) -> None:
        """Look once, in pieces of `ROUTES_AT_ONCE` routes."""
        sums = [[0] * len(OUTCOMES), [0] * len(VERDICTS), *([0] * (len(LATENCY_BUCKETS_S) + 1) for _ in range(2))]
        coarse = self._taken % _COARSE == 0
        requests: dict[str, tuple[int, ...]] = {}
        added: dict[str, tuple[int, ...]] = {}
        at_s = self._clock_s()
        for number, (name, route) in enumerate(tuple(self._metrics.routes.items())):
            if number and number % ROUTES_AT_ONCE == 0:
                await asyncio.sleep(0)
            found = counted(route)
            for total, more in zip(sums, found, strict=True):
                for place, n in enumerate(more):
                    total[place] += n
            if coarse:
                requests[name], added[name] = found[0], found[2]
        self.kept.append(Sample(at_s, *map(tuple, sums)))
        if coarse:
            self._minute.append((at_s, requests, added))
        before = self.kept[max(0, len(self.kept) - 1 - _SMOOTHED)]
        self.curve.append(percentiles(_less(self.kept[-1].added, before.added)))
        self._taken += 1

    def last_minute(self) -> tuple[Sample, Sample] | None:
        """Return the sample of a minute ago, or the oldest there is, and the newest; None when there are not two."""
        if len(self.kept) < 2:
            return None
        newest = self.kept[-1]
        return next(s for s in self.kept if newest.at_s - s.at_s <= 60.0 + EVERY_S / 2), newest

    def of_route(self, name: str) -> tuple[float, tuple[int, ...], Latency]:
        """Return over how many seconds, requests by outcome and Guard's own time of a route in about the last minute.

        Its end is now; where it began lies 50 to 60 seconds back, or at the start.
        """
        route = self._metrics.routes.get(name)
        if route is None or not self._minute:
            return 0.0, (0,) * len(OUTCOMES), percentiles(())
        at_s, requests, added = self._minute[0]
        outcomes, _, spent, _ = counted(route)
        before = requests.get(name), added.get(name)
        return (
            self._clock_s() - at_s,
            outcomes if before[0] is None else _less(outcomes, before[0]),
            percentiles(spent if before[1] is None else _less(spent, before[1])),
        )


def counted(route: RouteMetrics) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return a route's counters in the order of a `Sample`."""
    outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    for (code,), n in route.tallies["guard_requests_total"].values.items():
        outcomes[outcome_class(code)] += int(n)
    verdicts: dict[str, int] = dict.fromkeys(VERDICTS, 0)
    for (action, _), n in route.tallies["guard_verdicts_total"].values.items():
        if action in verdicts:  # not `status`, which decides nothing
            verdicts[action] += int(n)
    spreads = route.spreads
    added, upstream = spreads["guard_added_latency_seconds"], spreads["guard_upstream_latency_seconds"]
    return tuple(outcomes.values()), tuple(verdicts.values()), tuple(added.counts), tuple(upstream.counts)


def _less(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(now, before, strict=True))
