"""Noise: bounds, argmax, and what `check` demands."""

from __future__ import annotations

import numpy as np
import pytest

from guard.defences.noise import Noise
from guard.defences.top_k import TopK
from guard.engine.randomness import QueryNoise
from guard.errors import InvariantError
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs
from guard.model.queries import Queries
from tests.support.randomness import Constant, Seeded, batch_of

SCORES = np.random.default_rng(3).dirichlet(np.ones(5), 40)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_probabilities_stay_distributions(mechanism: str) -> None:
    noise = Noise.model_validate({"kind": "noise", "mechanism": mechanism, "scale": 0.3})
    after = noise.apply(batch_of(SCORES), Seeded(40), b"")
    assert after.scores.min() >= 0
    assert np.allclose(after.scores.sum(axis=1), 1)
    assert not np.allclose(after.scores, SCORES)


def test_without_renormalising_they_are_only_clipped() -> None:
    after = Noise(scale=0.3, renormalise=False).apply(batch_of(SCORES), Seeded(40), b"")
    assert after.scores.min() == 0
    assert after.scores.max() <= 1
    assert not np.allclose(after.scores.sum(axis=1), 1)


def test_a_row_clipped_to_nothing_becomes_certain_of_its_top() -> None:
    # u just above 0 makes every laplace noise about -22 scales.
    after = Noise(mechanism="laplace", scale=1).apply(batch_of([[0.2, 0.5, 0.3]]), Constant(1, 2.0**-33), b"")
    assert after.scores.tolist() == [[0, 1, 0]]


def test_dropped_scores_stay_dropped() -> None:
    truncated = TopK(k=2).apply(batch_of(SCORES), Seeded(40), b"")
    after = Noise(scale=0.1).apply(truncated, Seeded(40), b"")
    assert truncated.kept is not None
    assert not after.scores[~truncated.kept].any()
    assert after.kept is truncated.kept


def test_labels_change_only_when_asked() -> None:
    batch = batch_of(SCORES)
    kept = Noise(scale=0.5).apply(batch, Seeded(40), b"")
    changed = Noise(scale=0.5, keep_argmax=False).apply(batch, Seeded(40), b"")
    assert kept.scores.argmax(axis=1).tolist() == batch.top.tolist()
    assert kept.top is batch.top
    assert changed.scores.argmax(axis=1).tolist() == changed.top.tolist()
    assert changed.top.tolist() != batch.top.tolist()


@pytest.mark.parametrize("kind", ["value", "embedding", "logits"])
def test_other_kinds_get_plain_noise(kind: Kind) -> None:
    scores = np.array([[5.0, -7.0, 40.0]])
    after = Noise(scale=0.01).apply(batch_of(scores, kind), Seeded(1), b"").scores
    assert 0 < np.abs(after - scores).max() < 0.06


def test_values_may_change_their_order() -> None:
    scores = np.zeros((200, 2))
    after = Noise(scale=1).apply(batch_of(scores, "value"), Seeded(200), b"").scores
    assert 60 < after.argmax(axis=1).sum() < 140


def test_logprobs_stay_logprobs() -> None:
    batch = batch_of(np.log(SCORES), "logprobs")
    after = Noise(scale=0.5).apply(batch, Seeded(40), b"").scores
    assert after.max() <= 0
    assert np.allclose(np.exp(after).sum(axis=1), 1)
    part = Noise(scale=5).apply(batch_of(np.log(SCORES[:, :2]), "logprobs", complete=False), Seeded(40), b"").scores
    assert part.max() <= 0
    assert not np.allclose(np.exp(part).sum(axis=1), 1)


def test_noisy_scores_lie_on_a_lattice_that_hides_the_last_bits() -> None:
    scores = np.random.default_rng(1).normal(size=(50, 4))
    after = Noise(scale=0.02).apply(batch_of(scores, "logits"), Seeded(50), b"").scores
    grain = 2.0**-18
    assert np.array_equal(after, np.rint(after / grain) * grain)
    # Two scores that differ by far less than the lattice give the same release nearly always.
    again = Noise(scale=0.02).apply(batch_of(scores + 1e-12, "logits"), Seeded(50), b"").scores
    assert np.array_equal(after, again)


def test_a_step_of_its_own_gets_noise_of_its_own() -> None:
    batch = batch_of(SCORES)
    one, other = (Noise(scale=0.1).apply(batch, Seeded(40), salt).scores for salt in (b"0", b"1"))
    assert not np.allclose(one, other)


def test_an_answer_with_other_rows_than_the_request_is_an_error() -> None:
    with pytest.raises(InvariantError):
        Noise(scale=0.1).apply(batch_of(SCORES), Seeded(1), b"")


def test_labels_that_may_change_need_names() -> None:
    noise = Noise(scale=0.1, keep_argmax=False)
    assert [p.path for p in noise.check(Outputs(), None)] == ["keep_argmax"]
    assert noise.check(Outputs(classes=("a", "b")), None) == []
    assert noise.check(Outputs(kind="value"), None) == []


def test_cells_need_a_range() -> None:
    noise = Noise(scale=0.1, reuse="cell")
    assert [p.path for p in noise.check(Outputs(), None)] == ["reuse"]
    assert [p.path for p in noise.check(Outputs(), Inputs(kind="vector", size=3))] == ["reuse"]
    assert noise.check(Outputs(), Inputs(kind="vector", size=3, low=0, high=1)) == []
    assert noise.check(Outputs(), Inputs(kind="text")) == []


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_asking_for_fewer_classes_draws_no_other_noise(mechanism: str) -> None:
    # Triton's classification and `top_k` let a client choose: every number of classes would be a draw to average.
    noise = Noise.model_validate({"kind": "noise", "mechanism": mechanism, "scale": 0.3})
    rng = QueryNoise(bytes(32), "model", "alice", Queries(1, [[1.0, 2.0]]), None)
    logits = np.array([np.linspace(9, -9, 30)])
    most = noise.apply(batch_of(logits, "embedding"), rng, b"0.0").scores
    for k in (1, 2, 3, 16, 17, 29):
        fewer = noise.apply(batch_of(logits[:, :k], "embedding"), rng, b"0.0").scores
        assert np.array_equal(fewer, most[:, :k])
