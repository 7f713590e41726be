from __future__ import annotations

import numpy as np

from guard.detectors.off_past import OffPast
from tests.support.detecting import honest, learnt, signals


def test_a_client_who_asks_elsewhere_than_before_moves_it_and_honest_ones_do_not() -> None:
    reference = learnt(OffPast())
    rows = honest(1)
    turned = np.concatenate([rows[:200], rows[:100] + 2.0])
    after = signals(OffPast(), turned, reference)[200:].mean()
    benign = np.mean([signals(OffPast(), honest(i), reference)[60:].mean() for i in range(20)])

    assert after > 2.5
    assert 0.6 < benign < 1.5


def test_a_new_client_is_held_against_everybodys_mean() -> None:
    reference = learnt(OffPast())
    first = signals(OffPast(), np.full((1, 8), 9.0), reference)

    assert first[0, 0] > 5
