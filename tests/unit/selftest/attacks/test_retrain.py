"""Retraining: copies come close, less so where answers are held back, and whatever comes back is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from guard.selftest.api import one_hot
from guard.selftest.attacks.jbda import Jbda, fresh, gradient
from guard.selftest.attacks.knockoff import Knockoff, foreign
from guard.selftest.attacks.mimic import Mimic
from guard.selftest.attacks.network import fit_network
from guard.selftest.attacks.network_copies import (
    ANSWERS,
    GRADED,
    INTERVAL,
    LABELS,
    OWN,
    SOFTENED,
    WEIGHED,
    WINNERS,
    Retraining,
    from_scores,
    to_unit,
)
from guard.selftest.attacks.retrain import InDistribution, Uniform
from guard.selftest.base import Outcome, Refused, Rows, Unresolved
from guard.selftest.measures import Floats
from tests.unit.selftest.support import ModelApi, linear_victim, world

VICTIM = linear_victim(16, 3)
SMALL = {"queries": 800, "hidden": 24, "epochs": 100}
ATTACKS: tuple[Retraining, ...] = (
    replace(Uniform(), **SMALL),
    replace(InDistribution(), **SMALL),
    replace(Knockoff(), **SMALL),
    replace(Jbda(), **SMALL, seeds=100),
)


def labels(x: Rows, scores: Floats) -> Floats:
    del x
    return one_hot(scores.argmax(axis=1).astype(np.float64), scores.shape[1])


def winners(x: Rows, scores: Floats) -> Floats:
    del x
    return np.where(scores == scores.max(axis=1, keepdims=True), scores.round(2), 0.0)


def best(outcome: Outcome, metric: str) -> float:
    return outcome.best(metric).measures[metric].value


def tries(outcome: Outcome) -> set[str]:
    return {found.how for found in outcome.tries}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: cast("str", a.name))
def test_a_copy_agrees_and_labels_leave_it_further_away(attack: Retraining) -> None:
    # Without true labels of the attacker's own, what answers teach stands alone.
    victim = replace(VICTIM, knows=replace(VICTIM.knows, own_y=None))
    clear, held = attack.run(world(victim)), attack.run(world(victim, labels))
    assert all(criterion.met(best(clear, criterion.metric)) for criterion in attack.control)
    assert best(held, "surrogate_l1") > 1.3 * best(clear, "surrogate_l1")
    assert tries(held) == {ANSWERS}
    assert {"surrogate_l1_uniform", "agreement_uniform", "graded_answers"} <= set(clear.tries[0].measures)
    queries = [n for n, _ in clear.curve]
    assert queries == [500, clear.queries]
    assert clear.curve[-1][1] == best(clear, "surrogate_l1")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: cast("str", a.name))
def test_a_budget_and_a_refusal_midway_are_survived(attack: Retraining) -> None:
    short = replace(attack, epochs=5)
    outcome = short.run(world(VICTIM, winners, limit=500, graded=60))
    assert outcome.queries == 501
    assert 0 < best(outcome, "surrogate_l1") < 2
    assert outcome.best("agreement", plain=True).how in attack.plain


@pytest.mark.parametrize("attack", [*ATTACKS, Mimic()], ids=lambda a: cast("str", a.name))
def test_without_one_answer_there_is_no_figure(attack: Retraining) -> None:
    with pytest.raises(Refused):
        attack.run(world(VICTIM, limit=0))


def test_the_same_seed_gives_the_same_figures() -> None:
    attack = replace(ATTACKS[3], queries=300, epochs=5)
    one, other = attack.run(world(VICTIM)), attack.run(world(VICTIM))
    assert one.tries == other.tries
    assert one.tries != attack.run(world(VICTIM, seed=1)).tries


def test_each_kind_of_answer_is_trained_on_in_its_own_ways() -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (600, 16))
    y = VICTIM.predict(x)
    assert set(from_scores(x, y, 4.0)) == {ANSWERS, SOFTENED}
    assert set(from_scores(x, labels(x, y), 4.0)) == {ANSWERS}
    spent = np.concatenate((y[:100], labels(x, y[100:])))
    assert set(from_scores(x, spent, 4.0)) == {ANSWERS, GRADED, WEIGHED}
    assert set(from_scores(x, np.round(y * 20) / 20, 4.0)) == {ANSWERS, INTERVAL}
    top = np.where(y == y.max(axis=1, keepdims=True), np.where(y > 0.7, 0.9, 0.6), 0.0)
    levelled = np.where(top > 0, top, (1 - top.max(axis=1, keepdims=True)) / 2)
    assert set(from_scores(x, levelled, 4.0)) == {ANSWERS, WINNERS, INTERVAL}
    assert set(Uniform().lessons(VICTIM.knows, x, y)) == {ANSWERS, SOFTENED, LABELS, OWN}


def test_foreign_queries_stay_inside_the_ranges_and_fit_square_images_only() -> None:
    low, high = np.zeros(16), np.arange(16.0)
    x = foreign(replace(VICTIM.knows, low=low, high=high), 50, np.random.default_rng(0))
    assert x.shape == (50, 16)
    assert ((x >= low) & (x <= high)).all()
    assert (x[:, -1] > 0).any()
    with pytest.raises(Unresolved, match="square"):
        foreign(linear_victim(15).knows, 5, np.random.default_rng(0))


def test_synthetic_queries_follow_the_copys_gradient_and_none_comes_twice() -> None:
    rng = np.random.default_rng(0)
    x = cast("Floats", VICTIM.knows.own_x)[:20]
    unit, y = to_unit(VICTIM.knows, x), VICTIM.predict(x)
    copy = fit_network(unit, y, 8, 5, rng)
    classes = y.argmax(axis=1)

    def log_p(u: Floats) -> Floats:
        return np.log(copy.probabilities(u)[np.arange(20), classes])

    step = 1e-3 * np.eye(16)[3]
    slope = (log_p(unit + step) - log_p(unit - step)) / 2e-3
    np.testing.assert_allclose(gradient(copy, unit, classes)[:, 3], slope, atol=0.02)
    assert len(fresh(np.concatenate((x, x + 1, x + 1)), x)) == 20
    asked: list[bytes] = []

    class Listening(ModelApi):
        def ask(self, x: Rows) -> Floats:
            asked.extend(row.tobytes() for row in cast("Floats", x))
            return super().ask(x)

    replace(Jbda(), queries=400, epochs=2, hidden=8, seeds=25).run(world(VICTIM, api=Listening(VICTIM.predict)))
    assert len(asked) == len(set(asked)) == 400


def test_scores_are_worth_something_and_labels_against_labels_nothing() -> None:
    attack = Mimic(queries=300, hidden=16, epochs=60)
    clear, held = attack.run(world(VICTIM)), attack.run(world(VICTIM, labels))
    advantage = clear.best("score_advantage").measures["score_advantage"]
    assert advantage.low > 0
    assert [found.measures["score_advantage"].value for found in held.tries] == [0.0]
    some = attack.run(world(VICTIM, winners, graded=20))
    assert best(some, "score_advantage") < advantage.value
    assert attack.run(world(VICTIM, winners, limit=200, graded=50)).queries == 201
