"""Copies of regressions that answer values: exact from clean values, close behind bins, exact again at their ends."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from guard.defences.base import Batch, Randomness
from guard.defences.bin import Bin
from guard.selftest.attacks.values import Value, bin_ends, bin_width
from guard.selftest.base import Outcome, Refused, Rows
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import Defend, ModelApi, linear_victim, world

ATTACK = Value(queries=120)
WEIGHTS = np.random.default_rng(3).normal(size=6)


def plane(x: Rows) -> Floats:
    """A linear regression with one product."""
    z = np.asarray(x, dtype=np.float64)
    return (z @ WEIGHTS + z[:, 0] * z[:, 1] + 2.0)[:, None]


def victim() -> Victim:
    toy = linear_victim(6)
    return replace(toy, predict=plane, output="value", knows=replace(toy.knows, classes=1, own_y=None), test_y=None)


class Third:
    """Draws an offset of a third."""

    def constant(self, name: bytes) -> float:
        return 1 / 3


def binned(width: float) -> Defend:
    def defend(x: Rows, scores: Floats) -> Floats:
        del x
        none = np.zeros(len(scores), dtype=np.int64)
        return Bin(width=width).apply(Batch(scores, none, "value"), cast("Randomness", Third()), b"").scores

    return defend


def error(outcome: Outcome, how: str) -> float:
    found = [t.measures["value_error"].value for t in outcome.tries if t.how.startswith(how)]
    return min(found, default=np.inf)


def test_clean_values_give_the_model_away_and_nothing_else_is_tried() -> None:
    outcome = ATTACK.run(world(victim()))
    assert error(outcome, "equations, with products") < 1e-6 < error(outcome, "equations, linear")
    assert all(t.plain for t in outcome.tries)
    assert outcome.queries == 120


def test_behind_bins_the_ends_give_it_away_all_the_same() -> None:
    outcome = ATTACK.run(world(victim(), binned(1.5)))
    equations, inside, ends = (error(outcome, how) for how in ("equations", "inside the bins", "bin ends"))
    assert ends < 1e-4 < 0.5 * inside < inside < equations
    assert {t.plain for t in outcome.tries if t.how.startswith(("inside", "bin ends"))} == {False}
    assert "steps of 1.5" in outcome.notes[0]
    assert outcome.queries > 120


def test_an_end_is_an_input_whose_value_is_the_end_of_a_bin() -> None:
    api = ModelApi(plane, binned(1.5))
    x = np.random.default_rng(0).normal(size=(40, 6))
    ends, values = bin_ends(api, x, api.ask(x)[:, 0], 1.5, 12, np.random.default_rng(1))
    np.testing.assert_allclose(values, plane(ends)[:, 0], atol=1e-4)
    assert len(ends) == 12


def test_where_the_ends_may_not_be_asked_for_the_fit_inside_remains() -> None:
    def another(number: int) -> ModelApi:
        return ModelApi(plane, binned(1.5), limit=0 if number else None)

    outcome = ATTACK.run(world(victim(), binned(1.5), account=another))
    assert error(outcome, "bin ends") == np.inf
    assert error(outcome, "inside the bins") < 0.1


def test_a_refusal_of_everything_is_told() -> None:
    with pytest.raises(Refused):
        ATTACK.run(world(victim(), limit=0))


def test_values_that_are_neither_rounded_nor_binned_have_no_width() -> None:
    y = np.random.default_rng(0).normal(size=200)
    assert bin_width(y) == 0.0
    assert bin_width(np.repeat(y, 2)) == 0.0  # every query asked twice
    assert bin_width(y.round(1)) == pytest.approx(0.1)
