"""Readings: labels where scores mislead, small scores where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.attacks.fit import cross_entropy, least_squares
from guard.selftest.base import Refused, Rows, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers import WRAPPERS
from tests.unit.selftest.support import linear_victim, world

VICTIM = linear_victim(classes=5, steep=2.0)
X = np.random.default_rng(4).normal(size=(300, 8))


def top_two(x: Rows, scores: Floats) -> Floats:
    """Keep two scores of five."""
    del x
    return np.where(scores >= np.sort(scores, axis=1)[:, -2:-1], scores, 0.0)


def reversed_order(x: Rows, scores: Floats) -> Floats:
    """Keep the winner and turn everything else around, as a defence that misleads would."""
    del x
    top = scores.argmax(axis=1)
    turned = scores.max(axis=1, keepdims=True) - scores
    turned[np.arange(len(scores)), top] = turned.max(axis=1) * 1.01
    return turned / turned.sum(axis=1, keepdims=True)


def agreement(around: World) -> float:
    copy = cross_entropy(X, around.api.ask(X), 1e-4)
    test = np.asarray(VICTIM.test_x)
    return float((copy.probabilities(test).argmax(axis=1) == VICTIM.predict(test).argmax(axis=1)).mean())


def test_labels_break_scores_that_mislead() -> None:
    assert agreement(world(VICTIM)) > 0.98
    misled = agreement(world(VICTIM, reversed_order))
    assert agreement(WRAPPERS["labels"](world(VICTIM, reversed_order))) > misled + 0.05


def test_labels_hide_every_other_member() -> None:
    members = WRAPPERS["labels"](world(VICTIM)).api.ask_all(X)
    assert list(members) == ["label"]
    assert members["label"][:, 0].tolist() == VICTIM.predict(X).argmax(axis=1).tolist()


def test_labels_are_what_other_accounts_and_shadows_answer_too() -> None:
    around = WRAPPERS["labels"](world(VICTIM, shadow=lambda name: world(VICTIM).api))
    for api in (around.account(3), around.shadow("any")):
        assert set(np.unique(api.ask(X))) == {0.0, 1.0}


def test_clipping_gives_truncated_scores_logarithms() -> None:
    plain = world(VICTIM, top_two).api.ask(X)
    assert (plain == 0).any()
    clipped = WRAPPERS["clip_logits"](world(VICTIM, top_two)).api.ask(X)
    assert (clipped > 0).all()
    assert np.allclose(clipped.sum(axis=1), 1)
    test = np.asarray(VICTIM.test_x)
    truth = VICTIM.predict(test)
    guess = least_squares(X, clipped).probabilities(test)
    labels = cross_entropy(X, WRAPPERS["labels"](world(VICTIM)).api.ask(X), 1e-4).probabilities(test)
    assert (guess.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.8
    assert np.abs(guess - truth).sum(axis=1).mean() < 0.4
    assert np.isfinite(labels).all()


@pytest.mark.parametrize("name", ["labels", "clip_logits"])
def test_a_refusal_keeps_what_came_before(name: str) -> None:
    around = WRAPPERS[name](world(VICTIM, limit=30))
    with pytest.raises(Refused) as caught:
        around.api.ask(X)
    assert caught.value.answers is not None
    assert caught.value.answers.shape == (30, 5)
