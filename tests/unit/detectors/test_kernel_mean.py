from __future__ import annotations

import numpy as np

from guard.detectors.kernel_mean import KernelMean
from tests.support.detecting import WIDTH, honest, learnt, signals


def test_gaussian_queries_move_it_and_honest_ones_do_not() -> None:
    reference = learnt(KernelMean())
    pool = np.concatenate([honest(i) for i in range(20)])
    noise = np.random.default_rng(0).normal(size=(200, WIDTH)) * pool.std(axis=0) + pool.mean(axis=0)
    attack = signals(KernelMean(), noise, reference).mean(axis=0)
    benign = signals(KernelMean(), pool, reference).mean(axis=0)

    assert attack[0] > 2
    assert 0.7 < benign[0] < 1.3
    assert benign[1] < 0.02 < attack[1]
