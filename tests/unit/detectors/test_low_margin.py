from __future__ import annotations

import numpy as np
import pytest

from guard.detectors.base import Sample
from guard.detectors.low_margin import LowMargin
from tests.support.detecting import answered, honest_margins, sample


def test_answers_at_the_boundary_move_it_and_honest_ones_do_not() -> None:
    attack = answered(LowMargin(), np.random.default_rng(0).uniform(0, 0.02, size=100)).mean(axis=0)
    benign = answered(LowMargin(), np.concatenate([honest_margins(i) for i in range(20)])).mean(axis=0)

    assert attack[0] > 6
    assert attack[1] == 1
    assert 0.8 < benign[0] < 1.2
    assert benign[1] < 0.02


def test_an_unknown_margin_says_nothing() -> None:
    assert answered(LowMargin(), np.array([np.nan])).tolist() == [[0.0, 0.0]]


def test_nothing_is_learnt_where_scores_are_not_known() -> None:
    with pytest.raises(ValueError, match="no client has answers"):
        LowMargin().learn(Sample(sample(2).features, [None, np.zeros(0)], 0))
