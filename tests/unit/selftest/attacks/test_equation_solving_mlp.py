"""Copies that are networks."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from guard.selftest.attacks.equation_solving_mlp import EquationSolvingMlp
from guard.selftest.attacks.network import fit_network
from guard.selftest.attacks.quantisers import cells_of
from guard.selftest.base import Outcome, Refused, Rows
from guard.selftest.measures import Floats
from tests.unit.selftest.support import linear_victim, world

VICTIM = linear_victim(classes=4, steep=2.0)
SMALL = EquationSolvingMlp(queries=1500, hidden=32, epochs=30)
X = np.random.default_rng(0).normal(size=(1000, 8))
Y = VICTIM.predict(X)


def rounded(x: Rows, scores: Floats) -> Floats:
    del x
    units = np.rint(scores * 5)
    units[np.arange(len(units)), scores.argmax(axis=1)] += 5 - units.sum(axis=1)
    return units / 5


def far(probabilities: Floats) -> float:
    return float(np.abs(probabilities - VICTIM.predict(np.asarray(VICTIM.test_x))).sum(axis=1).mean())


def value(outcome: Outcome, metric: str = "agreement") -> float:
    return outcome.best(metric).measures[metric].value


def test_a_network_learns_scores() -> None:
    test = cast("Floats", VICTIM.test_x)
    network = fit_network(X, Y, 32, 40, np.random.default_rng(1))
    assert far(network.probabilities(test)) < 0.1
    assert far(fit_network(X, Y, 32, 20, np.random.default_rng(1), start=network).probabilities(test)) < 0.1


def test_dropped_scores_are_not_read_as_zero() -> None:
    kept = np.where(np.max(Y, axis=1, keepdims=True) == Y, Y, 0.0)
    copy = fit_network(X, kept, 32, 40, np.random.default_rng(1))
    assert far(copy.probabilities(np.asarray(VICTIM.test_x))) < 0.25


def test_cells_pull_a_network_inside() -> None:
    y = rounded(X, Y)
    cells = cells_of(y)
    start = fit_network(X, y, 32, 40, np.random.default_rng(1))
    inside = fit_network(X, y, 32, 40, np.random.default_rng(1), rate=2e-3, start=start, cells=cells)
    test = np.asarray(VICTIM.test_x)
    assert far(inside.probabilities(test)) < far(start.probabilities(test))


def test_many_scores_give_the_model_away_and_few_labels_do_not() -> None:
    clean = SMALL.run(world(VICTIM))
    assert value(clean) >= 0.95
    assert clean.queries == 1500
    assert len(clean.curve) == 4
    few = SMALL.run(world(VICTIM, graded=0, limit=60))
    assert value(few) < value(clean)
    assert value(few, "surrogate_l1") > 2 * value(clean, "surrogate_l1")


def test_it_survives_a_spent_budget() -> None:
    outcome = SMALL.run(world(VICTIM, rounded, graded=200, limit=900))
    assert {"cross-entropy", "interval"} & {t.how for t in outcome.tries}
    assert value(outcome) > 0.9


def test_a_refusal_of_everything_is_told() -> None:
    with pytest.raises(Refused):
        SMALL.run(world(VICTIM, limit=0))
