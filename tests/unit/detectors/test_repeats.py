from __future__ import annotations

import numpy as np

from guard.detectors.repeats import Repeats
from tests.support.detecting import honest, signals


def test_averaging_moves_it_and_honest_queries_do_not() -> None:
    attack = np.repeat(honest(1)[:1], 100, axis=0)

    assert signals(Repeats(), attack).mean() == 0.99
    assert signals(Repeats(), honest(2)).mean() < 0.01


def test_a_jitter_of_one_in_a_million_hides_no_repeat() -> None:
    base = honest(1)[:1]
    attack = base * (1 + np.random.default_rng(0).normal(size=(500, 8)) * 1e-6)

    assert signals(Repeats(), attack).mean() > 0.98


def test_a_visible_jitter_hides_a_repeat() -> None:
    attack = honest(1)[:1] + np.random.default_rng(0).normal(size=(500, 8)) * 0.1

    assert signals(Repeats(), attack).mean() < 0.05


def test_a_repeat_beyond_the_horizon_is_forgotten() -> None:
    rows = np.arange(514 * 3.0).reshape(514, 3)
    rows[:, 0] = np.arange(514) % 100
    rows[:, 1] = np.arange(514) // 100
    rows[:, 2] = 1
    near, far = rows[:513].copy(), rows.copy()
    near[512], far[513] = near[0], far[0]

    assert signals(Repeats(), near)[-1] == 1
    assert signals(Repeats(), far)[-1] == 0
