"""A profile that a route can run on, for tests that need one and do not care what it says of anybody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from guard.detectors.base import Sample
from guard.detectors.profile import Profile
from guard.detectors.setup import DEFAULT
from guard.detectors.sketch import Sketch, Sketcher
from guard.model.queries import Queries
from tests.support.profiles import a_null, a_profile


def fitted(*leave_out: str, clients: int = 0) -> Profile:
    """Return a profile that detectors can be bound with: learnt of noise, with `clients` held out."""
    sketch = Sketch(size=3)
    sketcher = Sketcher(sketch, bytes(16), np.zeros(3), np.ones(3))
    rng = np.random.default_rng(1)
    asked = [sketcher.features(Queries(60, rng.normal(size=(60, 3)).tolist())) for _ in range(20)]
    sample = Sample(asked, [rng.random(60) for _ in asked], 0)
    on = [detector for detector in DEFAULT if detector.kind not in leave_out]
    sups = np.linspace(0, 5, clients)
    return replace(
        a_profile(),
        sketch=sketch,
        references={detector.kind: detector.learn(sample) for detector in on},
        null=a_null([signal for detector in on for signal in detector.signals()]),
        sups={"any": sups, "structure": sups / 2},
        horizon=900,
    )
