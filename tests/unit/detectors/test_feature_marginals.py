from __future__ import annotations

import numpy as np
import pytest

from guard.detectors.base import Sample
from guard.detectors.feature_marginals import FeatureMarginals
from tests.support.detecting import SALT, WIDTH, features, honest, learnt, signals


def test_uniform_queries_move_it_and_honest_ones_do_not() -> None:
    uniform = np.random.default_rng(0).uniform(-4, 4, size=(200, WIDTH))
    benign = signals(FeatureMarginals(), np.concatenate([honest(i) for i in range(20)])).mean(axis=0)
    attack = signals(FeatureMarginals(), uniform).mean(axis=0)

    assert attack[0] > 4
    assert attack[1] > 0.25
    assert 0.7 < benign[0] < 1.4
    assert benign[1] < 0.02


def test_a_constant_feature_is_no_surprise_until_it_changes() -> None:
    clients = [honest(i) for i in range(40)]
    for rows in clients:
        rows[:, 3] = 0.1234
    reference = FeatureMarginals().learn(Sample([features(rows) for rows in clients], [None] * 40, 0))
    same, other = honest(1), honest(1)
    same[:, 3], other[:, 3] = 0.1234, 0.1334

    assert signals(FeatureMarginals(), same, reference)[:, 1].mean() < 0.05
    assert signals(FeatureMarginals(), other, reference)[:, 0].mean() > 3


def test_a_reference_of_another_width_is_refused() -> None:
    reference = learnt(FeatureMarginals())
    with pytest.raises(ValueError, match=r"low has shape \(8,\), and must have \(9,\)"):
        FeatureMarginals().bind(reference, WIDTH + 1, SALT)
    with pytest.raises(ValueError, match="low must be below high"):
        FeatureMarginals().bind({**reference, "high": reference["low"]}, WIDTH, SALT)
    with pytest.raises(ValueError, match="has no low"):
        FeatureMarginals().bind({}, WIDTH, SALT)
