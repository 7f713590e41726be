"""The shipped null serves whatever part of the structure tier a route runs."""

from __future__ import annotations

import numpy as np
import pytest

from guard.detectors.shipped import of_signals
from guard.evidence.values import Signal
from tests.support.profiles import MAHALANOBIS, REPEATS, a_null


def test_a_part_of_a_null_is_in_the_order_of_its_signals() -> None:
    null = a_null()
    null.edges[1] += 100
    part = of_signals(null, [MAHALANOBIS, REPEATS])
    assert part.signals == (MAHALANOBIS, REPEATS)
    assert np.array_equal(part.edges, null.edges[::-1])
    assert of_signals(null, [MAHALANOBIS]).prototypes.shape == (1, 3, 8)


def test_a_signal_that_a_null_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing is known of line_walk"):
        of_signals(a_null(), [REPEATS, Signal("line_walk", "line_walk", "structure")])
