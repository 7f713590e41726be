from __future__ import annotations

import numpy as np

from guard.detectors.mahalanobis import Mahalanobis
from tests.support.detecting import WIDTH, honest, signals


def test_broken_correlations_move_it_and_honest_queries_do_not() -> None:
    rng = np.random.default_rng(0)
    pool = np.concatenate([honest(i) for i in range(20)])
    marginals = np.stack([column[rng.permutation(len(column))[:200]] for column in pool.T], axis=1)

    assert signals(Mahalanobis(), marginals).mean() > 3
    assert 0.7 < signals(Mahalanobis(), pool).mean() < 1.3


def test_queries_at_the_mean_are_not_seen() -> None:
    mean = np.concatenate([honest(i) for i in range(20)]).mean(axis=0)

    assert signals(Mahalanobis(), np.tile(mean, (50, 1))).mean() < 0.2
    assert mean.shape == (WIDTH,)
