"""Gamma functions and the table of terms."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest

from guard.evidence.gamma import MOST, evidence, log_gamma, rising
from guard.evidence.values import BINS
from guard.evidence.wealth import log_evidence
from tests.support import profiles
from tests.support.nulls import a_null, exact_log_e


def test_log_gamma_is_the_one_of_the_standard_library() -> None:
    x = np.concatenate([np.geomspace(1e-6, 1e6, 4001), np.arange(1, 600) / 2.0])
    exact = np.array([math.lgamma(value) for value in x])
    assert np.all(np.abs(log_gamma(x) - exact) <= 1e-9 + 1e-14 * np.abs(exact))


def test_rising_is_exactly_zero_for_no_counts() -> None:
    assert rising(np.array([1e-3, 0.3, 40.0]), np.zeros(3)).tolist() == [0.0, 0.0, 0.0]
    assert rising(np.array([2.0]), np.array([3.0]))[0] == pytest.approx(math.log(2 * 3 * 4), abs=1e-12)


@pytest.mark.parametrize("total", [0, 1, 7, 300, MOST, MOST + 1, 5 * MOST, 1_000_000])
def test_looked_up_and_worked_out_terms_give_the_evidence_of_the_formula(total: int) -> None:
    null = a_null(7, 5)
    fresh = np.random.default_rng(total)
    counts = np.zeros((3, 7, BINS), dtype=np.int64)
    for s in range(7):
        used = int(null.terms.used[s])
        counts[:, s, :used] = fresh.multinomial(total, null.prototypes[s, 0, :used] / null.terms.pseudo[s, BINS, 0], 3)
    found = evidence(null.terms, counts)
    for k in range(3):
        for s in range(7):
            exact = exact_log_e(null, s, counts[k, s].tolist())
            assert found[k, s] == pytest.approx(exact, abs=1e-4)
            assert log_evidence(null, counts)[k, s] == pytest.approx(exact, abs=1e-8, rel=1e-9)


def test_a_prototype_without_weight_changes_nothing() -> None:
    null = a_null(3, 4)
    null.log_weights[:, 3] = -np.inf
    padded = type(null)(null.signals, null.edges, null.prototypes, null.log_weights, null.log_bets, null.mean)
    counts = np.full((1, 3, BINS), 5, dtype=np.int64)
    counts[0, 1, 7:] = counts[0, 2, 6:] = 0
    for s in range(3):
        short = exact_log_e(
            type(null)(
                null.signals,
                null.edges,
                null.prototypes[:, :3],
                null.log_weights[:, :3],
                null.log_bets,
                null.mean,
            ),
            s,
            counts[0, s].tolist(),
        )
        assert evidence(padded.terms, counts)[0, s] == pytest.approx(short, abs=1e-4)


def test_nulls_that_are_alike_share_a_table_as_long_as_one_of_them_is_there() -> None:
    one, other = (profiles.a_null() for _ in range(2))
    assert one.terms is other.terms
    assert profiles.a_null(prototypes=4).terms is not one.terms
    gone = weakref.ref(one.terms)
    del one, other
    gc.collect()
    assert gone() is None
