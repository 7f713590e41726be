"""The three naive noises: when two answers agree, and what noise leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.lab.noisy import KINDS, noisy
from guard.selftest.lab.registry import victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import linear_victim

MODEL = linear_victim(classes=3)
X = np.asarray(MODEL.test_x)


def agree(kind: str, jitter: float) -> float:
    model = noisy(MODEL, kind, 0)
    error: Floats = model.predict(X) - MODEL.predict(X)
    other: Floats = model.predict(X + jitter) - MODEL.predict(X + jitter)
    return float((np.abs(error - other).max(axis=1) < 1e-6).mean())


@pytest.mark.parametrize(("kind", "repeats", "nearby"), [("fresh", 0, 0), ("exact", 1, 0), ("feature_cell", 1, 1)])
def test_two_answers_agree_as_far_as_their_key_does(kind: str, repeats: float, nearby: float) -> None:
    assert agree(kind, 0.0) == pytest.approx(repeats, abs=0.02)
    assert agree(kind, 1e-9) == pytest.approx(nearby, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_keeps_distributions_and_the_top_class(kind: str) -> None:
    answers = noisy(MODEL, kind, 0).predict(X)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)
    assert (answers > 0).all()
    assert np.array_equal(answers.argmax(axis=1), MODEL.predict(X).argmax(axis=1))
    assert np.abs(answers - MODEL.predict(X)).sum(axis=1).mean() > 0.03


def test_they_are_variants_of_the_labs_classifiers() -> None:
    assert victim("breast_cancer.exact", 0).knows.name == "breast_cancer.exact"
    with pytest.raises(KeyError):
        victim("breast_cancer.gentle", 0)
