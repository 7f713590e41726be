"""Learning to undo a defence from the attacker's own models behind it."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.api import one_hot
from guard.selftest.base import Rows, Unresolved, World
from guard.selftest.lab.registry import victim
from guard.selftest.measures import Floats
from guard.selftest.wrappers.shadows import restoring
from tests.unit.selftest.support import Defend, ModelApi, linear_victim, world

VICTIM = linear_victim()
SHADOWS = {f"toy.shadow{i}": linear_victim(seed=10 + i, steep=0.5 + i / 2) for i in range(4)}
X = np.random.default_rng(5).normal(size=(300, 8))


def warm(x: Rows, scores: Floats) -> Floats:
    """Soften with a temperature of 2."""
    del x
    soft = np.sqrt(scores)
    return soft / soft.sum(axis=1, keepdims=True)


def bare(x: Rows, scores: Floats) -> Floats:
    """Answer labels."""
    del x
    return one_hot(scores.argmax(axis=1).astype(np.float64), scores.shape[1])


def around(defend: Defend, graded: int | None = None) -> World:
    return world(VICTIM, defend, graded=graded, shadow=lambda name: ModelApi(SHADOWS[name].predict, defend))


def restored(base: World) -> World:
    return restoring(base, lambda name: SHADOWS[name].predict)


def test_a_temperature_is_undone() -> None:
    truth = VICTIM.predict(X)
    before = np.abs(around(warm).api.ask(X) - truth).sum(axis=1).mean()
    after = np.abs(restored(around(warm)).api.ask(X) - truth).sum(axis=1).mean()
    assert after < before / 4


def test_labels_of_a_spent_budget_stay_labels() -> None:
    answers = restored(around(warm, graded=100)).api.ask(X)
    assert set(np.unique(answers[100:])) == {0.0, 1.0}


def test_labels_are_not_undone() -> None:
    with pytest.raises(Unresolved):
        restored(around(bare))


def test_without_models_of_ones_own_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(Unresolved):
        restored(world(VICTIM, warm))


def test_the_lab_has_such_models_and_they_are_no_copies_of_the_victim() -> None:
    own = victim("breast_cancer.shadow1", 0)
    x = victim("breast_cancer", 0).test_x
    far = np.abs(own.predict(x) - victim("breast_cancer", 0).predict(x)).sum(axis=1).mean()
    assert own.knows.name == "breast_cancer.shadow1"
    assert 0.01 < far < 0.5
    with pytest.raises(KeyError):
        victim("breast_cancer.shadow4", 0)
