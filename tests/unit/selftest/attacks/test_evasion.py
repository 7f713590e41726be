"""Evasion of vectors: adversarial examples near what they were, judged by the undefended model."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import pytest

from guard.selftest.api import LimitReached
from guard.selftest.attacks.anomaly_evasion import AnomalyEvasion, restore, within
from guard.selftest.attacks.boundary import bisect, gradient, random_start, step
from guard.selftest.attacks.evasion import Hunt, Plan, hunt, inputs, reach, refusal, told, wilson, won
from guard.selftest.attacks.hopskipjump import HopSkipJump
from guard.selftest.attacks.nes import Nes
from guard.selftest.attacks.square import Square, window
from guard.selftest.attacks.surfree import SurFree, angle_search, orthogonal, sign_search
from guard.selftest.base import Attack, Outcome, Refused, Rows, Unresolved, World
from guard.selftest.lab.anomalies import anomalies, expected_length, lengths
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import ModelApi, linear_victim, world

TOY = linear_victim(16, classes=4, seed=1)
NEAR = {"hopskipjump": HopSkipJump(images=12), "surfree": SurFree(images=12)}
BOX = {"square": Square(images=12, reach=0.06), "nes": Nes(images=12, reach=0.06)}


def one_hot(x: Rows, scores: Floats) -> Floats:
    del x
    return np.eye(scores.shape[1])[scores.argmax(axis=1)]


def plain(outcome: Outcome, metric: str = "success") -> float:
    return outcome.best(metric, plain=True).measures[metric].value


def best(outcome: Outcome, metric: str = "success") -> float:
    return outcome.best(metric).measures[metric].value


def a_hunt(bound: float = 1.0, n: int = 2) -> Hunt:
    return Hunt(np.zeros((n, 3)), np.zeros(n, dtype=np.int64), "l2", np.full(n, bound), np.ones(3))


def asking(*rows: Floats) -> Plan:
    for row in rows:  # noqa: UP028 -- a tuple's iterator cannot be sent answers
        yield row


def two_sides(at: float) -> Victim:
    """Class 1 where the first feature exceeds `at`."""

    def predict(x: Rows) -> Floats:
        return np.eye(2)[(np.asarray(x, dtype=np.float64)[:, 0] > at).astype(int)]

    return replace(TOY, predict=predict)


def beyond(at: float) -> ModelApi:
    return ModelApi(two_sides(at).predict)


@pytest.mark.parametrize("attack", [*NEAR.values(), *BOX.values()], ids=lambda a: a.name)
def test_it_succeeds_undefended_and_the_same_seed_gives_the_same(attack: Attack) -> None:
    outcome = attack.run(world(TOY))
    assert plain(outcome) >= 0.9
    assert outcome.queries > 0
    assert outcome.curve[-1][1] == best(outcome)
    assert list(outcome.curve) == sorted(outcome.curve)
    assert attack.run(world(TOY)) == outcome


@pytest.mark.parametrize("attack", NEAR.values(), ids=lambda a: a.name)
def test_labels_suffice_where_labels_are_all_that_is_read(attack: Attack) -> None:
    assert attack.run(world(TOY, one_hot)).tries == attack.run(world(TOY)).tries


@pytest.mark.parametrize("attack", BOX.values(), ids=lambda a: a.name)
def test_labels_stall_whoever_reads_scores_and_not_whoever_falls_back(attack: Attack) -> None:
    outcome = attack.run(world(TOY, one_hot))
    assert plain(outcome) < plain(attack.run(world(TOY)))
    assert best(outcome) >= 0.9
    assert [t.plain for t in outcome.tries] == [True, False]


@pytest.mark.parametrize("attack", BOX.values(), ids=lambda a: a.name)
def test_scores_that_read_zero_break_nothing(attack: Attack) -> None:
    def top(x: Rows, scores: Floats) -> Floats:
        del x
        return np.where(scores == scores.max(axis=1, keepdims=True), np.round(scores, 1), 0.0)

    assert best(attack.run(world(TOY, top))) >= 0.9


@pytest.mark.parametrize("attack", [*NEAR.values(), *BOX.values()], ids=lambda a: a.name)
def test_a_spent_budget_ends_it_with_what_there_is(attack: Attack) -> None:
    outcome = attack.run(world(TOY, one_hot, limit=60))
    assert best(outcome) < best(attack.run(world(TOY, one_hot)))
    assert any("refused (429)" in note for note in outcome.notes)


@pytest.mark.parametrize("attack", [*NEAR.values(), *BOX.values()], ids=lambda a: a.name)
def test_a_refusal_before_any_answer_is_the_callers(attack: Attack) -> None:
    with pytest.raises(Refused):
        attack.run(world(TOY, limit=0))


@pytest.mark.parametrize("attack", NEAR.values(), ids=lambda a: a.name)
def test_what_the_api_claims_counts_for_nothing(attack: Attack) -> None:
    def lie(x: Rows, scores: Floats) -> Floats:
        del x
        return np.roll(scores, 1, axis=1)

    assert best(attack.run(world(TOY, lie))) < 0.5


@pytest.mark.parametrize("attack", [*NEAR.values(), *BOX.values()], ids=lambda a: a.name)
def test_queries_stay_in_range(attack: Attack) -> None:
    seen: list[Floats] = []

    def watch(x: Rows, scores: Floats) -> Floats:
        seen.append(np.asarray(x))
        return scores

    attack.run(world(TOY, watch))
    rows = np.concatenate(seen)
    assert (rows >= TOY.knows.low - 1e-9).all()
    assert (rows <= TOY.knows.high + 1e-9).all()


def test_success_needs_nearness_and_the_models_own_word() -> None:
    found = a_hunt(bound=1.0, n=3)
    rows = np.array([[0.5, 0, 0], [0.9, 0, 0], [3.0, 0, 0]])
    for i, row in enumerate(rows):
        found.note(i, row[None], np.array([[0.0, 1.0]]))
    assert found.done.tolist() == [True, True, False]
    assert won(world(two_sides(0.6)).judge, found).tolist() == [False, True, False]


def test_a_row_at_the_bound_exactly_counts_in_spite_of_rounding() -> None:
    found = Hunt(np.array([[0.7]]), np.zeros(1, dtype=np.int64), "linf", np.array([0.2]), np.array([16.0]))
    found.note(0, np.array([[0.7 + 3.2]]), np.array([[0.0, 1.0]]))
    assert found.done.all()


def test_the_nearest_example_is_kept() -> None:
    found = a_hunt(bound=0.1, n=1)
    for far in (2.0, 1.0, 1.5):
        found.note(0, np.array([[far, 0, 0]]), np.array([[0.0, 1.0]]))
    assert found.distance[0] == 1.0
    assert not found.done.any()


def test_plans_run_in_lock_step_one_request_a_round() -> None:
    api = beyond(5)
    hunt(api, a_hunt(), [asking(np.zeros((1, 3)), np.zeros((2, 3))), asking(np.zeros((1, 3)))], limit=10)
    assert (api.requests, api.asked) == (2, 4)


def test_inputs_that_are_done_or_out_of_queries_are_asked_no_more() -> None:
    api, found = beyond(0.5), a_hunt()
    near, same = np.array([[0.9, 0, 0]]), np.zeros((3, 3))
    hunt(api, found, [asking(near, same), asking(same, same)], limit=4)
    assert found.spent.tolist() == [1, 3]
    assert found.done.tolist() == [True, False]


def test_answers_before_a_refusal_count() -> None:
    found = a_hunt(n=1)
    api = ModelApi(beyond(0.5).predict, limit=1)
    hunt(api, found, [asking(np.array([[0.9, 0, 0], [0.8, 0, 0]]))], limit=9)
    assert found.done.all()
    assert "refused (429)" in told(found, np.array([True]))


def test_the_selftests_own_limit_is_no_refusal() -> None:
    assert "stated query limit" in refusal(LimitReached(429))
    assert "refused (403)" in refusal(Refused(403))


def test_inputs_are_those_the_model_has_right() -> None:
    wrong = replace(TOY, test_y=np.where(np.arange(200) < 100, np.asarray(TOY.test_y), 9))
    x, y = inputs(world(wrong), 20)
    assert (TOY.predict(x).argmax(axis=1) == y).all()
    with pytest.raises(Unresolved, match="classifies right"):
        inputs(world(replace(TOY, test_y=np.full(200, 9))), 20)


def test_inputs_without_labels_take_the_models() -> None:
    x, y = inputs(world(replace(TOY, test_y=None)), 20)
    assert (TOY.predict(x).argmax(axis=1) == y).all()


def test_reach_is_a_share_of_how_far_classes_lie_apart() -> None:
    rows = np.array([[0.0], [0.0], [2.0], [2.0]])
    assert reach(world(replace(two_sides(1.0), test_x=rows)).judge, 0.6) == pytest.approx(1.2)
    with pytest.raises(Unresolved, match="one class"):
        reach(world(replace(two_sides(9.0), test_x=rows)).judge, 0.6)


def test_wilson_holds_at_the_ends() -> None:
    assert (wilson(0, 30).low, wilson(30, 30).high) == (0.0, 1.0)
    assert wilson(30, 30).low == pytest.approx(0.8865, abs=1e-4)


def ended(plan: Generator[Floats, Floats, object], at: float) -> tuple[object, int]:
    """Drive a generator against `beyond(at)`; returns its value and the rows asked."""
    api, asked = beyond(at), 0
    try:
        rows = next(plan)
        while True:
            asked += len(rows)
            rows = plan.send(api.ask(rows))
    except StopIteration as stop:
        return stop.value, asked


def test_bisect_ends_on_the_adversarial_side() -> None:
    point, asked = ended(bisect(np.zeros(3), np.array([8.0, 0, 0]), 0, 0.01), 3.0)
    assert isinstance(point, np.ndarray)
    assert 3.0 < point[0] <= 3.08
    assert asked == 7


def test_gradient_points_away_from_the_class() -> None:
    rng = np.random.default_rng(0)
    direction, _ = ended(gradient(np.array([3.0, 0, 0]), 0, np.full(3, -9.0), np.full(3, 9.0), rng, 200, 0.1), 3.0)
    assert isinstance(direction, np.ndarray)
    assert direction[0] > 0.95


def test_step_halves_until_adversarial_and_stays_when_nothing_is() -> None:
    back = np.array([-1.0, 0, 0])
    there, _ = ended(step(np.array([4.0, 0, 0]), back, 0, np.full(3, -9.0), np.full(3, 9.0), 2.0), 3.0)
    assert isinstance(there, np.ndarray)
    assert there[0] == 3.5
    here, _ = ended(step(np.array([3.0, 0, 0]), back, 0, np.full(3, -9.0), np.full(3, 9.0), 2.0), 3.0)
    assert isinstance(here, np.ndarray)
    assert here[0] == 3.0


def test_a_start_that_cannot_be_found_ends_the_plan() -> None:
    start, asked = ended(random_start(0, np.zeros(3), np.ones(3), np.random.default_rng(0), 5), 9.0)
    assert (start, asked) == (None, 5)


def test_surfrees_directions_and_angles() -> None:
    v = orthogonal(np.array([1.0, 1.0, 0.5]), [np.array([1.0, 0, 0]), np.array([0, 1.0, 0])])
    assert v == pytest.approx([0, 0, 1])

    def at(degrees: float) -> Floats:
        return np.array([degrees, 0.0, 0.0])

    assert ended(sign_search(at, 0, 30.0, 3), 15.0) == (30.0, 1)
    assert ended(sign_search(at, 0, 30.0, 3), 40.0) == (None, 6)
    angle, _ = ended(angle_search(lambda a: np.array([50.0 - a, 0, 0]), 0, 10.0, 10.0), 15.0)
    assert isinstance(angle, float)
    assert 30.0 < angle < 35.0


def test_squares_lie_in_the_image_and_runs_in_the_vector() -> None:
    rng = np.random.default_rng(0)
    for area in (0.01, 0.3, 1.0):
        part = window(64, 8, area, rng)
        assert len(part) == max(1, round((area * 64) ** 0.5)) ** 2
        assert part.max() < 64
        run = window(10, 0, area, rng)
        assert len(run) == max(1, round(area * 10))
        assert (np.diff(run) == 1).all()


def toy_detector() -> Victim:
    """Anomalous beyond a distance from the origin."""
    rng = np.random.default_rng(0)
    normal, foreign = rng.normal(size=(100, 8)), rng.normal(3.0, 0.5, size=(100, 8))
    x, y = np.concatenate((normal, foreign)), np.repeat([0, 1], 100)

    def predict(rows: Rows) -> Floats:
        p = 1 / (1 + np.exp(4.5 - np.linalg.norm(np.asarray(rows, dtype=np.float64), axis=1)))
        return np.stack([1 - p, p], axis=1)

    knows = replace(TOY.knows, size=8, classes=2, low=x.min(0), high=x.max(0), std=x.std(0), own_x=x, own_y=y)
    return Victim(predict, "probabilities", knows, x + 0.01, y)


def test_anomalies_pass_by_scores_and_by_labels() -> None:
    attack, model = AnomalyEvasion(rows=12), toy_detector()
    assert plain(attack.run(world(model)), "passed") >= 0.95
    assert best(attack.run(world(model, one_hot)), "passed") >= 0.9


def test_anomalies_that_may_go_nowhere_do_not_pass() -> None:
    assert best(AnomalyEvasion(rows=12, way=0.05).run(world(toy_detector())), "passed") == 0


def test_anomalies_go_on_after_a_refusal() -> None:
    outcome = AnomalyEvasion(rows=12).run(world(toy_detector(), one_hot, limit=30))
    assert best(outcome, "passed") < 0.5
    assert any("refused (429)" in note for note in outcome.notes)


def test_anomaly_evasion_needs_normal_rows_and_anomalies() -> None:
    model = toy_detector()
    for lacking in (replace(model, knows=replace(model.knows, own_y=None)), replace(model, test_y=np.zeros(200))):
        with pytest.raises(Unresolved, match="needs 10 blocked"):
            AnomalyEvasion().run(world(lacking))


def test_restoring_goes_back_towards_the_anomaly() -> None:
    model = toy_detector()
    x = np.full(8, 3.0)
    normal = np.asarray(model.knows.own_x)[:100]
    found = Hunt(x[None], np.ones(1, dtype=np.int64), "l2", np.zeros(1), np.ones(8))
    hunt(ModelApi(model.predict, one_hot), found, [restore(x, normal, np.random.default_rng(0), 0.3)], limit=150)
    # The nearest point that passes lies on the line to the origin.
    assert 1.0 < found.distance[0] / (np.linalg.norm(x) - 4.5) < 1.3


def test_within_draws_a_row_back() -> None:
    assert within(np.array([4.0, 0]), np.zeros(2), 1.0) == pytest.approx([1, 0])
    assert within(np.array([0.5, 0]), np.zeros(2), 1.0) == pytest.approx([0.5, 0])


def test_the_isolation_forest_scores_as_scikit_learn_does() -> None:
    x = np.random.default_rng(0).normal(size=(100, 5))
    forest = untyped("sklearn.ensemble").IsolationForest(n_estimators=8, random_state=0).fit(x)
    total = sum(lengths(e.tree_)[e.tree_.apply(x.astype(np.float32))] for e in forest.estimators_)
    scores = -np.exp2(-total / (8 * expected_length(np.array([forest.max_samples_]))[0]))
    assert scores == pytest.approx(forest.score_samples(x), abs=1e-12)


def test_the_lab_detector_tells_zeros_from_other_digits() -> None:
    model = anomalies(0)
    said = model.predict(model.test_x).argmax(axis=1)
    y = np.asarray(model.test_y)
    assert (said[y == 1] == 1).mean() >= 0.95
    assert (said[y == 0] == 1).mean() <= 0.1


def test_worlds_are_left_as_they_were() -> None:
    w: World = world(TOY)
    before = np.asarray(w.judge.test_x).copy()
    HopSkipJump(images=12).run(w)
    assert (before == w.judge.test_x).all()
