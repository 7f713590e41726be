"""How the evidence against honest clients runs: what conformal thresholds and pools are calibrated on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from guard.calibrate.windows import View
from guard.detectors.base import Margins
from guard.detectors.setup import Setup
from guard.engine.tracker import Tracker
from guard.evidence.pool import CLIP
from guard.evidence.values import WINDOW
from guard.model.arrays import Floats


class Course(NamedTuple):
    """The evidence against one client, looked at after every window.

    Args:
        queries: it asked.
        any: ln e over all signals at each look, shape (looks,); looks are `WINDOW` queries apart.
        structure: over the structure tier, likewise.
        spoke: names of the signals that said most when the structure tier was strongest; none when it never said
            anything.
    """

    queries: int
    any: Floats
    structure: Floats
    spoke: tuple[str, ...]


def course(setup: Setup, client: View) -> Course:
    """Run a client through a tracker, as it would have run in front of the model."""
    tracker = Tracker(setup)
    looks: list[tuple[float, float]] = [(0.0, 0.0)]
    spoke: tuple[str, ...] = ()
    best = 1.0
    n = len(client.features.keys)
    for start in range(0, n, WINDOW):
        part = client.part(start, start + WINDOW)
        tracker.ask(part.features)
        if len(known := part.known()):
            tracker.answer(Margins(known))
        strength = tracker.strength()
        if strength.structure > best:
            best = strength.structure
            spoke = tuple(setup.null.signals[signal].name for signal, _ in tracker.wealth.spoke())
        looks.append((strength.any, strength.structure))
    found = np.array(looks)
    return Course(n, found[:, 0], found[:, 1], spoke)


def horizon(courses: Sequence[Course]) -> int:
    """Return the queries that three in four streams reach; 0 for none."""
    return int(np.quantile([c.queries for c in courses], 0.25)) if courses else 0


def clip_mean(courses: Sequence[Course]) -> float:
    """Return the nu of pools: the mean of min(e, 100) over clients, the greatest over looks that grow geometrically.

    A client's e-value is frozen once it reaches 100, as a pool does; one whose stream has ended keeps its last.
    Whichever tier says more counts, because a pool may hold either.
    """
    most = 1.0
    looks = max((len(c.any) for c in courses), default=1)
    for tier in ("any", "structure"):
        runs = [_frozen(c.any if tier == "any" else c.structure) for c in courses]
        at = 1
        while runs and at < 2 * looks:
            most = max(most, float(np.mean([run[min(at, len(run) - 1)] for run in runs])))
            at *= 2
    return most


def _frozen(logs: Floats) -> Floats:
    values = np.exp(np.minimum(logs, math.log(CLIP)))
    return np.where(np.maximum.accumulate(values) >= CLIP * (1 - 1e-9), CLIP, values)
