from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.detectors.base import Margins
from guard.detectors.setup import DEFAULT, Setup, make_setup
from guard.engine.tracker import Tracker, bins_of
from guard.evidence.values import BINS, BUCKET, KEPT, WINDOW, Strength, unfield
from guard.model.arrays import Floats
from tests.support.detecting import SALT, WIDTH, features, honest, honest_margins, profile


@cache
def setup() -> Setup:
    return make_setup(DEFAULT, profile(), None, SALT)


def run(rows: Floats, cuts: Sequence[int] = ()) -> Tracker:
    """Fold queries in requests that end at these rows."""
    tracker = Tracker(setup())
    ends = sorted({0, *cuts, len(rows)})
    for start, end in pairwise(ends):
        tracker.ask(features(rows[start:end]))
    return tracker


def attack(n: int = 160) -> Floats:
    """Queries spread over the whole domain and then walks along a line."""
    return np.random.default_rng(0).uniform(-4, 4, size=(n, WIDTH))


@given(st.lists(st.integers(0, 300), max_size=12))
def test_the_same_queries_are_counted_alike_however_they_are_cut_into_requests(cuts: list[int]) -> None:
    rows = np.concatenate([honest(1, 100), honest(1, 40), attack()])

    assert run(rows, cuts).pending == one_by_one()


@cache
def one_by_one() -> Mapping[int, int]:
    rows = np.concatenate([honest(1, 100), honest(1, 40), attack()])
    return run(rows, range(len(rows))).pending


def test_an_attack_leaves_evidence_and_honest_queries_do_not() -> None:
    bad = run(attack()).strength()
    good = [run(honest(i)).strength() for i in range(10)]

    assert bad.any > np.log(1000)
    assert max(strength.any for strength in good) < np.log(100)
    assert max(strength.structure for strength in good) < np.log(100)


def test_averaging_is_evidence_of_structure() -> None:
    assert run(np.repeat(honest(1)[:1], 160, axis=0)).strength().structure > np.log(1000)


def test_every_window_counts_once_for_each_signal() -> None:
    tracker = run(honest(1, 5 * WINDOW + 3))
    counted = Counter[int]()
    for number, times in tracker.pending.items():
        counted[unfield(number)[1]] += times

    assert counted == dict.fromkeys(range(setup().query_signals), 5)
    assert dict(tracker.wealth.counts()) == tracker.pending


def test_queries_before_the_first_window_leave_nothing_pending() -> None:
    tracker = run(honest(1, WINDOW - 1))

    assert tracker.pending == {}
    assert tracker.strength() == Strength()


def test_answers_have_windows_of_their_own() -> None:
    tracker = Tracker(setup())
    margins = honest_margins(1, 40)
    for start, end in ((0, 1), (1, 15), (15, 17), (17, 40)):
        tracker.answer(Margins(margins[start:end]))
    tracker.answer(Margins(np.zeros(0)))
    whole = Tracker(setup())
    whole.answer(Margins(margins))
    signals = {unfield(number)[1] for number in tracker.pending}

    assert sum(tracker.pending.values()) == 2 * (len(setup().null.signals) - setup().query_signals)
    assert signals == set(range(setup().query_signals, len(setup().null.signals)))
    assert tracker.pending == whole.pending


def test_answers_at_the_boundary_are_evidence() -> None:
    tracker = Tracker(setup())
    tracker.ask(features(honest(1, 320)))
    before = tracker.strength()
    tracker.answer(Margins(np.full(320, 1e-4)))

    assert tracker.strength().any > before.any + 1
    assert tracker.strength().structure == before.structure


def test_what_other_replicas_counted_adds_up() -> None:
    rows = attack(4 * WINDOW)
    one, two, both = run(rows[: 2 * WINDOW]), run(rows[2 * WINDOW :]), run(rows)
    one.merge(two.pending)
    one.merge({})

    assert one.wealth.counts()
    assert sum(one.wealth.counts().values()) == sum(both.wealth.counts().values())
    assert one.strength().any == pytest.approx(both.strength().any, abs=3)
    assert sum(one.pending.values()) == 2 * setup().query_signals, "what came from others is not sent again"


def test_an_exception_leaves_signals_out() -> None:
    tracker = run(np.repeat(honest(1)[:1], 160, axis=0))
    structure = frozenset(i for i, signal in enumerate(setup().null.signals) if signal.tier == "structure")

    assert tracker.strength(structure).structure == 0
    assert tracker.strength().structure > 5


def test_what_waits_for_the_state_is_bounded_however_long_it_is_away() -> None:
    tracker = Tracker(setup())
    rng = np.random.default_rng(0)
    for start in range(0, 3 * KEPT * BUCKET * WINDOW, 1024):
        del start
        tracker.ask(features(rng.normal(size=(1024, WIDTH))))
    buckets = {unfield(number)[0] for number in tracker.pending}

    assert tracker.wealth.bucket > 2 * KEPT
    assert max(buckets) == tracker.wealth.bucket
    assert len(buckets) <= KEPT


def test_queries_without_vectors_count_as_quiet() -> None:
    tracker = Tracker(setup())
    tracker.ask(features(attack(64))._replace(vectors=None))

    assert sum(tracker.pending.values()) == 4 * setup().query_signals
    assert tracker.strength().any < np.log(10)


def test_without_detectors_nothing_is_counted() -> None:
    tracker = Tracker(make_setup((), None, None, SALT))
    tracker.ask(features(attack(64)))
    tracker.answer(Margins(np.zeros(64)))

    assert tracker.pending == {}
    assert tracker.strength() == Strength()


def test_a_mean_on_an_edge_is_above_it() -> None:
    edges = np.array([[0.0625, 0.5, *[np.inf] * (BINS - 3)]])

    assert bins_of(np.array([[0.0], [1 / 16], [0.5 - 1e-12], [1.0]]), edges).ravel().tolist() == [0, 1, 2, 2]
