"""The lattice of the simplex."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.grid import Grid
from guard.model.arrays import Floats
from tests.support.randomness import Seeded, batch_of


def apply(step: float, batch: Batch) -> Batch:
    return Grid(step=step).apply(batch, Seeded(len(batch.scores)), b"")


def test_auto_is_a_step_of_one_twentieth() -> None:
    batch = batch_of([[0.61, 0.28, 0.11], [0.333, 0.334, 0.333]])
    auto = Grid().apply(batch, Seeded(2), b"").scores
    assert auto.tolist() == apply(0.05, batch).scores.tolist()


def sure(confidence: float) -> Floats:
    """Calibration answers of ten classes, all off the lattice."""
    rest = np.random.default_rng(1).dirichlet(np.ones(9), 200) * (1 - confidence)
    return np.concatenate((np.full((200, 1), confidence), rest), axis=1)


@pytest.mark.parametrize(("confidence", "step"), [(0.3, 0.02), (0.9, 0.02), (0.978, 0.2)])
def test_auto_takes_the_coarsest_step_that_moves_calibration_answers_little(confidence: float, step: float) -> None:
    answers = sure(confidence)
    assert Grid().calibrated(answers).chosen == step
    tried = (0.01, 0.02, 0.04, 0.05, 0.1, 0.2)
    moved = {s: np.abs(apply(s, batch_of(answers)).scores - answers).sum(axis=1).mean() for s in tried}
    assert step == max(s for s in tried if moved[s] <= 0.05)


@pytest.mark.parametrize(("rest", "step"), [(0.0245, 0.2), (0.027, 0.05)])
def test_auto_moves_calibration_answers_by_no_more_than_one_twentieth(rest: float, step: float) -> None:
    # Coarse grids make them certain, which moves them by twice the rest.
    assert Grid().calibrated(np.tile([1 - rest, rest], (5, 1))).chosen == step


def test_auto_takes_the_finest_step_where_all_move_too_much() -> None:
    answers = np.random.default_rng(1).dirichlet(np.ones(200), 50)
    assert Grid().calibrated(answers).chosen == 0.01


def test_calibrated_answers_are_released_on_the_chosen_step() -> None:
    batch = batch_of([[0.61, 0.28, 0.11]])
    learnt = Grid().calibrated(np.tile([0.9985, 0.001, 0.0005], (9, 1)))
    assert learnt.chosen == 0.2
    assert learnt.apply(batch, Seeded(1), b"").scores.tolist() == apply(0.2, batch).scores.tolist()


def test_a_step_that_the_policy_gives_stays() -> None:
    spec = Grid(step=0.04)
    assert spec.calibrated(sure(0.9)) is spec
    assert spec.chosen == 0.04


def test_without_calibration_answers_auto_stays_one_twentieth() -> None:
    assert Grid().calibrated(np.empty((0, 3))).chosen == 0.05


def test_remainders_decide_who_gets_the_units_left() -> None:
    assert apply(0.1, batch_of([[0.62, 0.27, 0.11], [0.55, 0.36, 0.09]])).scores.tolist() == [
        [0.6, 0.3, 0.1],
        [0.5, 0.4, 0.1],
    ]


def test_a_class_that_would_overtake_changes_places_with_the_top() -> None:
    # In thirds: 1.002, 0.999, 0.999. The two units left go to the classes that have none, and all three tie.
    tied = apply(1 / 3, batch_of([[0.333, 0.334, 0.333]])).scores
    assert np.allclose(tied, np.array([[1, 1 + 0.003, 1]]) / 3 / 1.001)
    # In halves of six classes, all floors are 0: two of the largest remainders get a unit, the top among them.
    halves = apply(0.5, batch_of([[0.16, 0.16, 0.2, 0.16, 0.16, 0.16]])).scores
    assert halves.argmax(axis=1).tolist() == [2]
    # In units of 1/5: 2.05, 1.95, 1 exactly: floors 2, 1, 1; the unit left makes 2, 2, 1.
    assert apply(0.2, batch_of([[0.39, 0.41, 0.2]])).scores.argmax(axis=1).tolist() == [1]


def test_the_top_that_a_remainder_passes_is_put_first_again() -> None:
    # In units of 1/4: 1.04, 1.04, 0.96, 0.96 with the top before or behind its equal: ties are parted by .001.
    for scores in ([0.2601, 0.26, 0.24, 0.2399], [0.26, 0.2601, 0.24, 0.2399]):
        batch = batch_of([scores])
        after = apply(0.25, batch).scores
        assert after.argmax(axis=1).tolist() == batch.top.tolist()
        assert np.isclose(after.sum(), 1)


def test_a_distribution_that_is_half_precision_off_still_sums_to_one() -> None:
    assert np.isclose(apply(0.01, batch_of([[0.49, 0.50]])).scores.sum(), 1)


def test_a_truncated_row_takes_the_nearest_multiples() -> None:
    assert apply(0.1, batch_of([[0.62, 0.27, 0.0]], complete=False)).scores.tolist() == [[0.6, 0.3, 0]]
    tied = apply(0.5, batch_of([[0.30, 0.31]], complete=False)).scores
    assert tied.argmax(axis=1).tolist() == [1]
    assert tied.max() <= 1


def test_a_single_score_is_rounded_and_not_made_one() -> None:
    assert apply(0.1, batch_of([[0.62]])).scores.tolist() == [[0.6]]


def test_a_step_of_one_is_one_hot() -> None:
    assert apply(1, batch_of([[0.4, 0.35, 0.25]])).scores.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("step", [0, -0.1, 1.5, "often"])
def test_a_step_that_is_none_is_refused(step: object) -> None:
    with pytest.raises(ValidationError):
        Grid.model_validate({"kind": "grid", "step": step})
