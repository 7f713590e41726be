"""Drift is seen where many clients' distributions move, and not where a few, or the structure tier's, do."""

from __future__ import annotations

import numpy as np

from guard.evidence.drift import STALE, drift
from guard.evidence.values import BINS, Signal
from guard.model.arrays import Ints
from tests.support.profiles import MAHALANOBIS, REPEATS

MEAN = np.array([0.5, 0.3, 0.12, 0.05, 0.02, 0.007, 0.002, 0.001])


def clients(shares: list[float], many: int, signals: int = 1, windows: int = 40) -> list[Ints]:
    rng = np.random.default_rng(0)
    return [rng.multinomial(windows, shares, size=signals) for _ in range(many)]


SAME = MEAN.tolist()
MOVED = [0.2, 0.25, 0.2, 0.15, 0.1, 0.05, 0.03, 0.02]


def of(signal: Signal, counts: list[Ints]) -> float:
    return drift([signal], MEAN[None], counts)


def test_traffic_like_the_profiles_has_not_drifted() -> None:
    assert of(MAHALANOBIS, clients(SAME, 200)) < 0.02


def test_traffic_that_moved_is_stale() -> None:
    assert of(MAHALANOBIS, clients(MOVED, 200)) > STALE


def test_the_worst_signal_counts() -> None:
    two = [np.concatenate(pair) for pair in zip(clients(SAME, 100), clients(MOVED, 100), strict=True)]
    other = Signal("kernel_mean", "kernel_mean", "distribution")
    assert drift([MAHALANOBIS, other], np.stack([MEAN, MEAN]), two) > STALE


def test_one_client_of_many_windows_weighs_as_one() -> None:
    busy = clients(MOVED, 1, windows=100_000)
    assert of(MAHALANOBIS, [*clients(SAME, 200), *busy]) < 0.05


def test_the_structure_tier_is_not_looked_at() -> None:
    assert of(REPEATS, clients(MOVED, 200)) == 0.0


def test_few_clients_say_nothing() -> None:
    assert of(MAHALANOBIS, clients(MOVED, 19)) == 0.0
    assert of(MAHALANOBIS, []) == 0.0
    idle = [np.zeros((1, BINS), dtype=np.int64)] * 50
    assert of(MAHALANOBIS, [*clients(MOVED, 19), *idle]) == 0.0


def test_clients_of_few_windows_are_no_drift() -> None:
    # One window a client: each is far from the mean by itself.
    assert of(MAHALANOBIS, clients(SAME, 200, windows=1)) < 0.05
