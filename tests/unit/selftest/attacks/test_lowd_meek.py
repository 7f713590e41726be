"""Copies from labels: line search and asking near the boundary."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest

from guard.selftest.attacks.active_labels import ActiveLabels, unsure
from guard.selftest.attacks.fit import Linear
from guard.selftest.attacks.lowd_meek import LowdMeek
from guard.selftest.base import Outcome, Refused, Rows, Unresolved
from guard.selftest.measures import Floats
from tests.unit.selftest.support import linear_victim, world

BINARY = linear_victim(classes=2)
WIDE = linear_victim(20, classes=2)


def one_hot(x: Rows, scores: Floats) -> Floats:
    del x
    return np.eye(scores.shape[1])[scores.argmax(axis=1)]


def changed_near_the_boundary(x: Rows, scores: Floats) -> Floats:
    """A keyed coin changes a quarter of the labels near the boundary."""
    coin = np.array([crc32(row.tobytes()) % 4 == 0 for row in np.asarray(x)])
    near = np.abs(scores[:, 0] - scores[:, 1]) < 0.5
    return one_hot(x, np.where((coin & near)[:, None], scores[:, ::-1], scores))


def plain(outcome: Outcome, metric: str) -> float:
    return outcome.best(metric, plain=True).measures[metric].value


def best(outcome: Outcome, metric: str) -> float:
    return outcome.best(metric).measures[metric].value


def test_line_search_recovers_the_weights_from_labels_alone() -> None:
    outcome = LowdMeek().run(world(BINARY, one_hot))
    assert plain(outcome, "cosine") >= 0.999
    assert plain(outcome, "agreement") >= 0.99


def test_changed_labels_break_the_line_search_and_not_whoever_asks_near_the_boundary() -> None:
    outcome = LowdMeek().run(world(WIDE, changed_near_the_boundary))
    assert plain(outcome, "cosine") < 0.9
    assert best(outcome, "cosine") >= 0.95


def test_line_search_goes_on_with_what_it_has_when_refused() -> None:
    outcome = LowdMeek(first=30).run(world(BINARY, limit=60))
    assert outcome.queries == 61
    assert best(outcome, "cosine") < 0.999


def test_line_search_without_both_classes_still_fits() -> None:
    outcome = LowdMeek(first=1).run(world(BINARY))
    assert [t for t in outcome.tries if t.how == "hyperplane"] == []


def test_line_search_says_what_it_cannot_copy() -> None:
    with pytest.raises(Unresolved, match="two classes"):
        LowdMeek().run(world(linear_victim(classes=3)))
    with pytest.raises(Refused):
        LowdMeek().run(world(BINARY, limit=0))


def test_active_labels_copy_decisions_from_labels_alone() -> None:
    outcome = ActiveLabels(queries=240).run(world(BINARY, one_hot))
    assert plain(outcome, "agreement") >= 0.98
    assert outcome.queries == 240
    assert [queries for queries, _ in outcome.curve] == [60, 120, 180, 240]


def test_active_labels_use_scores_where_they_come() -> None:
    def distance(defend: object) -> float:
        return best(ActiveLabels(queries=120).run(world(BINARY, defend)), "surrogate_l1")  # pyright: ignore[reportArgumentType]

    assert distance(None) < 0.01 < distance(one_hot)


def test_active_labels_end_where_a_budget_does() -> None:
    outcome = ActiveLabels(queries=240).run(world(BINARY, limit=30))
    assert outcome.queries == 31
    assert best(outcome, "agreement") < 1.0
    with pytest.raises(Refused):
        ActiveLabels().run(world(BINARY, limit=0))


def test_unsure_rows_lie_near_the_copys_boundary() -> None:
    weights = np.zeros((2, 9))
    weights[1, 0] = 5.0
    rows = unsure(BINARY.knows, Linear(weights), 40, np.random.default_rng(0))
    assert np.abs(rows[:, 0]).max() < 0.5
