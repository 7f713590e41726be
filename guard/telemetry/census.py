"""What a route's clients look like at the moment of a scrape: distributions and counts, never a client."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from guard.evidence.drift import STALE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

EVIDENCE_BUCKETS: Final = (-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
METER_BUCKETS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Seen(NamedTuple):
    """What the clients of a route look like at one moment.

    Args:
        evidence: log10 of each client's e-value, all signals.
        meters: each information meter's reading, 0 to 1.
        standing: clients by the ladder's action that holds for them.
        drift: how far traffic has moved from the profile (population stability index); None without a profile.
    """

    evidence: Sequence[float] = ()
    meters: Sequence[float] = ()
    standing: Mapping[str, int] = MappingProxyType({})
    drift: float | None = None


class Census:
    """Metrics of a route's clients, worked out at each scrape: distributions, never a client.

    Args:
        route: the first label's value.
    """

    def __init__(self, route: str) -> None:
        self._route = route
        self.look: Callable[[], Seen] | None = None
        self._seen = Seen()
        self.families: list[Collector] = [
            _Ask(self._evidence), _Ask(self._meters), _Ask(self._standing), _Ask(self._drift), _Ask(self._stale)
        ]  # fmt: skip

    def _evidence(self) -> Metric:
        self._seen = Seen() if self.look is None else self.look()
        return self._spread("guard_evidence_log10", "Clients by log10 of their e-value.", EVIDENCE_BUCKETS, 0)

    def _meters(self) -> Metric:
        return self._spread("guard_information_meter", "Principals by their meter's reading.", METER_BUCKETS, 1)

    def _spread(self, name: str, text: str, bounds: tuple[float, ...], which: int) -> Metric:
        values = self._seen.evidence if which == 0 else self._seen.meters
        counts = [0] * (len(bounds) + 1)
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        family = HistogramMetricFamily(name, text, labels=("route",))
        names = [*map(str, bounds), "+Inf"]
        family.add_metric((self._route,), list(zip(names, accumulate(counts), strict=True)), sum(values))
        return family

    def _standing(self) -> Metric:
        text = "Clients for whom an action of the ladder holds."
        family = GaugeMetricFamily("guard_ladder_clients", text, labels=("route", "action"))
        for action, clients in self._seen.standing.items():
            family.add_metric((self._route, action), clients)
        return family

    def _drift(self) -> Metric:
        text = "How far traffic has moved from the profile: population stability index, above 0.25 is stale."
        family = GaugeMetricFamily("guard_profile_drift", text, labels=("route",))
        if self._seen.drift is not None:
            family.add_metric((self._route,), self._seen.drift)
        return family

    def _stale(self) -> Metric:
        family = GaugeMetricFamily("guard_profile_stale", "1 when the profile is stale.", labels=("route",))
        if self._seen.drift is not None:
            family.add_metric((self._route,), float(self._seen.drift > STALE))
        return family


class _Ask(Collector):
    """A family that is worked out when it is asked for."""

    def __init__(self, ask: Callable[[], Metric]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        return (self._ask(),)
