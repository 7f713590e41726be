"""A small profile, and nulls, for tests that need one and do not care what is in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guard.detectors.profile import Profile
from guard.detectors.sketch import Sketch
from guard.evidence.null import Null
from guard.evidence.values import BINS, Signal

REPEATS = Signal("repeats", "repeats", "structure")
MAHALANOBIS = Signal("mahalanobis", "mahalanobis", "distribution")


def a_null(signals: Sequence[Signal] = (REPEATS, MAHALANOBIS), prototypes: int = 3) -> Null:
    """Return a null of as many signals, all alike."""
    s = len(signals)
    shares = np.array([0.5, 0.3, 0.12, 0.05, 0.02, 0.007, 0.002, 0.001])
    bets = np.log(np.stack([shares[::-1], np.full(BINS, 1 / BINS)]))
    return Null(
        tuple(signals),
        np.tile(np.arange(1.0, BINS), (s, 1)),
        np.tile(shares * 20, (s, prototypes, 1)),
        np.full((s, prototypes), -np.log(prototypes)),
        np.tile(bets, (s, 1, 1)),
        np.tile(shares, (s, 1)),
    )


def a_profile(width: int = 3) -> Profile:
    """Return a profile of a vector of so many features."""
    rng = np.random.default_rng(0)
    return Profile(
        name="digits",
        made="2026-11-26T12:00:00Z",
        sketch=Sketch(kind="vector", size=width, salt="ab" * 16),
        mean=rng.normal(size=width),
        scale=np.full(width, 2.0),
        references={"repeats": {}, "mahalanobis": {"whiten": rng.normal(size=(width, width)).astype(np.float32)}},
        null=a_null(),
        sups={"any": np.array([0.5, 1.0, 7.0]), "structure": np.array([0.1, 0.2, 0.3])},
        horizon=640,
        clients=40,
        augmented=20,
        queries=20_000,
        left_out=1,
        clip_mean=1.25,
        held_out=rng.normal(size=(5, width)),
        held_out_top=np.arange(5),
        answers=np.array([[0.25, 0.75], [0.5, 0.5]]),
    )
