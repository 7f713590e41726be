"""The filter: what an answer costs in whole units, what a budget holds, and what has been spent in epsilon.

Fully adaptive composition: the client chooses each query, and Guard its noise, after seeing all answers before. A
filter admits an answer only if the sum of all costs, this one's included, stays within a bound fixed beforehand; the
admitted answers together then have the guarantee that the bound stands for. Costs are added as whole units of 1e-12,
rounded up; bounds are rounded down; both stay below 2^53, where a Lua number is exact.

* `gdp`: a unit is 1e-12 of mu^2. Stopping when the sum of mu_i^2 would pass B keeps everything sqrt(B)-GDP (Smith and
  Thakurta, 2022, theorem 2; Koskela, Tobaben and Honkela, 2023, theorem 8). Exact for Gaussian answers.
* `rdp`: a unit is 1e-12 of Renyi divergence at one order. Stopping when the sum at that order would pass B keeps it
  B (Feldman and Zrnic, 2021, theorem 4.3; Whitehouse et al., 2023, for (epsilon, delta) directly).

The discrete Gaussian is not the Gaussian. With s grid steps a sigma the two differ by at most 1/(8 s^2) in total
variation, a coordinate (docs/privacy.md has the three lines of proof), so `gdp` takes
(1 + e^epsilon) * answers * columns / (8 s^2) off delta first. Where that is more than a thousandth of delta, or an
event is not a fine Gaussian, the filter is `rdp`, whose bound the discrete Gaussian meets exactly (Canonne, Kamath and
Steinke, 2020, theorem 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, inf, log, log1p
from typing import Literal, assert_never

from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, NonPrivate, NoOp, Pure
from guard.privacy.gaussian import epsilon_of, mu_of

UNIT = 1e-12
MOST = 2**53 - 1
FINE_STEPS = 2**32
"""Least grid steps a sigma of a fine discrete Gaussian."""
_SLACK_SHARE = 1e-3
_ROUNDING = 1e-13
"""Relative margin above what a few floating-point operations err by."""
ORDERS: tuple[float, ...] = (
    *(1.0 + i / 10 for i in range(1, 100)),
    *(float(i) for i in range(11, 65)),
    *(float(2**i) for i in range(7, 21)),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a unit means.

    Args:
        kind: `gdp` or `rdp`.
        order: the Renyi order, above 1; 0 for `gdp`.
    """

    kind: Literal["gdp", "rdp"]
    order: float = 0.0

    def __str__(self) -> str:
        return "gdp" if self.kind == "gdp" else f"rdp({self.order!r})"

    def supports(self, event: Event) -> bool:
        """Say whether costs of this event can be added up here."""
        if isinstance(event, Composed):
            return all(self.supports(part) for part in event.parts)
        return (
            self.kind == "rdp" or isinstance(event, NoOp | NonPrivate) or (isinstance(event, Gaussian) and event.fine)
        )

    def loss(self, event: Event) -> float:
        """Return what one answer costs: mu^2, or the divergence at `order`; infinity for what is not private.

        Raises:
            ValueError: `gdp` does not support the event.
        """
        if isinstance(event, Composed):
            return sum(self.loss(part) for part in event.parts)
        if not self.supports(event):
            raise ValueError(f"gdp cannot account for {event}")
        if self.kind == "rdp":
            return rdp(event, self.order)
        if isinstance(event, Gaussian):
            return 1.0 / event.noise_multiplier**2
        return inf if isinstance(event, NonPrivate) else 0.0

    def cost(self, event: Event) -> int:
        """Return what one answer costs in units, rounded up; `MOST` + 1 for what no budget can pay.

        >>> Filter("gdp").cost(Gaussian(1000.0))
        1000001
        """
        loss = self.loss(event) * (1.0 + _ROUNDING) / UNIT
        return MOST + 1 if not loss <= MOST else ceil(loss)

    def limit(self, epsilon: float, delta: float) -> int:
        """Return how many units (epsilon, delta) allows, rounded down; 0 when it allows none."""
        bound = mu_of(epsilon, delta) ** 2 if self.kind == "gdp" else epsilon - _converted(self.order, delta)
        return max(0, min(MOST, floor(bound * (1.0 - _ROUNDING) / UNIT)))

    def epsilon(self, units: int, delta: float) -> float:
        """Return the epsilon at `delta` that `units` stand for, rounded up: the odometer."""
        if units <= 0:
            return 0.0
        bound = units * UNIT * (1.0 + _ROUNDING)
        if self.kind == "gdp":
            return epsilon_of(delta, bound**0.5)
        return max(0.0, bound + _converted(self.order, delta))


def _converted(order: float, delta: float) -> float:
    """Return what Renyi DP of `order` adds to epsilon (Canonne, Kamath and Steinke, 2020, proposition 12)."""
    return log1p(-1.0 / order) - (log(delta) + log(order)) / (order - 1.0)


def parse_filter(written: str) -> Filter:
    """Return the filter that `str` wrote.

    Raises:
        ValueError: it is none.

    >>> parse_filter("rdp(8.0)")
    Filter(kind='rdp', order=8.0)
    """
    if written == "gdp":
        return Filter("gdp")
    if written.startswith("rdp(") and written.endswith(")") and float(written[4:-1]) > 1:
        return Filter("rdp", float(written[4:-1]))
    raise ValueError(f"there is no filter {written}")


def choose(events: Sequence[Event], epsilon: float, delta: float, columns: int, order: float | None = None) -> Filter:
    """Return the filter that admits the most answers, each costing one of `events`, for the dearest of them.

    Args:
        events: what answers of the routes that share the ledger cost.
        epsilon: of the strictest budget.
        delta: of that budget.
        columns: scores a row, at most.
        order: a Renyi order to use in any case; None chooses.
    """
    if order is not None:
        return Filter("rdp", order)
    gdp = Filter("gdp")
    if all(gdp.supports(event) for event in events):
        least = max(1, min(gdp.cost(event) for event in events))
        answers = gdp.limit(epsilon, delta) // least
        if slack(epsilon, answers, columns) <= delta * _SLACK_SHARE:
            return gdp
    renyi = [Filter("rdp", candidate) for candidate in ORDERS]
    return max(renyi, key=lambda f: f.limit(epsilon, delta) / max(1, *(f.cost(event) for event in events)))


def slack(epsilon: float, answers: int, columns: int) -> float:
    """Return what the discrete Gaussian's distance from the Gaussian takes off delta."""
    return (1.0 + exp(min(epsilon, 700.0))) * answers * columns / (8.0 * FINE_STEPS**2)


def rdp(event: Event, order: float) -> float:
    """Return the Renyi divergence of `order` > 1 between neighbours: an upper bound, met for Gaussian and Laplace.

    Sources: Gaussian, Laplace: Mironov, 2017, table II (a Laplace vector's is convex in the shift, so one coordinate
    that takes all of the L1 sensitivity is the worst). Pure: Bun and Steinke, 2016, by randomised response, which every
    epsilon-DP mechanism is a post-processing of (Kairouz, Oh and Viswanath, 2015). Bounded range: Cesar and Rogers,
    2021, theorem 4: epsilon^2/8-CDP.

    >>> round(rdp(Gaussian(10.0), 8.0), 4), round(rdp(Pure(0.1), 8.0), 4), rdp(NonPrivate(), 8.0)
    (0.04, 0.0367, inf)
    """
    match event:
        case Gaussian():
            return order / (2.0 * event.noise_multiplier**2)
        case Laplace():
            return _laplace(1.0 / event.noise_multiplier, order)
        case Pure():
            return _pure(event.epsilon, order)
        case BoundedRange():
            return min(order * event.epsilon**2 / 8.0, _pure(event.epsilon, order))
        case Composed():
            return sum(rdp(part, order) for part in event.parts)
        case NoOp():
            return 0.0
        case NonPrivate():
            return inf
        case _:
            assert_never(event)


def _laplace(epsilon: float, order: float) -> float:
    first = log(order / (2.0 * order - 1.0)) + (order - 1.0) * epsilon
    second = log((order - 1.0) / (2.0 * order - 1.0)) - order * epsilon
    return (first + log1p(exp(second - first))) / (order - 1.0)


def _pure(epsilon: float, order: float) -> float:
    # log of (p^a q^(1-a) + q^a p^(1-a)) with p = e^eps / (1 + e^eps), q = 1 - p.
    total = (order - 1.0) * epsilon - log1p(exp(-epsilon)) + log1p(exp(-(2.0 * order - 1.0) * epsilon))
    return max(0.0, min(epsilon, total / (order - 1.0)))
