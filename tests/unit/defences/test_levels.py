"""A label and a level."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.levels import Levels
from guard.defences.top_k import TopK
from tests.support.randomness import Seeded, batch_of


def apply(batch: Batch, *levels: float) -> Batch:
    spec = Levels(levels=levels) if levels else Levels()
    return spec.apply(batch, Seeded(len(batch.scores)), b"")


@pytest.mark.parametrize(
    ("best", "level"), [(0.5, 0.55), (0.64, 0.55), (0.66, 0.75), (0.83, 0.9), (0.96, 0.99), (1.0, 0.99)]
)
def test_the_top_takes_the_nearest_level_and_the_others_share(best: float, level: float) -> None:
    rest = (1 - best) / 2
    after = apply(batch_of([[rest, best, rest]]))
    assert np.allclose(after.scores, [[(1 - level) / 2, level, (1 - level) / 2]])


def test_levels_no_higher_than_an_even_share_are_passed_over() -> None:
    after = apply(batch_of([[0.51, 0.49]]), 0.2, 0.5, 0.9)
    assert np.allclose(after.scores, [[0.9, 0.1]])


def test_a_single_class_is_certain() -> None:
    assert apply(batch_of([[1.0]])).scores.tolist() == [[1.0]]


def test_a_truncated_row_leaves_a_share_to_what_was_dropped() -> None:
    truncated = TopK(k=2).apply(batch_of([[0.5, 0.3, 0.2]]), Seeded(1), b"")
    after = apply(truncated)
    assert np.allclose(after.scores, [[0.55, 0.225, 0]])
    assert after.kept is truncated.kept
    assert np.allclose(apply(batch_of([[0.3]], complete=False)).scores, [[0.55]])


@pytest.mark.parametrize("levels", [(), (0.9, 0.6), (0.5,), (0.0, 0.9), (0.6, 1.1), (0.6, 0.6), (float("nan"),)])
def test_levels_that_cannot_work_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Levels(levels=levels)
