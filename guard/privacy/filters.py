"""The filter: what an answer costs in whole units, what a budget holds, and what has been spent in epsilon.

Fully adaptive composition: the client chooses each query, and Guard its noise, after seeing all answers before. A
filter admits an answer only if the sum of all costs, this one's included, stays within a bound fixed beforehand; the
admitted answers together then have the guarantee that the bound stands for. Costs are added as whole units of 1e-12,
rounded up; bounds are rounded down; both stay below 2^53, where a Lua number is exact.

* `gdp`: a unit is 1e-12 of mu^2. Stopping when the sum of mu_i^2 would pass B keeps everything sqrt(B)-GDP (Smith and
  Thakurta, 2022; Koskela, Tobaben and Honkela, 2023). Exact for Gaussian answers.
* `rdp`: a unit is 1e-12 of Renyi divergence at one order. Stopping when the sum at that order would pass B keeps it B
  (Feldman and Zrnic, 2021: the Renyi privacy filter); epsilon follows by Canonne, Kamath and Steinke, 2020,
  proposition 12.

The discrete Gaussian is not the Gaussian. `slack` is what the difference may come to over all answers; `limit` and
`epsilon` of `gdp` take it off, for the greatest number of draws that the units can pay for. An event that is not a fine
Gaussian needs `rdp`, whose bounds hold for discrete noise as it is. docs/privacy.md has the proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, inf
from typing import Literal

from guard.privacy.events import Composed, Event, Gaussian, NonPrivate, NoOp, known
from guard.privacy.gaussian import epsilon_of, mu_of
from guard.privacy.renyi import FINE_STEPS, ORDERS, added, rdp

UNIT = 1e-12
MOST = 2**53 - 1
COLUMNS = 2**16
"""Most numbers that one Gaussian answer of `gdp` may consist of."""
LEAST = 1000
"""Fewest units that `gdp` takes for a Gaussian answer: below, rounding up to whole ones costs more than 0.1%."""
_ROUNDING = 1e-13
"""Relative margin above what a few floating-point operations err by."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a unit means.

    Args:
        kind: `gdp` or `rdp`.
        order: the Renyi order, above 1; 0 for `gdp`.
    """

    kind: Literal["gdp", "rdp"]
    order: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an order that there is not."""
        if not (self.order == 0.0 if self.kind == "gdp" else 1.0 < self.order < inf):
            raise ValueError(f"there is no filter {self.kind} of order {self.order}")

    def __str__(self) -> str:
        return "gdp" if self.kind == "gdp" else f"rdp({self.order!r})"

    def supports(self, event: Event) -> bool:
        """Say whether costs of this event can be added up here."""
        if isinstance(event, Composed):
            return all(self.supports(part) for part in event.parts)
        if self.kind == "rdp" or isinstance(event, NoOp | NonPrivate):
            return known(event)
        return isinstance(event, Gaussian) and event.fine

    def loss(self, event: Event) -> float:
        """Return what one answer costs: mu^2, or the divergence at `order`; infinity for what is not private.

        Raises:
            ValueError: the filter does not support the event.
        """
        if not self.supports(event):
            raise ValueError(f"{self} cannot account for {event}")
        if isinstance(event, Composed):
            return sum(self.loss(part) for part in event.parts)
        if self.kind == "rdp":
            return rdp(event, self.order)
        if isinstance(event, Gaussian):
            return 1.0 / event.noise_multiplier / event.noise_multiplier
        return inf if isinstance(event, NonPrivate) else 0.0

    def cost(self, event: Event) -> int:
        """Return what one answer costs in units, rounded up; `MOST` + 1 for what no budget can pay.

        Raises:
            ValueError: the filter does not support the event.

        >>> Filter("gdp").cost(Gaussian(1000.0)), Filter("gdp").cost(NonPrivate()) > MOST
        (1000001, True)
        """
        if isinstance(event, Composed):
            return min(MOST + 1, sum(self.cost(part) for part in event.parts))
        loss = self.loss(event) * (1.0 + _ROUNDING) / UNIT
        if not loss <= MOST:
            return MOST + 1
        least = 0 if isinstance(event, NoOp) else LEAST if self.kind == "gdp" else 1
        return max(least, ceil(loss))

    def limit(self, epsilon: float, delta: float) -> int:
        """Return how many units (epsilon, delta) allows, rounded down; 0 when it allows none.

        Raises:
            ValueError: epsilon is negative or infinite, or delta is not between 0 and 1.
        """
        if self.kind == "rdp":
            return _units(epsilon - added(self.order, delta))
        most = _units(mu_of(epsilon, delta) ** 2)
        nats, missed = slack(most / LEAST * COLUMNS, most * UNIT)
        left = (delta - missed) * exp(-nats)
        return 0 if epsilon <= nats or left <= 0.0 else min(most, _units(mu_of(epsilon - nats, left) ** 2))

    def epsilon(self, units: int, delta: float) -> float:
        """Return the epsilon at `delta` that `units` stand for, rounded up: the odometer.

        Raises:
            ValueError: delta is not between 0 and 1.
        """
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta {delta} is not between 0 and 1")
        if units <= 0:
            return 0.0
        bound = units * UNIT * (1.0 + _ROUNDING)
        if self.kind == "rdp":
            return max(0.0, bound + added(self.order, delta))
        nats, missed = slack(units / LEAST * COLUMNS, bound)
        left = (delta - missed) * exp(-nats)
        return inf if left <= 0.0 else (epsilon_of(left, bound**0.5) + nats) * (1.0 + _ROUNDING)


def _units(bound: float) -> int:
    return floor(min(float(MOST), max(0.0, bound * (1.0 - _ROUNDING) / UNIT)))


def slack(draws: float, squares: float, steps: float = FINE_STEPS) -> tuple[float, float]:
    """Return (nats, missed): what noise being discrete takes off epsilon, and off delta.

    Answers that would be (epsilon - nats, (delta - missed) / e^nats)-DP under continuous noise are (epsilon, delta)-DP
    under discrete noise. A draw's probability is at most e^(1 / 24 s^2) times that of Gaussian noise rounded to the
    grid, which in turn is at most e^(k^2 / 24 s^4) times that of the draw, k steps from the middle; and all k^2 sum up
    to at most (1.4 draws + 520) s^2, but for e^-130 (docs/privacy.md).

    Args:
        draws: numbers drawn, at most, over all answers.
        squares: the sum of mu^2 over all answers, at most.
        steps: grid steps a sigma, s, at least.

    >>> slack(1e12, 2.0)[0] < 1e-8
    True
    """
    return (4.0 * draws + 1100.0 + 2.0 * squares) / (24.0 * steps * steps), 4e-57


def parse_filter(written: str) -> Filter:
    """Return the filter that `str` wrote.

    Raises:
        ValueError: it is none.

    >>> parse_filter("rdp(8.0)")
    Filter(kind='rdp', order=8.0)
    """
    if written == "gdp":
        return Filter("gdp")
    if written.startswith("rdp(") and written.endswith(")"):
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
    exact = columns <= COLUMNS and all(gdp.supports(event) for event in events)
    if exact and all(map(_dear, events)):
        return gdp  # no order admits more answers than the exact accounting
    filters = [*([gdp] if exact else []), *(Filter("rdp", candidate) for candidate in ORDERS)]

    def answers(used: Filter) -> float:
        dearest = max(map(used.cost, events), default=0)
        return used.limit(epsilon, delta) / dearest if dearest else inf

    return max(filters, key=answers)


def _dear(event: Event) -> bool:
    """Say whether `gdp` takes what an event costs, and not the least that it takes of any."""
    if isinstance(event, Composed):
        return all(map(_dear, event.parts))
    return Filter("gdp").cost(event) > LEAST
