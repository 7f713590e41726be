"""Copies of regressions: exact from clean answers, close behind quantisers, alive after refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from guard.selftest.attacks.equation_solving import Softmax
from guard.selftest.attacks.fit import cross_entropy
from guard.selftest.attacks.floors import zero_query
from guard.selftest.attacks.interval import interval_fit
from guard.selftest.attacks.offsets import offset_fit
from guard.selftest.attacks.quantisers import cells_of
from guard.selftest.base import Outcome, Refused, Rows, Unresolved
from guard.selftest.cell import Cell, run_cell
from guard.selftest.measures import Floats
from tests.unit.selftest.support import linear_victim, world

VICTIM = linear_victim(classes=4, steep=2.0)
SMALL = Softmax(queries=60, other_draws=())
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 8))


def coarse(x: Rows, scores: Floats) -> Floats:
    """Round to tenths, which sum to 1 by what the winner gives or takes."""
    del x
    units = np.rint(scores * 10)
    units[np.arange(len(units)), scores.argmax(axis=1)] += 10 - units.sum(axis=1)
    return units / 10


def winner(x: Rows, scores: Floats) -> Floats:
    """Keep the winner's score."""
    del x
    return np.where(scores == scores.max(axis=1, keepdims=True), scores, 0.0)


def distance(outcome: Outcome, *, plain: bool = False) -> float:
    return outcome.best("surrogate_l1", plain=plain).measures["surrogate_l1"].value


def far(copy: object) -> float:
    test = cast("Floats", VICTIM.test_x)
    guess = copy.probabilities(test)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]  # any copy
    return float(np.abs(cast("Floats", guess) - VICTIM.predict(test)).sum(axis=1).mean())


def test_clean_answers_give_the_model_away() -> None:
    outcome = SMALL.run(world(VICTIM))
    assert distance(outcome, plain=True) < 1e-6
    assert outcome.queries == 60
    assert [n for n, _ in outcome.curve] == [15, 30, 45, 60]


def test_quantised_answers_do_not() -> None:
    outcome = SMALL.run(world(VICTIM, coarse))
    assert 0.01 < distance(outcome) <= distance(outcome, plain=True)


def test_other_drawings_ask_with_accounts_of_their_own() -> None:
    outcome = Softmax(queries=40, other_draws=("mixed",)).run(world(VICTIM, limit=40))
    assert outcome.queries == 40
    assert any(t.how.startswith("mixed queries") and not t.plain for t in outcome.tries)


def test_it_goes_on_with_what_came_before_a_refusal() -> None:
    outcome = SMALL.run(world(VICTIM, coarse, limit=30))
    assert distance(outcome) > distance(SMALL.run(world(VICTIM, coarse)))


def test_a_refusal_of_everything_is_told() -> None:
    with pytest.raises(Refused):
        SMALL.run(world(VICTIM, limit=0))


def test_labels_after_a_budget_are_told_from_scores() -> None:
    outcome = Softmax(queries=200, other_draws=()).run(world(VICTIM, graded=60))
    assert distance(outcome) < 1e-3 < distance(outcome, plain=True)


def test_a_winners_score_alone_is_enough_where_it_is_read_as_such() -> None:
    copy = cross_entropy(X, winner(X, VICTIM.predict(X)), 1e-8)
    assert far(copy) < 0.01


def test_the_interval_fit_sees_through_a_quantiser() -> None:
    y = coarse(X, VICTIM.predict(X))
    start, cells = cross_entropy(X, y, 1e-4), cells_of(y)
    assert cells is not None
    assert far(interval_fit(X, cells, 1e-8, start)) < 0.75 * far(start)


def in_cells(x: Floats, scores: Floats, *, fresh: bool = False) -> Floats:
    """Add noise that is one vector for each of nine cells of two projections, or one for each query."""
    rng = np.random.default_rng(7)
    directions = rng.normal(size=(2, x.shape[1])) / np.sqrt(x.shape[1])
    cell = np.clip(np.floor(x @ directions.T / 1.5 + rng.random(2)), -1, 1) @ np.array([1, 3]) + 4
    noise = rng.normal(0, 0.08, (len(x) if fresh else 9, scores.shape[1]))
    noisy = np.maximum(scores + (noise if fresh else noise[cell.astype(int)]), 0)
    return noisy / noisy.sum(axis=1, keepdims=True)


def test_the_offset_fit_sees_through_noise_of_coarse_cells() -> None:
    y = in_cells(X, VICTIM.predict(X))
    start = cross_entropy(X, y, 1e-4)
    found = offset_fit(X, y, start, 9, np.random.default_rng(0))
    assert far(found.copy) < 0.3 * far(start)
    assert found.left < 0.03


def test_the_offset_fit_does_not_explain_noise_of_single_queries() -> None:
    y = in_cells(X, VICTIM.predict(X), fresh=True)
    found = offset_fit(X, y, cross_entropy(X, y, 1e-4), 9, np.random.default_rng(0))
    assert found.left > 0.06


def test_asking_nothing_is_a_floor() -> None:
    outcome = zero_query(world(VICTIM))
    assert outcome.queries == 0
    assert 0.02 < distance(outcome) < 0.5
    assert outcome.best("agreement").measures["agreement"].value > 0.85


def test_asking_nothing_without_labels_is_nothing() -> None:
    around = world(VICTIM)
    with pytest.raises(Unresolved):
        zero_query(replace(around, knows=replace(around.knows, own_y=None)))


def test_same_seed_same_figures() -> None:
    one, other = (SMALL.run(world(VICTIM, coarse, seed=3)) for _ in range(2))
    assert one == other


def test_the_floor_of_a_cell_asks_nothing() -> None:
    cell = Cell("equation_solving_binary", "zero_query", "", 0, "breast_cancer", "http://127.0.0.1:1")
    done = run_cell(cell)
    assert done.outcome is not None
    assert done.outcome.queries == 0
    assert "cosine" in done.outcome.best("cosine").measures


def test_the_floor_reads_texts_too() -> None:
    def predict(texts: Rows) -> Floats:
        bad = np.array(["win" in str(text) for text in texts])
        return np.stack((1 - 0.9 * bad, 0.9 * bad), axis=1)

    texts = [f"{a} {b} {c}" for a in ("win", "see") for b in ("cash", "you", "now") for c in ("today", "later", "soon")]
    knows = replace(VICTIM.knows, kind="text", size=0, classes=2, own_x=texts, own_y=predict(texts).argmax(axis=1))
    spam = replace(VICTIM, predict=predict, knows=knows, test_x=texts[::-1], test_y=None)
    outcome = zero_query(world(spam))
    assert outcome.best("agreement").measures["agreement"].value == 1.0
