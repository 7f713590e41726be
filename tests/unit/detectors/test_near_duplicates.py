from __future__ import annotations

import numpy as np
import pytest

from guard.detectors.base import Features, Past, Sample
from guard.detectors.near_duplicates import TARGETS, NearDuplicates
from guard.detectors.stream import Stream
from tests.support.detecting import SALT, WIDTH, features, honest, learnt, sample, signals


def around(point: np.ndarray, by: float, n: int = 200) -> np.ndarray:
    """Return queries near a point, as searches for a gradient ask them."""
    return point + np.random.default_rng(3).normal(size=(n, WIDTH)) * by


def test_a_search_around_a_point_moves_it_and_honest_queries_do_not() -> None:
    reference = learnt(NearDuplicates())
    attack = signals(NearDuplicates(), around(honest(1)[0], 0.002), reference).mean(axis=0)
    benign = np.mean([signals(NearDuplicates(), honest(i), reference).mean(axis=0) for i in range(20)], axis=0)

    assert (attack > 0.9).all()
    assert benign[0] < 0.06
    assert benign[1] < 0.01


def test_widths_are_set_by_the_shares_of_honest_hits() -> None:
    known = sample()
    bound = NearDuplicates().bind(learnt(NearDuplicates()), WIDTH, SALT)
    shares = np.mean([Stream([bound]).ask(each).mean(axis=0) for each in known.features], axis=0)

    assert shares == pytest.approx(TARGETS, rel=0.5)


def test_on_a_declared_domain_only_close_queries_move_it() -> None:
    assert signals(NearDuplicates(), around(honest(1)[0], 0.001), {}).mean(axis=0).min() > 0.9
    assert signals(NearDuplicates(), honest(2), {}).mean() < 0.01


def test_repeats_are_left_to_the_detector_of_repeats() -> None:
    assert signals(NearDuplicates(), np.repeat(honest(1)[:1], 50, axis=0)).sum() == 0


def test_rows_without_vectors_say_nothing() -> None:
    bound = NearDuplicates().bind({}, WIDTH, SALT)
    bare = features(honest(1))._replace(vectors=None)

    assert Stream([bound]).ask(bare).sum() == 0


@pytest.mark.parametrize("widths", [np.zeros(2), np.ones(3), np.array([1.0, np.nan])])
def test_widths_that_cannot_be_are_refused(widths: np.ndarray) -> None:
    with pytest.raises(ValueError, match="widths"):
        NearDuplicates().bind({"widths": widths}, WIDTH, SALT)


def test_nothing_is_learnt_from_clients_without_vectors() -> None:
    with pytest.raises(ValueError, match="no client has vectors"):
        NearDuplicates().learn(Sample([Features(np.zeros((3, 9), dtype=np.uint32), None, False)], [None], 0))


@pytest.mark.parametrize("n", [1, 3])
def test_two_tables_of_four_make_a_hit(n: int) -> None:
    bound = NearDuplicates().bind({}, WIDTH, SALT)
    hits = np.zeros((n, 8), dtype=bool)
    hits[:, [0, 4, 7]] = True
    rows = features(honest(1, n))

    assert bound.measure(rows, np.zeros(n, dtype=bool), hits, Past()).tolist() == [[0.0, 1.0]] * n
