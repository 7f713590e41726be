"""Averaging removes the three naive noises, and what holds against it does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from guard.selftest.attacks.averaging import Averaging
from guard.selftest.base import Outcome, Refused, Rows
from guard.selftest.lab.noisy import KINDS, Noise, noisy
from guard.selftest.measures import Floats
from tests.unit.selftest.support import ModelApi, linear_victim, world

MODEL = linear_victim(classes=2, seed=1)
ATTACK = Averaging(rows=48, repeats=64)
STEP = 0.5


def residual(outcome: Outcome, metric: str = "residual_l1", *, plain: bool = False) -> float:
    return outcome.best(metric, plain=plain).measures[metric].value


def snapped(x: Rows) -> Floats:
    return np.rint(np.asarray(x) / STEP) * STEP


def keyed(key: Callable[[Rows], Floats]) -> ModelApi:
    """Noise from the bytes of what `key` makes of a query, on a model that sees snapped queries."""
    noise = Noise("exact", MODEL.knows.std, 0)
    return ModelApi(lambda x: noise(key(x), MODEL.predict(snapped(x))))


@pytest.mark.parametrize("kind", KINDS)
def test_it_removes_each_naive_noise(kind: str) -> None:
    outcome = ATTACK.run(world(MODEL, api=ModelApi(noisy(MODEL, kind, 0).predict)))
    single, left = residual(outcome, plain=True), residual(outcome)
    assert single > 0.03
    assert left <= single / 2
    assert residual(outcome, "residual_ratio") == pytest.approx(left / single)


def test_repeats_alone_remove_fresh_noise_only_and_small_jitters_what_is_keyed_by_bytes() -> None:
    left = {
        kind: residual(ATTACK.run(world(MODEL, api=ModelApi(noisy(MODEL, kind, 0).predict))), "residual_repeats")
        for kind in KINDS
    }
    assert left["fresh"] < 0.03
    assert left["exact"] < 0.03
    assert left["feature_cell"] > 0.03


def test_noise_keyed_by_the_snapped_query_holds_where_noise_keyed_by_bytes_does_not() -> None:
    held = residual(ATTACK.run(world(MODEL, api=keyed(snapped))), "residual_repeats")
    fault = residual(ATTACK.run(world(MODEL, api=keyed(np.asarray))), "residual_repeats")
    exact = residual(ATTACK.run(world(MODEL, api=ModelApi(lambda x: MODEL.predict(snapped(x))))), "residual_repeats")
    assert held == pytest.approx(residual(ATTACK.run(world(MODEL, api=keyed(snapped))), "residual_repeats"))
    assert fault < exact + 0.03
    assert held > fault


def test_an_open_model_shows_on_naive_noises_that_the_attack_works() -> None:
    asked: list[str] = []

    def shadow(name: str) -> ModelApi:
        asked.append(name)
        return ModelApi(noisy(MODEL, name.partition(".")[2], 0).predict)

    outcome = ATTACK.run(world(MODEL, shadow=shadow))
    assert residual(outcome) == 0.0
    assert 0 < residual(outcome, "residual_ratio") <= 0.5
    assert asked == [f"toy.{kind}" for kind in KINDS]
    assert "nothing to average" in outcome.notes[-1]


def test_the_control_needs_no_lab() -> None:
    assert residual(ATTACK.run(world(MODEL)), "residual_ratio") <= 0.5


def test_labels_leave_nothing_to_average_but_jitter() -> None:
    outcome = ATTACK.run(world(MODEL, lambda x, scores: np.eye(2)[scores.argmax(axis=1)]))
    assert residual(outcome, "residual_repeats") == residual(outcome, plain=True) > 0.1
    assert "repeats: always the same answer" in outcome.notes[0]


class Remembered(ModelApi):
    """Fresh noise a query, remembered as a mechanism's releases are, and charged to a budget of distinct queries.

    Args:
        budget: distinct queries that are answered.
        forgets: releases are not remembered, as a fault would have it.
    """

    def __init__(self, budget: int, *, forgets: bool = False) -> None:
        super().__init__(noisy(MODEL, "fresh", 0).predict)
        self.budget, self.forgets = budget, forgets
        self.known: dict[bytes, Floats] = {}

    def ask(self, x: Rows) -> Floats:
        """Return the release of each row, old or new."""
        answers: list[Floats] = []
        for row in np.asarray(x):
            key = row.tobytes()
            if key not in self.known or self.forgets:
                if not self.budget:
                    raise Refused(429, answers=np.array(answers) if answers else None)
                self.budget -= 1
                self.known[key] = super().ask(row[None])[0]
            answers.append(self.known[key])
        return np.array(answers)


def test_repeats_of_a_remembered_release_are_all_alike_and_jitters_cost() -> None:
    outcome = ATTACK.run(world(MODEL, api=Remembered(200)))
    measures = outcome.tries[0].measures
    assert (measures["fresh_repeats"].value, measures["distinct_answers"].value) == (0.0, 200)
    assert "repeats: always the same answer" in outcome.notes[0]
    assert residual(outcome, "residual_repeats") > 0.02


def test_releases_that_are_forgotten_show_in_repeats() -> None:
    """The negative control: the same noise and budget without a memory."""
    measures = ATTACK.run(world(MODEL, api=Remembered(10**6, forgets=True))).tries[0].measures
    assert measures["fresh_repeats"].value > 0.9
    assert measures["distinct_answers"].value > 2000


def test_a_spent_budget_of_graded_answers_adds_nothing_and_misleads_nobody() -> None:
    noise = Noise("fresh", MODEL.knows.std, 0)
    api = ModelApi(MODEL.predict, lambda x, scores: noise(np.asarray(x), scores), graded=48 * 5)
    outcome = ATTACK.run(world(MODEL, api=api))
    assert residual(outcome) < residual(outcome, plain=True)


def test_a_refusal_midway_leaves_what_was_answered() -> None:
    noise = Noise("fresh", MODEL.knows.std, 0)
    api = ModelApi(MODEL.predict, lambda x, scores: noise(np.asarray(x), scores), limit=48 * 5)
    outcome = ATTACK.run(world(MODEL, api=api))
    assert {t.how for t in outcome.tries} == {"single answer", "repeats, mean", "repeats, median"}
    assert len(ATTACK.run(world(MODEL, limit=20)).tries) >= 1
    with pytest.raises(Refused):
        ATTACK.run(world(MODEL, limit=0))


def test_the_same_seed_gives_the_same_figures() -> None:
    def once() -> Outcome:
        return ATTACK.run(world(MODEL, api=ModelApi(noisy(MODEL, "exact", 0).predict)))

    assert once() == once()
