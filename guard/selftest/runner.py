"""Runs a whole self-test: starts what is attacked, runs the cells side by side, and reports what they found."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from guard.policy.gates import Gate
from guard.policy.schema import Policy, Route
from guard.selftest import processes
from guard.selftest.base import Attack
from guard.selftest.cache import Cache
from guard.selftest.cell import Cell, Done, Way
from guard.selftest.cells import Mode, shadowed, ways, weight
from guard.selftest.pool import Pool, Stopped, failed
from guard.selftest.results import Report, Utility
from guard.selftest.rows import gate_results, make_row, utility_gates
from guard.selftest.transplant import Transplant
from guard.selftest.versions import hardware, versions

Guarded = Callable[[Transplant], contextlib.AbstractContextManager[str]]


class Target(Protocol):
    """What is attacked: the lab, the operator's model, or a Guard that runs already."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the report must know."""
        ...

    def open(self, seed: int) -> contextlib.AbstractContextManager[str]:
        """Start or find the undefended model; yields its URL, empty when there is none to ask."""
        ...

    def applicable(self, attack: Attack) -> str | None:
        """Return why an attack cannot run here, or None."""
        ...

    def transplant(self, attack: Attack, seed: int, *, budgets: bool = True) -> Transplant | None:
        """Return the policy that guards this attack's victim; None where a Guard runs already."""
        ...

    def cell(self, attack: Attack, way: Way, wrapper: str, seed: int, url: str) -> Cell:
        """Return the cell to run, which asks the undefended model at `url`, or the Guard that runs already."""
        ...

    def behind(self, policy: Policy, route: Route) -> Target:
        """Return the same model behind another policy, without looking at it again."""
        ...

    def divide(self, cells: int) -> None:
        """Learn how many cells will ask through Guard, for a target that may only be asked so much."""
        ...

    def utility(self, seed: int, url: str, guarded: Guarded) -> list[Utility]:
        """Measure what honest users pay; empty where nothing can be measured."""
        ...


class Listener(Protocol):
    """Watches a self-test."""

    def planned(self, cells: int) -> None:
        """Tell that so many more cells are to run."""
        ...

    def moved(self, cell: Cell, share: float, what: str) -> None:
        """Tell how far a cell is."""
        ...

    def finished(self, done: Done) -> None:
        """Tell that a cell is done."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a self-test runs.

    Args:
        attacks: which, in order.
        mode: how many wrappers.
        seed: the first.
        seeds: how many.
        workers: cells side by side.
        gates: of the policy.
        guard: how Guard is started.
        remember: take what cells of the lab came to before: `controls`, which depend on no policy, or `all`.
        utility: measure what honest users pay.
        warnings: what a reader of the report must know.
    """

    attacks: Sequence[Attack]
    mode: Mode
    seed: int = 0
    seeds: int = 1
    workers: int = 2
    gates: Sequence[Gate] = ()
    guard: Sequence[str] = processes.GUARD
    remember: Literal["nothing", "controls", "all"] = "nothing"
    utility: bool = True
    warnings: Sequence[str] = ()


@dataclass
class Runner:
    """One self-test.

    Args:
        policy: the operator's, resolved.
        route: the one that is tested.
        digest: of the policy as loaded.
        target: what is attacked.
        settings: how.
        listener: watches.
    """

    policy: Policy
    route: Route
    digest: str
    target: Target
    settings: Settings
    listener: Listener
    pool: Pool = field(default_factory=Pool)
    done: dict[str, list[Done]] = field(default_factory=dict[str, list[Done]])
    utility: list[Utility] = field(default_factory=list[Utility])
    substitutions: dict[str, None] = field(default_factory=dict[str, None])

    def run(self) -> Report:
        """Run everything; an interrupt leaves a report marked partial."""
        began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        settings, partial = self.settings, False
        reasons = {attack.name: self.target.applicable(attack) for attack in settings.attacks}
        running = [attack for attack in settings.attacks if reasons[attack.name] is None]
        try:
            for seed in range(settings.seed, settings.seed + settings.seeds):
                self._seed(seed, running)
        except (KeyboardInterrupt, Stopped):
            partial = True
        rows = [make_row(a, self.done.get(a.name, []), settings.gates, reasons[a.name]) for a in settings.attacks]
        gates = gate_results(rows) + utility_gates(settings.gates, self.utility)
        # On a model that is not the lab's, an attack that fails without Guard does not suit the model: only what
        # somebody asked for by a gate must be resolved.
        unresolved = self.target.name == "lab" and any(row.verdict == "unresolved" for row in rows)
        return Report(
            policy=self.policy.name,
            digest=self.digest,
            target=self.target.name,
            route=self.route.name,
            mode=settings.mode,
            seed=settings.seed,
            seeds=settings.seeds,
            started=started,
            seconds=round(time.monotonic() - began, 1),
            versions=versions(),
            hardware=hardware(),
            substitutions=list(self.substitutions),
            attacks=rows,
            utility=self.utility,
            gates=gates,
            passed=not partial and not unresolved and all(gate.held for gate in gates),
            partial=partial,
            warnings=list(settings.warnings),
        )

    def _seed(self, seed: int, attacks: Sequence[Attack]) -> None:
        with self.target.open(seed) as url:
            if seed == self.settings.seed and self.settings.utility:
                self.utility = self.target.utility(seed, url, lambda made: self._guarded(made, url, seed))
            planned: list[tuple[Attack, Way, str]] = [
                (attack, way, wrapper)
                for attack in attacks
                for way, wrapper in ways(attack, self.settings.mode)
                if url or way == "defended"
            ]
            planned.sort(key=lambda one: weight(one[0].name))
            self.listener.planned(len(planned))
            self.target.divide(sum(way == "defended" for _, way, _ in planned) * self.settings.seeds)
            with ThreadPoolExecutor(self.settings.workers) as threads:
                futures = [threads.submit(self._cell, *one, seed, url) for one in planned]
                try:
                    for future in as_completed(futures):
                        done = future.result()
                        self.done.setdefault(done.cell.attack, []).append(done)
                        self.listener.finished(done)
                except BaseException:
                    # Threads end their Guards by themselves once the pool has stopped.
                    self.pool.stop.set()
                    for future in futures:
                        future.cancel()
                    raise

    def _cell(self, attack: Attack, way: Way, wrapper: str, seed: int, url: str) -> Done:
        """Run a cell, or remember what it came to."""
        cell = self.target.cell(attack, way, wrapper, seed, url)
        made = self.target.transplant(attack, seed) if way == "defended" else None
        if made is not None:
            self.substitutions |= dict.fromkeys(made.substitutions)
        if not self._remembers(way):
            return self._ask(attack, cell, made)
        cache = Cache.of_the_lab()
        done = cache.get(cell, made)
        if done is None:
            done = self._ask(attack, cell, made)
            cache.put(done, made)
        return done

    def _remembers(self, way: Way) -> bool:
        return self.settings.remember == "all" or (self.settings.remember == "controls" and way != "defended")

    def _ask(self, attack: Attack, cell: Cell, made: Transplant | None) -> Done:
        """Start the Guards that a cell needs, run the cell, end the Guards."""
        seed, url = cell.seed, cell.url
        with contextlib.ExitStack() as stack:
            if made is not None:
                clock = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-clock-"))) / "clock"
                try:
                    guarded = stack.enter_context(self._guarded(made, url, seed, "--test-clock", str(clock)))
                    cell = replace(cell, url=guarded, clock=str(clock))
                    if shadowed(attack.name, cell.wrapper):
                        own = self.target.transplant(attack, seed, budgets=False)
                        if own is not None:
                            cell = replace(cell, shadow_url=stack.enter_context(self._guarded(own, url, seed + 1)))
                except processes.NotStarted as error:
                    return failed(cell, str(error), time.monotonic())
            return self.pool.run(cell, self.listener.moved)

    @contextlib.contextmanager
    def _guarded(self, made: Transplant, url: str, seed: int, *options: str) -> Generator[str]:
        # Drawn from the seed, so that the same seed gives the same figures; no attack knows it.
        env = {"GUARD_SECRET": hashlib.sha256(f"self-test {seed}".encode()).hexdigest(), **made.env}
        with tempfile.TemporaryDirectory(prefix="guard-selftest-") as name:
            folder = Path(name)
            policy = str(made.write(folder))
            models = made.models(url)
            with processes.guard(policy, models, folder, *options, command=self.settings.guard, env=env) as (
                guarded,
                _,
            ):
                yield guarded
