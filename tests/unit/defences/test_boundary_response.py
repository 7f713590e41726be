"""Answers near the decision boundary."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from guard.defences.base import Batch
from guard.defences.boundary_response import BoundaryResponse
from guard.defences.top_k import TopK
from guard.engine.randomness import QueryNoise
from guard.errors import InvariantError
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.model.queries import Queries
from tests.support.randomness import Constant, Seeded, batch_of

NEAR = [[0.48, 0.45, 0.07]]
FAR = [[0.6, 0.3, 0.1]]


def swapping(batch: Batch, margin: float = 0.05) -> Batch:
    return BoundaryResponse(margin=margin).apply(batch, Constant(len(batch.scores), 1 - 2**-16), b"")


def test_near_the_boundary_the_two_best_change_places_and_so_does_the_label() -> None:
    after = swapping(batch_of(NEAR))
    assert after.scores.tolist() == [[0.45, 0.48, 0.07]]
    assert after.top.tolist() == [1]


def test_far_from_the_boundary_nothing_changes() -> None:
    batch = batch_of(FAR)
    assert swapping(batch) is batch


def test_a_low_draw_keeps_the_answer() -> None:
    batch = batch_of(NEAR)
    assert BoundaryResponse().apply(batch, Constant(1, 0.0), b"") is batch


def test_equal_scores_are_parted_by_their_last_bit() -> None:
    after = swapping(batch_of([[0.4, 0.4, 0.2]]))
    assert after.top.tolist() == [1]
    assert after.scores.argmax(axis=1).tolist() == [1]
    assert np.allclose(after.scores, [[0.4, 0.4, 0.2]])


@pytest.mark.parametrize(("epsilon", "keep"), [(0.5, 0.747), (1, 0.840), (10, 1.0)])
def test_answers_are_kept_as_often_as_the_paper_says(epsilon: float, keep: float) -> None:
    spec = BoundaryResponse(epsilon=epsilon)
    assert spec.keep == pytest.approx(keep, abs=1e-3)
    after = spec.apply(batch_of(np.repeat(NEAR, 20_000, axis=0)), Seeded(20_000), b"")
    # Six standard deviations.
    assert (after.top == 0).mean() == pytest.approx(spec.keep, abs=0.019)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1, 3])
def test_what_agreement_of_two_answers_tells_is_bounded_by_epsilon(epsilon: float) -> None:
    # Odds that two labels agree when two answers do: (p^2 + q^2) / 2pq.
    p = BoundaryResponse(epsilon=epsilon).keep
    assert (p**2 + (1 - p) ** 2) / (2 * p * (1 - p)) == pytest.approx(np.exp(epsilon))


def test_a_repeat_is_answered_alike_and_another_client_by_a_draw_of_its_own() -> None:
    batch = batch_of(np.repeat(NEAR, 64, axis=0))
    rows = [[float(i), 1.0] for i in range(64)]

    def tops(client: str, order: list[int]) -> list[int]:
        noise = QueryNoise(bytes(32), "model", client, Queries(64, [rows[i] for i in order]), None)
        return BoundaryResponse().apply(batch, noise, b"0.0").top.tolist()

    there, back = tops("alice", list(range(64))), tops("alice", list(range(63, -1, -1)))
    assert there == back[::-1]
    assert 0 < sum(there) < 64
    assert there != tops("bob", list(range(64)))


def test_a_single_score_says_nothing_of_the_boundary_and_stays() -> None:
    one = batch_of([[0.34]], complete=False)
    assert swapping(one) is one
    truncated = TopK(k=1).apply(batch_of(NEAR), Seeded(1), b"")
    assert swapping(truncated) is truncated


def test_dropped_scores_stay_dropped() -> None:
    truncated = TopK(k=2).apply(batch_of(NEAR), Seeded(1), b"")
    after = swapping(truncated)
    assert after.scores.tolist() == [[0.45, 0.48, 0]]
    assert after.kept is truncated.kept


def test_an_answer_with_other_rows_than_the_request_is_an_error() -> None:
    with pytest.raises(InvariantError):
        BoundaryResponse().apply(batch_of(NEAR * 2), Seeded(1), b"")


def test_labels_that_will_change_need_names() -> None:
    assert [p.path for p in BoundaryResponse().check(Outputs(), None)] == ["kind"]
    assert BoundaryResponse().check(Outputs(classes=("a", "b", "c")), None) == []
    # Without scores there is no margin to go by.
    assert [p.path for p in BoundaryResponse().check(Outputs(kind="labels", classes=("a", "b")), None)] == ["kind"]


def test_cells_need_a_range() -> None:
    spec, outputs = BoundaryResponse(reuse="cell"), Outputs(classes=("a", "b", "c"))
    assert [p.path for p in spec.check(outputs, None)] == ["reuse"]
    assert spec.check(outputs, Inputs(kind="vector", size=3, low=0, high=1)) == []


def test_fresh_draws_are_refused() -> None:
    with pytest.raises(ValidationError):
        BoundaryResponse.model_validate({"kind": "boundary_response", "reuse": "none"})
