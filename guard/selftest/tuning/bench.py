"""Measures candidates with the self-test's own runner; results are remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from guard.policy.compile import digest
from guard.policy.schema import Policy, Route
from guard.selftest.attacks.registry import attack_named
from guard.selftest.lab.registry import victim
from guard.selftest.lab.target import Lab
from guard.selftest.results import Report, Utility
from guard.selftest.runner import Listener, Runner, Settings, Target
from guard.selftest.targets.own import OwnModel
from guard.selftest.targets.world import prepared_rows
from guard.selftest.tuning.space import Candidate


@dataclass
class RunnerBench:
    """Runs candidates against one target.

    Args:
        policy: the operator's.
        route: the one that is tuned.
        target: the model; each candidate stands in front of it in turn.
        seed: of every draw.
        workers: cells side by side.
        listener: watches.
    """

    policy: Policy
    route: Route
    target: Target
    seed: int
    workers: int
    listener: Listener
    seen: dict[tuple[str, tuple[str, ...]], Report] = field(default_factory=dict[tuple[str, tuple[str, ...]], Report])

    def price(self, candidate: Candidate) -> Sequence[Utility]:
        """Return what honest users pay."""
        return self._run(candidate, (), utility=True).utility

    def attack(self, candidate: Candidate, names: Sequence[str]) -> Report:
        """Run attacks with their wrappers, and judge the gates."""
        return self._run(candidate, tuple(names), utility=False)

    def _run(self, candidate: Candidate, names: tuple[str, ...], *, utility: bool) -> Report:
        known = self.seen.get((str(candidate), names))
        if known is not None:
            return known
        policy = candidate.applied(self.policy, self.route)
        route = next(r for r in policy.routes if r.name == self.route.name)
        gates = [gate for gate in policy.selftest.gates if gate.utility is None]
        settings = Settings(
            [attack_named(name) for name in names],
            "default",
            self.seed,
            workers=self.workers,
            gates=gates,
            remember="all",
            utility=utility,
        )
        runner = Runner(policy, route, digest(policy), self.target.behind(policy, route), settings, self.listener)
        report = runner.run()
        if report.partial:
            raise KeyboardInterrupt
        self.seen[str(candidate), names] = report
        return report


def spread_of(target: Target, route: Route, seed: int) -> float | None:
    """Return the interquartile range of the values that a target's model answers, by labels; None where unknown.

    Args:
        target: the model.
        route: in front of it.
        seed: of the lab's split.
    """
    if isinstance(target, Lab):
        y = victim("diabetes", seed).knows.own_y if route.outputs.kind == "value" else None
    elif isinstance(target, OwnModel) and target.spec.layout.classes == 1:
        y = prepared_rows(target.spec, 0).knows.own_y
    else:
        y = None
    return None if y is None else float(np.subtract(*np.percentile(y, [75, 25])))


class Silent(contextlib.nullcontext[None]):
    """A listener that says nothing."""

    def planned(self, cells: int) -> None:
        """Ignore it."""

    def moved(self, cell: object, share: float, what: str) -> None:
        """Ignore it."""

    def finished(self, done: object) -> None:
        """Ignore it."""
