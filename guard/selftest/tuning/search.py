"""The staged search: price every choice of defences, attack the affordable ones, tighten budgets only where needed.

1. Price: what honest users pay for each choice of defences, asked through Guard.
2. Probe: one attack on each choice that the utility limits allow; this draws the front of leakage against price.
3. Gates: from the cheapest choice on, run every gated attack with its wrappers; where gates fail, tighten the budget;
   the first choice that holds them all is the answer. Results are cached, so a second search is quick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from guard.policy.gates import Gate
from guard.selftest.measures import stronger
from guard.selftest.results import GateResult, Report, Utility
from guard.selftest.rows import utility_gates
from guard.selftest.tuning.space import Candidate

Objective = Literal["utility", "leakage"]


class Bench(Protocol):
    """Measures candidates."""

    def price(self, candidate: Candidate) -> Sequence[Utility]:
        """Return what honest users pay."""
        ...

    def attack(self, candidate: Candidate, names: Sequence[str]) -> Report:
        """Run attacks with their wrappers, and judge the gates."""
        ...


@dataclass
class Point:
    """A candidate and what is known of it.

    Args:
        candidate: the choice.
        utility: what honest users pay.
        leakage: the probe attack's strongest figure; None when it was not probed.
        gates: what came of the gates; empty when they were not tried.
        holds: every gate holds; None when they were not tried.
    """

    candidate: Candidate
    utility: Sequence[Utility]
    leakage: float | None = None
    gates: Sequence[GateResult] = ()
    holds: bool | None = None

    @property
    def price(self) -> tuple[float, float]:
        """What is kept small: the share of changed labels, then mean L1, of the model that pays most."""
        changed = max((u.top1_changed for u in self.utility), default=0.0)
        return changed, max((u.mean_l1 for u in self.utility), default=0.0)


@dataclass(frozen=True)
class Wanted:
    """What the search is for.

    Args:
        gates: what must hold.
        probe: the attack whose figure stands for leakage.
        metric: that figure.
        objective: `utility`: the least price that holds every gate; `leakage`: the least leakage within the limits.
        max_mean_l1: the price's limit; None for none.
        minutes: how long the search may take.
    """

    gates: Sequence[Gate]
    probe: str
    metric: str
    objective: Objective = "utility"
    max_mean_l1: float | None = None
    minutes: float = 10.0

    def affordable(self, point: Point) -> bool:
        """Say whether a point keeps the utility limits and gates."""
        within = self.max_mean_l1 is None or point.price[1] <= self.max_mean_l1
        return within and all(g.held is not False for g in utility_gates(self.gates, point.utility) if _steady(g))


@dataclass
class Found:
    """What a search came to.

    Args:
        points: everything that was measured.
        best: the answer; None when nothing holds.
        partial: time ran out, or it was interrupted.
    """

    points: list[Point] = field(default_factory=list[Point])
    best: Point | None = None
    partial: bool = False


def search(
    wanted: Wanted,
    choices: Sequence[Candidate],
    bench: Bench,
    say: Callable[[str, int, int], None] = lambda what, done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Search.

    Args:
        wanted: what for.
        choices: every candidate, budgets loosest first.
        bench: measures.
        say: told what is being done, and how far it is: (what, done, total).
        clock: seconds.
    """
    found, ends = Found(), clock() + 60.0 * wanted.minutes
    try:
        _price(found, choices, bench, say)
        affordable = [p for p in sorted(found.points, key=lambda p: p.price) if wanted.affordable(p)]
        _probe(found, affordable, wanted, bench, say, lambda: clock() > ends)
        if wanted.objective == "leakage":
            affordable = _least_leakage(affordable, wanted.metric)
        _gates(found, affordable, choices, wanted, bench, say, lambda: clock() > ends)
    except KeyboardInterrupt:
        found.partial = True
    return found


def _price(found: Found, choices: Sequence[Candidate], bench: Bench, say: Callable[[str, int, int], None]) -> None:
    loose = [c for c in choices if c.allowance is None]
    for i, candidate in enumerate(loose):
        say(f"pricing {candidate}", i, len(loose))
        found.points.append(Point(candidate, bench.price(candidate)))


def _probe(
    found: Found,
    points: Sequence[Point],
    wanted: Wanted,
    bench: Bench,
    say: Callable[[str, int, int], None],
    late: Callable[[], bool],
) -> None:
    for i, point in enumerate(points):
        if late():
            found.partial = True
            return
        say(f"probing {point.candidate}", i, len(points))
        point.leakage = _leakage(bench.attack(point.candidate, [wanted.probe]), wanted.metric)


def _gates(
    found: Found,
    points: Sequence[Point],
    choices: Sequence[Candidate],
    wanted: Wanted,
    bench: Bench,
    say: Callable[[str, int, int], None],
    late: Callable[[], bool],
) -> None:
    """Try points in order, each with tighter and tighter budgets; the first that holds every gate is the best."""
    names = list(dict.fromkeys(str(gate.attack) for gate in wanted.gates if gate.attack))
    for i, point in enumerate(points):
        tried = [c for c in choices if c.defences == point.candidate.defences]
        for candidate in tried:
            if late():
                found.partial = True
                return
            say(f"trying {candidate}", i, len(points))
            here = point
            if candidate.allowance is not None:
                here = Point(candidate, point.utility)
                found.points.append(here)
            report = bench.attack(candidate, list(dict.fromkeys([wanted.probe, *names])))
            here.leakage = _leakage(report, wanted.metric)
            here.gates = [g for g in report.gates if g.subject != "utility"]
            here.holds = all(g.held for g in here.gates)
            if here.holds:
                found.best = here
                return


def _least_leakage(points: Sequence[Point], metric: str) -> list[Point]:
    """Return probed points, the least leakage first; equal ones by price."""
    sign = 1.0 if stronger(metric, 1.0, 0.0) else -1.0
    probed = [p for p in points if p.leakage is not None]
    return sorted(probed, key=lambda p: (sign * (p.leakage or 0.0), p.price))


def _leakage(report: Report, metric: str) -> float | None:
    for row in report.attacks:
        if row.adaptive is not None and row.metric == metric:
            return row.adaptive.value
    return None


def _steady(gate: GateResult) -> bool:
    """Say whether a utility gate judges answers, not the machine's latency of the moment."""
    return not gate.metric.startswith("added_")


def front(points: Sequence[Point], metric: str) -> list[Point]:
    """Return the points that no other beats in both price and leakage, by price."""
    probed = [p for p in points if p.leakage is not None]
    kept: list[Point] = []
    for point in probed:
        if not any(_beats(other, point, metric) for other in probed):
            kept.append(point)
    return sorted(kept, key=lambda p: p.price)


def _beats(other: Point, point: Point, metric: str) -> bool:
    ours, theirs = point.leakage or 0.0, other.leakage or 0.0
    no_worse = other.price <= point.price and not stronger(metric, theirs, ours)
    return no_worse and (other.price < point.price or stronger(metric, ours, theirs))
