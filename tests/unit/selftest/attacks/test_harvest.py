"""Harvesting: what is answered is kept, what is refused for itself is passed over, a refusal for good ends it."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.attacks.harvest import PATIENCE, harvest
from guard.selftest.base import Refused, Rows, Tally
from guard.selftest.measures import Floats

X = np.arange(300.0).reshape(100, 3)


class Choosy:
    """Refuses some rows, by number, each with its status; stops at the first, as Guard's client does."""

    def __init__(self, refused: dict[int, int]) -> None:
        self.refused, self.asked, self.tally = refused, 0, Tally()

    def ask(self, x: Rows) -> Floats:
        """Return a row's first member twice."""
        rows = np.asarray(x, dtype=np.float64)
        for place, row in enumerate(rows):
            self.asked += 1
            status = self.refused.get(int(row[0]) // 3)
            if status is not None:
                raise Refused(status, answers=rows[:place, :2])
        return rows[:, :2]

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return them by a name."""
        return {"scores": self.ask(x)}


def test_rows_that_are_withheld_are_passed_over() -> None:
    x, y = harvest(Choosy({0: 422, 7: 422, 8: 422, 99: 422}), X, 2)
    kept = [i for i in range(100) if i not in (0, 7, 8, 99)]
    np.testing.assert_array_equal(np.asarray(x), X[kept])
    np.testing.assert_array_equal(y, X[kept, :2])


def test_a_refusal_for_good_ends_it() -> None:
    x, y = harvest(Choosy({3: 422, 10: 429}), X, 2)
    assert (len(x), len(y)) == (9, 9)


@pytest.mark.parametrize("status", [422, 429])
def test_nothing_answered_is_a_refusal(status: int) -> None:
    api = Choosy(dict.fromkeys(range(100), status))
    with pytest.raises(Refused):
        harvest(api, X, 2)
    assert api.asked == (PATIENCE if status == 422 else 1)


def test_what_is_answered_whole_is_returned_as_it_was_asked() -> None:
    x, y = harvest(Choosy({}), X, 2)
    assert x is X
    assert len(y) == len(X)
    assert harvest(Choosy({}), X[:0], 2)[1].shape == (0, 2)
