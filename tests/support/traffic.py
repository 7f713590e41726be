"""Recorded traffic of simulated clients, for tests of recordings and calibration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from guard.calibrate.read import ClientLog
from guard.detectors.base import Features
from guard.detectors.sketch import Sketch, Sketcher
from guard.model.arrays import Floats
from guard.model.queries import Queries
from guard.telemetry.recorder import Recorder

WIDTH = 6
SKETCH = Sketch(kind="vector", size=WIDTH, salt="5a" * 16)
_SECRET = b"a secret of sixteen bytes or more"


class Asked(NamedTuple):
    """What one client asked and was answered.

    Args:
        client: its name.
        features: of its queries.
        raw: shape (n, WIDTH).
        scores: shape (n, 3).
    """

    client: str
    features: Features
    raw: Floats
    scores: Floats


def honest(number: int, queries: int = 96) -> Asked:
    """Return an honest client: rows around a centre of its own, rounded as people round."""
    rng = np.random.default_rng([1, number])
    rows = np.round(rng.normal(size=WIDTH) + rng.normal(size=(queries, WIDTH)), 2)
    return _asked(f"client-{number}", rows)


def thief(number: int, queries: int = 192) -> Asked:
    """Return a client that searches near points, as HopSkipJump does."""
    rng = np.random.default_rng([2, number])
    points = np.repeat(rng.uniform(-3, 3, (queries // 24, WIDTH)), 24, axis=0)
    return _asked(f"thief-{number}", points + 0.001 * rng.normal(size=points.shape))


def _asked(client: str, rows: Floats) -> Asked:
    sketcher = Sketcher(SKETCH, _SECRET)
    queries = Queries(len(rows), rows.tolist())
    raw = sketcher.raw(queries)
    assert raw is not None
    powers = np.exp(rows[:, :3])
    return Asked(client, sketcher.features(queries), raw, powers / powers.sum(axis=1, keepdims=True))


def log_of(asked: Asked) -> ClientLog:
    """Return a client's log, as it is read from recordings."""
    two = np.sort(asked.scores, axis=1)
    return ClientLog(
        pseudonym=asked.client,
        times=np.arange(len(asked.raw), dtype=np.float64),
        keys=asked.features.keys,
        raw=asked.raw.astype(np.float32),
        margins=two[:, -1] - two[:, -2],
        top=asked.scores.argmax(axis=1),
        scores=asked.scores.astype(np.float32),
    )


def ticking() -> Iterator[int]:
    """Return nanoseconds that go on by one at each look."""
    return count(1_000_000)


def record(directory: Path, clients: list[Asked], route: str = "digits", sketch: Sketch = SKETCH) -> None:
    """Record clients, 32 queries a request."""
    recorder = Recorder(directory, _SECRET, clock_ns=ticking().__next__)
    for asked in clients:
        keys, vectors, scaled = asked.features
        for at in range(0, len(keys), 32):
            part = Features(keys[at : at + 32], None if vectors is None else vectors[at : at + 32], scaled)
            now_s = 1.75e9 + at
            recorder.note(route, sketch, asked.client, now_s, part, asked.raw[at : at + 32], asked.scores[at : at + 32])
    recorder.close()
    assert not recorder.dropped
