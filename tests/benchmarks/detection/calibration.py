"""A profile of simulated clients, made by what `guard calibrate` runs, from logs as `guard serve --record` would leave.

Only the files in between are left out: recordings of a thousand clients would be written to be read again.
"""

from __future__ import annotations

import numpy as np

from guard.calibrate.findings import Findings, Settings
from guard.calibrate.fit import make_profile
from guard.calibrate.read import ClientLog
from guard.detectors.profile import Profile
from guard.detectors.sketch import Sketcher
from tests.benchmarks.detection.watching import SALT, margins
from tests.benchmarks.detection.worlds import Rows, World

KEPT = 400


def log(world: World, sketcher: Sketcher, rows: Rows, name: int) -> ClientLog:
    """Return one client's log."""
    asked = world.queries(rows)
    answers = world.predict(rows)
    raw = sketcher.raw(asked)
    return ClientLog(
        pseudonym=f"{name:016x}",
        times=np.arange(len(rows), dtype=np.float64) + 100_000.0 * name,
        keys=sketcher.features(asked).keys,
        raw=None if raw is None else raw.astype(np.float32),
        margins=margins(answers.astype(np.float32).astype(np.float64)),
        top=answers.argmax(axis=1),
        scores=answers[:: max(1, len(rows) // 20)].astype(np.float32),
    )


def calibrate(world: World, seed: list[int], number: int) -> tuple[Profile, Findings, list[Rows]]:
    """Make a profile from `number` honest clients; return it, what was found, and some clients' queries."""
    sketcher = Sketcher(world.sketch, SALT)
    logs: list[ClientLog] = []
    kept: list[Rows] = []
    for i in range(number):
        rows = world.honest(np.random.default_rng([*seed, i])).rows
        logs.append(log(world, sketcher, rows, i))
        if i < KEPT:
            kept.append(rows)
    settings = Settings(seed=seed[0], poisoned="keep")
    profile, findings = make_profile(world.name, world.sketch, logs, settings)
    return profile, findings, kept
