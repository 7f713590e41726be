"""One cell of a self-test: one attack, one target, one way in. It runs in a process of its own and is plain data."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from guard.selftest.api import HttpApi, LimitReached, OpenInference, Unreachable
from guard.selftest.attacks.floors import zero_query
from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import Attack, Outcome, Refused, Rows, Tally, Unresolved, World
from guard.selftest.lab.judge import LabJudge
from guard.selftest.lab.registry import victim
from guard.selftest.lab.shards import Aggregate, ensemble
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from guard.selftest.targets.spec import TargetError, TargetSpec
from guard.selftest.targets.world import outside_world
from guard.selftest.texts import HttpTexts
from guard.selftest.transplant import KEY_HEADER, key
from guard.selftest.wrappers import WRAPPERS

Way = Literal["undefended", "defended", "zero_query", "label_only"]
DAY_S = 86_400.0
SHADOW_BATCH = 128
"""Nobody counts what attackers ask of their own deployments, so they ask in larger batches."""


@dataclass(frozen=True)
class Cell:
    """What a worker is told.

    Args:
        attack: its name.
        way: the model itself, through Guard, or a floor.
        wrapper: what the attacker does beyond it; empty for the published attack.
        seed: of every random draw.
        model: the model's name as its server knows it.
        url: what is attacked.
        shadow_url: where the attacker's own deployments are asked.
        clock: file of Guard's test clock, or None.
        changes: parameters other than the attack's own.
        target: the model when it is not the lab's.
        shards: how many lab models are attacked, and judged, as an ensemble; 0 for a single one.
        aggregate: how their answers become one.
    """

    attack: str
    way: Way
    wrapper: str
    seed: int
    model: str
    url: str
    shadow_url: str = ""
    clock: str | None = None
    changes: dict[str, object] = field(default_factory=dict[str, object])
    target: TargetSpec | None = None
    shards: int = 0
    aggregate: Aggregate = "mean"


@dataclass(frozen=True)
class Done:
    """What a worker returns.

    Args:
        cell: the cell.
        outcome: what came of it; None when unresolved.
        reason: why it is unresolved.
        tally: what the first account's answers were.
        seconds: how long it took.
        broken: the attack itself failed (a bug, a lost process, too long), which says nothing of the defence.
    """

    cell: Cell
    outcome: Outcome | None
    reason: str
    tally: Tally
    seconds: float
    broken: bool = False


def run_cell(cell: Cell, progress: Callable[[float, str], None] = lambda share, what: None) -> Done:
    """Run one cell; never raises for what an API or a model does."""
    began, tally = time.monotonic(), Tally()
    attack: Attack = attack_named(cell.attack, cell.changes)
    outcome, reason = None, ""
    try:
        world = world_of(cell, tally, progress)
        outcome = zero_query(world) if cell.way == "zero_query" else attack.run(world)
    except Unresolved as error:
        reason = str(error)
    except LimitReached:
        reason = "the stated query limit left this attack nothing to ask"
    except Refused as error:
        reason = f"the API refused before the attack had anything to work with ({error})"
    except (Unreachable, TargetError) as error:
        reason = str(error)
    return Done(cell, outcome, reason, tally, time.monotonic() - began)


def world_of(cell: Cell, tally: Tally, progress: Callable[[float, str], None]) -> World:
    """Build the world of a cell, wrapped as it says."""
    if cell.target is None:
        world = lab_world(cell, tally, progress)
    else:
        world = outside_world(cell, cell.target, tally, progress, _pace(cell))
    if cell.way == "label_only":
        world = WRAPPERS["labels"](world)
    return WRAPPERS[cell.wrapper](world) if cell.wrapper else world


def lab_world(cell: Cell, tally: Tally, progress: Callable[[float, str], None]) -> World:
    """Build the world of a lab cell."""
    model = _behind(cell, cell.model)
    dialect, classes = OpenInference(cell.model), model.knows.classes

    def account(number: int) -> HttpApi:
        # Every account counts for itself; the first one's count is the cell's.
        headers = {KEY_HEADER: key(number)}
        counted = tally if number == 0 else Tally()
        return HttpApi(cell.url, dialect, classes, headers=headers, account=str(number), tally=counted)

    def texts(number: int) -> HttpTexts:
        counted = tally if number == 0 else Tally()
        return HttpTexts(cell.url, cell.model, headers={KEY_HEADER: key(number)}, account=str(number), tally=counted)

    def clean(name: str) -> Callable[[Rows], Floats]:
        return _behind(cell, name).predict

    def shadow(name: str) -> HttpApi:
        if cell.shards:
            clean(name)  # trained here, and cached, so that the server answers at once
        headers = {KEY_HEADER: key(0)}
        url = cell.shadow_url or cell.url
        return HttpApi(url, OpenInference(name), classes, headers=headers, batch=SHADOW_BATCH)

    speaks = None if model.language is None else texts
    return World(
        account(0),
        model.knows,
        LabJudge(model),
        cell.seed,
        account,
        shadow,
        progress,
        _pace(cell),
        account,
        clean,
        speaks,
    )


def _behind(cell: Cell, name: str) -> Victim:
    """Return the lab model, or the ensemble, that stands behind what a cell attacks."""
    if not cell.shards:
        return victim(name, cell.seed)
    return ensemble(name, cell.seed, cell.shards, cell.aggregate)


def _pace(cell: Cell) -> Callable[[], None] | None:
    """Return what lets a day go by, where the cell's Guard has a clock of its own."""
    return None if cell.clock is None else lambda: turn_clock(Path(str(cell.clock)), DAY_S)


def turn_clock(path: Path, seconds: float) -> None:
    """Move a Guard's test clock forward."""
    now = float(path.read_text() or "0") if path.exists() else 0.0
    half = path.with_suffix(f".{os.getpid()}")
    half.write_text(repr(now + seconds))
    half.replace(path)


def start_worker() -> None:
    """Set up a worker: a terminal's Ctrl-C is the parent's to handle; one thread of linear algebra."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"
