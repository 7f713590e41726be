"""Path finding on a small tree, whole and partial, and what each defence leaves of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from guard.selftest.attacks.asking import Asker, Spent, same
from guard.selftest.attacks.boxes import Boxes, find_boxes
from guard.selftest.attacks.topdown import rebuild
from guard.selftest.attacks.tree_copies import crossed, with_outcomes
from guard.selftest.attacks.trees import PartialInputs, PathFinding
from guard.selftest.base import Knowledge, Refused, Rows, Try
from guard.selftest.lab.data import untyped
from guard.selftest.lab.trees import partial
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import ModelApi, world


def small_tree() -> Victim:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, (600, 4))
    y = ((x[:, 0] > 4) ^ (x[:, 1] + rng.normal(0, 2, 600) > 6)).astype(np.int64)
    model: Any = untyped("sklearn.tree").DecisionTreeClassifier(max_depth=4, min_samples_leaf=10, random_state=0)
    model.fit(x[:300], y[:300])
    own, test = x[300:450], x[450:]
    knows = Knowledge("toy", "vector", 4, 2, x.min(axis=0), x.max(axis=0), own.std(axis=0), own, y[300:450])
    return Victim(partial(model.tree_), "probabilities", knows, test, y[450:], {}, partial=True)


TREE = small_tree()


def one_hot(x: Rows, scores: Floats) -> Floats:
    del x
    return np.eye(2)[scores.argmax(axis=1)]


def whole_queries_only(x: Rows, scores: Floats) -> Floats:
    if np.isnan(np.asarray(x)).any():
        raise Refused(422, "must be a finite number")
    return scores


def found(tries: list[Try], how: str, metric: str = "surrogate_l1") -> float:
    return next(t for t in tries if t.how == how).measures[metric].value


def test_path_finding_copies_an_open_tree() -> None:
    outcome = PathFinding(queries=3000).run(world(TREE))
    assert found(list(outcome.tries), "boxes") <= 0.02
    assert found(list(outcome.tries), "boxes", "agreement") >= 0.98
    assert outcome.queries <= 3000
    queries, distances = zip(*outcome.curve, strict=True)
    assert list(queries) == sorted(queries)
    assert distances[-1] <= distances[0]


def test_labels_blunt_path_finding_and_what_labels_leave_is_printed_beside() -> None:
    tries = list(PathFinding(queries=3000).run(world(TREE, one_hot)).tries)
    assert found(tries, "boxes") >= 0.2
    copy = "retrained on crossed rows"
    assert found(tries, copy, "agreement") >= 0.95
    assert found(tries, "retrained on crossed rows, with outcomes of its own", "agreement") >= 0.95
    assert found(tries, "retrained on crossed rows, with outcomes of its own") < found(tries, copy)


def test_path_finding_goes_on_with_what_it_has_when_refused() -> None:
    outcome = PathFinding(queries=3000).run(world(TREE, limit=150))
    assert outcome.queries == 151
    assert found(list(outcome.tries), "boxes") > 0.02


def test_path_finding_without_a_single_answer_is_refused() -> None:
    with pytest.raises(Refused):
        PathFinding().run(world(TREE, limit=0))


def test_the_same_seed_gives_the_same_figures() -> None:
    assert PathFinding(queries=500).run(world(TREE)) == PathFinding(queries=500).run(world(TREE))


def test_partial_inputs_copy_an_open_tree_exactly() -> None:
    outcome = PartialInputs(queries=3000, precision=1e-4).run(world(TREE))
    tries = list(outcome.tries)
    assert found(tries, "top-down") <= 0.005
    assert found(tries, "top-down", "agreement") == 1.0
    assert found(tries, "top-down", "partial_answers") > 100


def test_without_partial_inputs_the_published_attack_has_the_prior_and_the_adaptive_one_asks_whole_queries() -> None:
    api = ModelApi(lambda x: whole_queries_only(x, TREE.predict(x)))
    outcome = PartialInputs(queries=3000).run(world(TREE, api=api))
    tries = list(outcome.tries)
    assert [t.how for t in tries if t.plain] == ["prior"]
    assert found(tries, "prior") > 0.3
    assert found(tries, "whole queries: boxes") <= 0.02
    assert {t.measures["partial_answers"].value for t in tries} == {0.0}
    assert "no partial query was answered (422)" in outcome.notes[0]


def test_partial_inputs_survive_an_api_that_answers_nothing() -> None:
    tries = PartialInputs().run(world(TREE, limit=0)).tries
    assert [t.how for t in tries] == ["prior"]


def test_partial_inputs_go_on_with_what_they_have_when_refused() -> None:
    tries = list(PartialInputs().run(world(TREE, limit=60)).tries)
    assert 0.005 < found(tries, "top-down") < 2


def test_a_box_found_on_an_open_tree_answers_alike_throughout() -> None:
    asker = Asker(ModelApi(TREE.predict), 2000)
    low = TREE.knows.low
    boxes = find_boxes(asker, TREE.knows, [np.asarray(TREE.knows.own_x)[0]], 1e-4)
    box = boxes[0]
    inside = np.random.default_rng(0).uniform(np.maximum(box.low, low), np.minimum(box.high, TREE.knows.high), (50, 4))
    assert same(TREE.predict(inside), box.scores[None]).mean() > 0.95
    assert same(Boxes(boxes, TREE.knows.std).probabilities(inside), box.scores[None]).all()


def test_rebuilding_needs_a_first_answer() -> None:
    assert rebuild(Asker(ModelApi(TREE.predict, limit=0), 10), TREE.knows, 0.01) is None


def test_an_asker_keeps_what_was_answered_before_it_was_spent() -> None:
    x = np.asarray(TREE.test_x)[:10]
    asker = Asker(ModelApi(TREE.predict, limit=7), 100)
    asker.ask(x[:4])
    with pytest.raises(Spent):
        asker.ask(x[4:])
    kept, answers = asker.kept()
    assert np.array_equal(kept, x[:7])
    assert np.array_equal(answers, TREE.predict(x[:7]))
    own = Asker(ModelApi(TREE.predict), 5)
    with pytest.raises(Spent):
        own.ask(x)
    assert own.answered == 5


def test_crossed_rows_hold_values_of_the_attackers_own() -> None:
    rows = crossed(TREE.knows, 50, np.random.default_rng(0))
    own = np.asarray(TREE.knows.own_x)
    assert all(set(rows[:, j]) <= set(own[:, j]) for j in range(4))


def test_outcomes_of_its_own_keep_the_copys_decisions_and_need_labels() -> None:
    x = np.asarray(TREE.test_x)
    copy = with_outcomes(TREE.knows, TREE.predict, 0)
    assert copy is not None
    scores = copy(x)
    np.testing.assert_allclose(scores.sum(axis=1), 1.0)
    assert np.array_equal(scores.argmax(axis=1), TREE.predict(x).argmax(axis=1))
    assert with_outcomes(replace(TREE.knows, own_y=None), TREE.predict, 0) is None
