"""Guard's own detection, run over whole streams: what a replica that sees all of a client's queries would hold."""

from __future__ import annotations

import numpy as np

from guard.detectors import DETECTORS
from guard.detectors.base import Features, Margins
from guard.detectors.profile import Profile
from guard.detectors.setup import Setup, make_setup
from guard.engine.tracker import Tracker
from guard.evidence.levels import level
from guard.evidence.values import WINDOW
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from tests.benchmarks.detection.worlds import Rows, World

ANY, STRUCTURE = 0, 1
TIERS = ("any", "structure")
ALPHAS = (1e-2, 1e-3)
SALT = b"benchmarks of detection"


def margins(answers: Floats) -> Floats:
    """Return top score less the second, shape (n,)."""
    two = np.partition(answers, -2, axis=1)
    return two[:, -1] - two[:, -2]


class Watch:
    """A route's detection.

    Args:
        world: what is asked.
        profile: or None: the shipped null.
        inputs: the declared domain of queries, or None.
    """

    def __init__(self, world: World, profile: Profile | None, inputs: Inputs | None = None) -> None:
        self._world = world
        specs = tuple(made(kind=kind) for kind, made in DETECTORS.items())
        self.setup: Setup = make_setup(specs, profile, inputs, SALT)
        self.thresholds = np.log(1 / np.array([ALPHAS, ALPHAS]))
        """ln e that alarms, shape (tiers, alphas)."""
        self.levels: dict[str, str] = {}
        if profile is not None:
            for t, tier in enumerate(TIERS):
                for a, alpha in enumerate(ALPHAS):
                    found = level(alpha, profile.sups[tier], profile.horizon)
                    self.thresholds[t, a] = found.threshold
                    self.levels[f"{tier} {alpha:g}"] = f"{found}, threshold {found.threshold:.2f}"

    def evidence(self, rows: Rows) -> Floats:
        """Return a client's ln e after each window.

        Args:
            rows: its n queries.

        Returns:
            Shape (n // 16, 2): over all signals, and over the structure tier's.
        """
        features = self.setup.sketcher.features(self._world.queries(rows))
        margin = margins(self._world.predict(rows))
        tracker = Tracker(self.setup)
        found = np.empty((len(rows) // WINDOW, 2))
        for i in range(len(found)):
            part = slice(i * WINDOW, (i + 1) * WINDOW)
            vectors = None if features.vectors is None else features.vectors[part]
            tracker.ask(Features(features.keys[part], vectors, features.scaled))
            tracker.answer(Margins(margin[part]))
            found[i] = tracker.strength()
        return found

    def first(self, evidence: Floats, tier: int, alpha: int, start: int = 0) -> int | None:
        """Return after how many queries from window `start` on an alarm is raised; None for never."""
        over = evidence[start:, tier] >= self.thresholds[tier, alpha]
        return (int(over.argmax()) + 1) * WINDOW if over.any() else None
