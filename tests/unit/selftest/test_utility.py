"""What honest users pay: accuracy beside the undefended model's, over whoever was answered."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guard.selftest.base import Refused, Rows
from guard.selftest.measures import Floats
from guard.selftest.results import Utility
from guard.selftest.utility import held_labels, measure_utility
from tests.unit.selftest.support import ModelApi, linear_victim

MODEL = linear_victim()
X = np.asarray(MODEL.test_x)


def other(x: Rows) -> Floats:
    """Answer for another model: the columns turned in a tenth of the rows."""
    scores = MODEL.predict(x)
    turned = np.asarray(x)[:, 0] > np.quantile(X[:, 0], 0.9)
    return np.where(turned[:, None], np.roll(scores, 1, axis=1), scores)


def measured(users: list[ModelApi], y: object) -> Utility:
    return measure_utility("toy", list(users), ModelApi(MODEL.predict), X, MODEL.predict(X), held_labels(y))


def test_accuracy_stands_beside_the_undefended_models() -> None:
    paid = measured([ModelApi(other), ModelApi(other)], MODEL.test_y)
    assert (paid.accuracy_before, paid.accuracy) == (1.0, 0.9)
    assert paid.accuracy_lost == pytest.approx(0.1)
    assert paid.top1_changed == pytest.approx(0.1)
    same = measured([ModelApi(MODEL.predict)] * 2, MODEL.test_y)
    assert (same.accuracy_lost, same.top1_changed) == (0.0, 0.0)


def test_without_labels_there_is_no_accuracy() -> None:
    paid = measured([ModelApi(other), ModelApi(other)], None)
    assert (paid.accuracy, paid.accuracy_before, paid.accuracy_lost) == (None, None, None)


def test_rows_that_were_refused_are_counted_and_not_judged() -> None:
    paid = measured([ModelApi(MODEL.predict, limit=50), ModelApi(MODEL.predict, limit=0)], MODEL.test_y)
    assert (paid.refused, paid.accuracy) == (0.75, 1.0)
    nobody = measured([ModelApi(MODEL.predict, limit=0)] * 2, MODEL.test_y)
    assert (nobody.refused, nobody.accuracy) == (1.0, None)
    assert math.isnan(nobody.added_p50_ms)


class Watched(ModelApi):
    """Refuses for good after some rows, as a ladder does (403) or as a budget does (429)."""

    def __init__(self, most: int, status: int) -> None:
        super().__init__(MODEL.predict)
        self.most, self.status = most, status

    def ask(self, x: Rows) -> Floats:
        """Answer until then."""
        if self.answered + len(x) > self.most:
            raise Refused(self.status, "no", super().ask(x[: self.most - self.answered]))
        return super().ask(x)


@pytest.mark.parametrize(("status", "refused"), [(403, 0.25), (429, 0.0)])
def test_a_ladder_that_denies_an_honest_user_who_asks_everything_is_told(status: int, refused: float) -> None:
    users = [Watched(150, status) for _ in range(8)]  # of 200 rows; six of the users ask 34 each
    paid = measured([*users], MODEL.test_y)
    assert (paid.refused, paid.accuracy) == (refused, 1.0)
    assert users[-2].answered == 150
    assert users[0].answered == 34
