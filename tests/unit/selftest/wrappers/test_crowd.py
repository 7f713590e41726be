"""Hiding: a detector of unusual traffic sees one query in four, ten or twenty."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from guard.selftest.api import is_label, one_hot
from guard.selftest.base import Refused, Rows
from guard.selftest.measures import Floats
from guard.selftest.wrappers import WRAPPERS
from tests.unit.selftest.support import ModelApi, linear_victim, world

VICTIM = linear_victim()
WINDOW = 40
X = np.random.default_rng(3).uniform(-4, 4, (100, 8))


class Watched(ModelApi):
    """Answers labels while half of the last rows lie further out than benign ones do."""

    def __init__(self) -> None:
        super().__init__(VICTIM.predict)
        self.seen: list[bool] = []

    def ask(self, x: Rows) -> Floats:
        """Answer row by row."""
        scores = super().ask(x)
        for i, row in enumerate(cast("Floats", x)):
            self.seen = [*self.seen[1 - WINDOW :], bool(np.abs(row).max() > 3)]
            if sum(self.seen) >= WINDOW // 2:
                scores[i] = one_hot(scores[i : i + 1].argmax(axis=1).astype(float), 3)[0]
        return scores


@pytest.mark.parametrize("name", ["hide_5", "hide_10", "hide_25"])
def test_hiding_breaks_a_detector_of_windows(name: str) -> None:
    assert is_label(Watched().ask(X)).sum() > 50
    around = WRAPPERS[name](world(VICTIM, api=Watched()))
    assert np.allclose(around.api.ask(X), VICTIM.predict(X))
    share = int(name.removeprefix("hide_")) / 100
    assert around.api.asked == round(len(X) / share)


def test_hiding_does_not_help_against_a_budget() -> None:
    around = WRAPPERS["hide_10"](world(VICTIM, limit=100))
    with pytest.raises(Refused) as caught:
        around.api.ask(X)
    answers = caught.value.answers
    assert answers is not None
    assert len(answers) < 30
    assert np.allclose(answers, VICTIM.predict(X[: len(answers)]))


def test_members_are_those_of_the_attacks_rows() -> None:
    members = WRAPPERS["hide_25"](world(VICTIM)).api.ask_all(X)
    assert members["label"][:, 0].tolist() == VICTIM.predict(X).argmax(axis=1).tolist()


def test_texts_hide_among_texts() -> None:
    def predict(texts: Rows) -> Floats:
        return np.array([[len(text), 0.5] for text in texts], dtype=np.float64)

    around = world(VICTIM, api=ModelApi(predict))
    knows = replace(around.knows, kind="text", own_x=["benign", "also benign"])
    hidden = WRAPPERS["hide_25"](replace(around, knows=knows))
    assert hidden.api.ask(["a", "four"]).tolist() == [[1.0, 0.5], [4.0, 0.5]]
