"""Thresholds, and what may be said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guard.evidence.levels import level


def test_without_held_out_clients_a_level_is_nominal() -> None:
    found = level(0.001, np.zeros(0), 0)
    assert (found.threshold, found.clients, str(found)) == (math.log(1000), 0, "nominal(0.001): no profile")


def test_a_level_needs_one_over_alpha_less_one_clients() -> None:
    assert level(0.01, np.zeros(98), 500).why == "98 held-out clients, 99 are needed"
    assert str(level(0.01, np.zeros(99), 500)) == "calibrated(0.01, 99 clients, 500 queries)"
    assert level(0.001, np.zeros(998), 500).clients == 0
    assert level(0.001, np.zeros(999), 500).clients == 999


@pytest.mark.parametrize(("n", "above"), [(99, 1), (198, 1), (199, 2), (299, 3), (2000, 20)])
def test_at_most_a_share_alpha_of_exchangeable_clients_reaches_the_threshold(n: int, above: int) -> None:
    sups = np.random.default_rng(n).permutation(np.arange(n) + 100.0)
    threshold = level(0.01, sups, 1).threshold
    assert (sups >= threshold).sum() == above - 1


def test_a_client_that_ties_with_the_order_statistic_does_not_reach_it() -> None:
    threshold = level(0.01, np.full(500, 9.0), 1).threshold
    assert threshold > 9.0
    assert threshold == pytest.approx(9.0)


def test_a_calibrated_threshold_is_never_below_the_nominal_one() -> None:
    assert level(0.01, np.zeros(5000), 1).threshold == -math.log(0.01)


def test_other_detectors_than_the_profile_s_make_it_nominal() -> None:
    found = level(0.01, np.full(5000, 50.0), 1, why="repeats is off")
    assert (found.threshold, str(found)) == (-math.log(0.01), "nominal(0.01): repeats is off")


def test_evidence_that_is_not_a_number_counts_as_the_greatest() -> None:
    assert level(0.01, np.append(np.zeros(98), np.nan), 1).threshold == math.inf


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_a_level_is_between_0_and_1(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        level(alpha, np.zeros(5), 1)


def test_a_stricter_level_is_never_easier_to_reach() -> None:
    sups = np.array([*np.linspace(-1, 3, 139), 29.7])
    found = [level(alpha, sups, 300).threshold for alpha in (0.1, 0.01, 0.001, 0.0001)]
    assert found == sorted(found)
    assert level(0.001, sups, 300).why
    assert level(0.001, sups, 300).threshold > 29.7
