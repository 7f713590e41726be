from __future__ import annotations

import numpy as np

from guard.detectors.base import Past
from guard.detectors.setup import DEFAULT, make_setup
from guard.detectors.stream import Stream, after
from tests.support.detecting import SALT, features, honest, profile


def test_what_is_known_of_a_client_does_not_depend_on_batches() -> None:
    rows = honest(1, 50)
    one, many = Past(), after(Past(), rows)
    for row in rows:
        one = after(one, row[None])
    part = Past()
    for start, end in ((0, 7), (7, 8), (8, 9), (9, 50)):
        part = after(part, rows[start:end])

    for past in (many, part):
        assert past.seen == one.seen == 50
        np.testing.assert_allclose(past.total, one.total)
        np.testing.assert_array_equal(past.last, one.last)
        np.testing.assert_array_equal(past.step, one.step)


def test_vectors_of_another_width_begin_anew() -> None:
    past = after(after(Past(), np.ones((5, 3))), np.ones((1, 2)))

    assert (past.seen, past.total.tolist(), past.step) == (1, [1.0, 1.0], None)
    assert after(past, None) is past


def test_honest_queries_without_vectors_between_others_change_nothing() -> None:
    setup = make_setup(DEFAULT, profile(), None, SALT)
    stream = Stream(setup.queries)
    bare = features(honest(2, 3))._replace(vectors=None)
    stream.ask(features(honest(1, 20)))

    assert stream.ask(bare).sum() == 0
    assert stream.ask(features(honest(1, 20))).shape == (20, setup.query_signals)


def test_without_detectors_there_are_no_signals() -> None:
    assert Stream(()).ask(features(honest(1, 4))).shape == (4, 0)
