"""Model inversion: prototypes come close to the classes' means, less so with few answers, and never without any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from guard.selftest.api import one_hot
from guard.selftest.attacks.extract_then_invert import ExtractThenInvert
from guard.selftest.attacks.prototype_inversion import PrototypeInversion, slope
from guard.selftest.base import Attack, Outcome, Refused, Rows, Unresolved
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import linear_victim, world


def model() -> Victim:
    made = linear_victim(30, 4)
    x, y = np.asarray(made.secrets["train_x"]), np.asarray(made.secrets["train_y"])
    return replace(made, secrets={**made.secrets, "class_means": np.array([x[y == c].mean(axis=0) for c in range(4)])})


MODEL = model()
CLIMB = PrototypeInversion(queries=640, pairs=16)
COPY = ExtractThenInvert(queries=200)


def labels(x: Rows, scores: Floats) -> Floats:
    del x
    return one_hot(scores.argmax(axis=1).astype(np.float64), scores.shape[1])


def top(x: Rows, scores: Floats) -> Floats:
    del x
    return np.where(scores == scores.max(axis=1, keepdims=True), np.round(scores, 1), 0.0)


def nothing(x: Rows, scores: Floats) -> Floats:
    del x
    return np.full_like(scores, 1 / scores.shape[1])


def correlation(outcome: Outcome, *, plain: bool = False) -> float:
    return outcome.best("correlation", plain=plain).measures["correlation"].value


@pytest.mark.parametrize("attack", [CLIMB, COPY])
def test_prototypes_look_like_the_classes_and_answers_that_say_nothing_hide_them(attack: Attack) -> None:
    assert correlation(attack.run(world(MODEL)), plain=True) >= 0.75
    assert correlation(attack.run(world(MODEL, nothing))) <= 0.4


@pytest.mark.parametrize("attack", [CLIMB, COPY])
@pytest.mark.parametrize("defend", [labels, top])
def test_truncated_answers_and_labels_are_inverted_too(
    attack: Attack, defend: Callable[[Rows, Floats], Floats]
) -> None:
    assert 0.5 <= correlation(attack.run(world(MODEL, defend))) <= correlation(attack.run(world(MODEL))) + 0.02


@pytest.mark.parametrize("attack", [CLIMB, COPY])
def test_a_refusal_midway_leaves_what_was_learnt(attack: Attack) -> None:
    part = attack.run(world(MODEL, limit=12))
    assert part.queries == 13
    assert correlation(part) < correlation(attack.run(world(MODEL)))
    with pytest.raises(Refused):
        attack.run(world(MODEL, limit=0))


def test_the_best_prototypes_are_shown_beside_the_means() -> None:
    shown = cast("dict[str, list[list[float]]]", COPY.run(world(MODEL)).artefacts["prototypes"])
    assert list(shown["shape"]) == [1, 30]
    assert np.shape(shown["recovered"]) == np.shape(shown["truth"]) == (4, 30)


def test_all_classes_climb_in_one_request_a_round() -> None:
    asked = world(MODEL)
    CLIMB.run(asked)
    assert asked.api.asked == 640 * 4
    assert getattr(asked.api, "requests", 0) == 20


def test_the_slope_points_uphill() -> None:
    steps = np.random.default_rng(0).normal(size=(1, 400, 3))
    rows = np.stack((0.1 * steps, -0.1 * steps), axis=2).reshape(-1, 3)
    uphill = slope(np.exp(rows[:, :1] * 2.0), steps)[0]
    assert np.argmax(np.abs(uphill)) == 0
    assert uphill[0] > 0


def test_without_class_means_there_is_nothing_to_measure() -> None:
    with pytest.raises(Unresolved):
        COPY.run(world(linear_victim()))


def test_the_same_seed_gives_the_same_figures() -> None:
    assert COPY.run(world(MODEL)).tries == COPY.run(world(MODEL)).tries
