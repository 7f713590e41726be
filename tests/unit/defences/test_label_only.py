"""Labels and nothing else."""

from __future__ import annotations

import pytest

from guard.defences.label_only import LabelOnly
from guard.model.outputs import Kind, Outputs
from tests.support.randomness import Seeded, batch_of


def test_each_row_is_one_hot_and_keeps_only_its_label() -> None:
    after = LabelOnly().apply(batch_of([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]), Seeded(2), b"")
    assert after.scores.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert after.kept is not None
    assert after.kept.tolist() == [[False, True, False], [True, False, False]]
    assert after.labels_only


@pytest.mark.parametrize("kind", ["logits", "logprobs", "value", "embedding"])
def test_other_outputs_can_only_be_denied(kind: Kind) -> None:
    (problem,) = LabelOnly().check(Outputs(kind=kind), None)
    assert "deny" in problem.hint


@pytest.mark.parametrize("kind", ["probabilities", "labels"])
def test_outputs_with_labels_are_fine(kind: Kind) -> None:
    assert LabelOnly().check(Outputs(kind=kind), None) == []
