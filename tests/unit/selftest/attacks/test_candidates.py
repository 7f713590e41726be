"""Candidates: what is refused, what reads as a label, and intervals that keep members and non-members apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guard.selftest.attacks.candidates import as_labels, ask_each, candidates, members, reduced, separation
from guard.selftest.base import Refused, Rows, Unresolved
from guard.selftest.lab.judge import LabJudge
from guard.selftest.measures import Floats
from tests.unit.selftest.attacks.leaky import MEMBERS, N, Y, leaky, victim
from tests.unit.selftest.support import ModelApi, world

GRADED, LABEL = [[0.4, 0.6]], [[0.0, 1.0]]


def test_a_row_that_is_refused_for_what_it_is_is_passed_over_and_a_refusal_for_good_ends_it() -> None:
    class Picky(ModelApi):
        def ask(self, x: Rows) -> Floats:
            bad = np.flatnonzero(np.asarray(x)[:, 0] == 9)
            if len(bad):
                raise Refused(422, "outside the domain", super().ask(x[: bad[0]]))
            return super().ask(x)

    def certain(x: Rows) -> Floats:
        return np.tile([0.3, 0.7], (len(x), 1))

    x = np.zeros((10, 1))
    x[[3, 4, 9]] = 9
    told = ask_each(Picky(certain), x, 2)
    assert np.flatnonzero(~told.answered).tolist() == [3, 4, 9]
    assert not told.scores[3].any()
    assert told.scores[5].tolist() == [0.3, 0.7]
    told = ask_each(Picky(certain, limit=6), x, 2)
    assert np.flatnonzero(told.answered).tolist() == [0, 1, 2, 5, 6, 7]


@pytest.mark.parametrize(
    ("answers", "late"),
    [
        (GRADED * 5 + LABEL * 40, 40),
        (GRADED * 5 + LABEL * 9, 0),
        (LABEL * 50, 50),
        (LABEL * 40 + GRADED, 0),
        (LABEL, 1),
    ],
)
def test_labels_count_as_such_where_they_go_on_to_the_end(answers: list[list[float]], late: int) -> None:
    scores = np.array(answers)
    found = reduced(scores, np.ones(len(scores), dtype=bool))
    assert found.sum() == late
    assert found[len(found) - late :].all()


def test_rows_without_an_answer_are_no_labels() -> None:
    scores = np.concatenate((np.array(GRADED * 3 + LABEL * 40), np.zeros((5, 2))))
    answered = np.arange(48) < 43
    assert np.flatnonzero(reduced(scores, answered)).tolist() == list(range(3, 43))
    assert as_labels(np.array([[[0.2, 0.8], [0.7, 0.3]]]), np.array([True, False])).tolist() == [[[0, 1], [0.7, 0.3]]]


def test_what_is_missing_is_said() -> None:
    here = leaky()
    assert len(candidates(here).x) == N
    for extra in ({"candidates_y": None}, {"candidates_y": Y[:5]}, {"candidates_y": np.full(N, 7)}):
        with pytest.raises(Unresolved):
            candidates(world(victim(**extra)))
    with pytest.raises(Unresolved, match="members or not"):
        members(here, 5)
    for secrets in ({}, {"members": np.arange(N) < 3}):
        with pytest.raises(Unresolved):
            members(replace(here, judge=LabJudge(replace(victim(), secrets=secrets))), N)


def test_intervals_hold_the_value_and_chance_is_chance() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=N)
    chance = separation(scores, MEMBERS, rng)["auc"]
    assert chance.low < 0.5 < chance.high
    sure = separation(MEMBERS + 0.1 * scores, MEMBERS, rng)
    assert sure["auc"].value > 0.99
    assert sure["tpr_at_1_fpr"].low > 0.8
    tied = separation(np.zeros(N), MEMBERS, rng)
    assert (tied["auc"].low, tied["auc"].high, tied["tpr_at_1_fpr"].value) == (0.5, 0.5, 0.0)
