"""Defences on any distribution: argmax, sums, error bounds, monotone levels."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from guard.defences.base import apportion, keep_top
from guard.defences.boundary_response import BoundaryResponse
from guard.defences.bounded_shift import BoundedShift
from guard.defences.codebook import Codebook
from guard.defences.grid import Grid
from guard.defences.levels import Levels
from guard.defences.noise import Noise
from guard.defences.reverse_sigmoid import ReverseSigmoid
from guard.defences.round import Round
from guard.defences.temperature import Temperature
from guard.defences.top_k import TopK
from guard.model.arrays import Floats
from guard.model.outputs import Outputs
from guard.privacy.lattice import lattice, spread
from guard.privacy.measurement import Norm
from guard.privacy.projection import onto_simplex
from tests.support.mechanisms import bound
from tests.support.randomness import Seeded, batch_of

WEIGHTS = st.one_of(
    st.integers(0, 4).map(float),  # ties, zeros
    st.floats(0, 1),
    st.sampled_from([1e-12, 1 / 3, 0.5 - 1e-9, 0.5, 0.5 + 1e-9]),
)


@st.composite
def simplex(draw: st.DrawFn, *, min_classes: int = 2) -> Floats:
    """Distributions, shape (n, k), many of them with ties and zeros."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(min_classes, 12)))
    weights = draw(hnp.arrays(np.float64, shape, elements=WEIGHTS))
    weights[:, 0] += weights.sum(axis=1) < 1e-6
    return weights / weights.sum(axis=1, keepdims=True)


@given(simplex(), st.integers(0, 12))
def test_rounding_keeps_argmax_sum_and_a_unit_of_error(scores: Floats, decimals: int) -> None:
    before = batch_of(scores)
    after = Round(decimals=decimals).apply(before, Seeded(len(scores)), b"").scores
    unit = 10.0**-decimals
    assert np.array_equal(after.argmax(axis=1), before.top)
    assert np.allclose(after.sum(axis=1), 1, atol=1e-9)
    assert after.min() >= 0
    # Half a unit to the nearest, one unit for the sum's repair, one more to part a tie.
    assert np.abs(after - scores).max() <= 2.5 * unit + 1e-9
    assert np.allclose(after * 10.0**decimals, np.rint(after * 10.0**decimals), atol=1e-3)


@given(simplex(), st.integers(1, 6))
def test_rounding_a_truncated_row_is_plain(scores: Floats, decimals: int) -> None:
    before = batch_of(scores, complete=False)
    after = Round(decimals=decimals).apply(before, Seeded(len(scores)), b"").scores
    others = np.ones(scores.shape, dtype=np.bool_)
    others[np.arange(len(scores)), before.top] = False
    assert np.array_equal(after.argmax(axis=1), before.top)
    moved = np.abs(after - scores)
    assert moved.max() <= 1.5 * 10.0**-decimals + 1e-9
    assert (moved[others] <= 1.0 * 10.0**-decimals + 1e-9).all()


@given(simplex(), st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.2, 1 / 3, 0.5, 1.0]))
def test_the_grid_sums_to_one_and_its_top_is_alone(scores: Floats, step: float) -> None:
    before = batch_of(scores)
    after = Grid(step=step).apply(before, Seeded(len(scores)), b"").scores
    assert np.allclose(after.sum(axis=1), 1)
    assert np.array_equal(after.argmax(axis=1), before.top)
    assert ((after == after.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()
    assert np.abs(after - scores).max() <= step + 2e-3


@given(simplex(), st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6, unique=True))
def test_levels_ascend_with_the_top_score(scores: Floats, levels: list[float]) -> None:
    chosen = tuple(sorted({*levels, 0.95}))
    before = batch_of(scores)
    after = Levels(levels=chosen).apply(before, Seeded(len(scores)), b"").scores
    assert np.allclose(after.sum(axis=1), 1)
    assert np.array_equal(after.argmax(axis=1), before.top)
    order = scores.max(axis=1).argsort(kind="stable")
    assert (np.diff(after.max(axis=1)[order]) >= 0).all()
    assert np.isin(after.max(axis=1), chosen).all()


@given(simplex(), st.integers(1, 12))
def test_truncation_keeps_the_greatest(scores: Floats, k: int) -> None:
    before = batch_of(scores)
    after = TopK(k=k).apply(before, Seeded(len(scores)), b"")
    assert np.array_equal(after.scores.argmax(axis=1), before.top)
    if after.kept is not None:
        assert (after.kept.sum(axis=1) == k).all()
        for row, kept in zip(scores, after.kept, strict=True):
            assert row[kept].min() >= row[~kept].max()


@given(simplex(), st.floats(1e-3, 1e3))
def test_tempered_rows_are_distributions_in_the_same_order(scores: Floats, t: float) -> None:
    before = batch_of(scores)
    after = Temperature(t=t).apply(before, Seeded(len(scores)), b"").scores
    assert np.allclose(after.sum(axis=1), 1)
    assert np.array_equal(after.argmax(axis=1), before.top)
    for row, tempered in zip(scores, after, strict=True):
        assert (np.diff(tempered[row.argsort(kind="stable")]) >= -1e-12).all()


@given(simplex(), st.floats(1e-6, 2))
def test_a_bounded_shift_is_bounded_and_keeps_the_top(scores: Floats, epsilon: float) -> None:
    before = batch_of(scores)
    after = BoundedShift(epsilon=epsilon).apply(before, Seeded(len(scores)), b"").scores
    assert np.abs(after - scores).sum(axis=1).max() <= epsilon + 1e-9
    assert np.array_equal(after.argmax(axis=1), before.top)
    assert np.allclose(after.sum(axis=1), 1)
    assert after.min() >= 0


@given(simplex(), st.floats(1e-6, 1), st.floats(1e-3, 10))
def test_the_reverse_sigmoid_keeps_distributions_and_the_top(scores: Floats, beta: float, gamma: float) -> None:
    before = batch_of(scores)
    after = ReverseSigmoid(beta=beta, gamma=gamma).apply(before, Seeded(len(scores)), b"").scores
    assert np.allclose(after.sum(axis=1), 1)
    assert after.min() >= 0
    assert np.array_equal(after.argmax(axis=1), before.top)


@given(st.integers(2, 8), st.integers(0, 99), st.floats(1e-3, 2), st.data())
def test_coded_rows_are_distributions_with_the_same_top(k: int, seed: int, epsilon: float, data: st.DataObject) -> None:
    generator = np.random.default_rng(seed)
    answers = generator.multinomial(5, np.full(k, 1 / k), 20) / 5  # ties, zeros
    weights = data.draw(hnp.arrays(np.float64, (5, k), elements=WEIGHTS))
    weights[:, 0] += weights.sum(axis=1) < 1e-6
    before = batch_of(weights / weights.sum(axis=1, keepdims=True))
    after = Codebook(epsilon=epsilon).calibrated(answers).apply(before, Seeded(5), b"").scores
    assert np.allclose(after.sum(axis=1), 1)
    assert after.min() >= 0
    assert np.array_equal(after.argmax(axis=1), before.top)


@given(simplex(), st.floats(1e-3, 1), st.integers(0, 2**32 - 1))
def test_boundary_response_exchanges_two_scores_or_none(scores: Floats, margin: float, seed: int) -> None:
    before = batch_of(scores)
    after = BoundaryResponse(margin=margin).apply(before, Seeded(len(scores), seed), b"")
    assert np.allclose(np.sort(after.scores, axis=1), np.sort(scores, axis=1), atol=1e-12)
    assert np.array_equal(after.scores.argmax(axis=1), after.top)
    rows = np.arange(len(scores))
    assert (scores[rows, before.top] - scores[rows, after.top] < margin).all()


@given(simplex(), st.floats(1e-4, 10), st.sampled_from(["gaussian", "laplace"]), st.integers(0, 2**32 - 1))
def test_noisy_rows_are_distributions_with_the_same_top(
    scores: Floats, scale: float, mechanism: str, seed: int
) -> None:
    before = batch_of(scores)
    spec = Noise.model_validate({"kind": "noise", "mechanism": mechanism, "scale": scale})
    after = spec.apply(before, Seeded(len(scores), seed), b"").scores
    assert np.allclose(after.sum(axis=1), 1)
    assert after.min() >= 0
    assert np.array_equal(after.argmax(axis=1), before.top)


@given(simplex(), st.integers(0, 9), st.integers(1, 5), st.sampled_from([0.001, 0.05, 1.0]))
def test_noise_truncation_and_rounding_in_a_row_keep_the_top(
    scores: Floats, decimals: int, k: int, scale: float
) -> None:
    batch = batch_of(scores)
    for spec in (Noise(scale=scale), TopK(k=k), Round(decimals=decimals)):
        batch = spec.apply(batch, Seeded(len(scores)), b"")
    assert np.array_equal(batch.scores.argmax(axis=1), scores.argmax(axis=1))


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    ),
    st.data(),
)
def test_any_column_can_be_made_the_top(scores: Floats, data: st.DataObject) -> None:
    top = data.draw(hnp.arrays(np.int64, len(scores), elements=st.integers(0, scores.shape[1] - 1)))
    kept = keep_top(scores, top)
    assert np.array_equal(kept.argmax(axis=1), top)
    assert np.allclose(np.sort(kept, axis=1), np.sort(scores, axis=1))


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(-1, 1)), st.data())
def test_apportioned_units_add_up(remainders: Floats, data: st.DataObject) -> None:
    n, k = remainders.shape
    units = data.draw(hnp.arrays(np.float64, n, elements=st.integers(-k, k).map(float)))
    moves = apportion(remainders, units)
    assert np.array_equal(moves.sum(axis=1), units)
    assert np.isin(moves, [-1, 0, 1]).all()
    for row, move, due in zip(remainders * np.sign(units)[:, None], moves != 0, units, strict=True):
        if 0 < abs(due) < k:
            assert row[move].min() >= row[~move].max()


SPECS = st.sampled_from(
    [
        ("dp_gaussian", "noise_multiplier"),
        ("dp_laplace", "noise_multiplier"),
        ("noisy_max", "noise_multiplier"),
        ("exponential", "epsilon"),
        ("randomised_response", "epsilon"),
    ]
)


@given(simplex(min_classes=1), SPECS, st.floats(1e-3, 1e3), st.integers(1, 4096), st.integers(0, 2**32 - 1))
def test_what_a_mechanism_releases_is_a_distribution_whose_argmax_is_its_label(
    scores: Floats, spec: tuple[str, str], size: float, quorum: int, seed: int
) -> None:
    kind, parameter = spec
    k = scores.shape[1]
    after = bound(kind, {parameter: size}, columns=k, quorum=quorum).apply(batch_of(scores), Seeded(0, seed), b"")
    assert np.allclose(after.scores.sum(axis=1), 1, atol=1e-12)
    assert after.scores.min() >= 0
    assert np.array_equal(after.scores.argmax(axis=1), after.top)


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-6, 1e6),
    st.floats(1e-3, 1e9),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.data(),
)
def test_what_a_mechanism_releases_of_a_value_is_on_the_grid_or_a_bound(
    low: float, reach: float, ratio: float, seed: int, laplace: bool, data: st.DataObject
) -> None:
    outputs = Outputs(kind="value", low=low, high=low + reach)
    spec = bound("dp_laplace" if laplace else "dp_gaussian", outputs=outputs, columns=1, noise_multiplier=ratio)
    values = data.draw(hnp.arrays(np.float64, (8, 1), elements=st.floats(low, low + reach)))
    after = spec.apply(batch_of(values, "value"), Seeded(0, seed), b"").scores
    steps = after / spec.grid.grain
    assert ((steps == np.rint(steps)) | (after == low) | (after == low + reach)).all()


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(-1e9, 1e9)), st.data()
)
def test_no_distribution_is_nearer_than_the_projection(points: Floats, data: st.DataObject) -> None:
    found = onto_simplex(points)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-12)
    assert found.min() >= 0
    other = data.draw(hnp.arrays(np.float64, points.shape, elements=st.floats(0.01, 1)))
    other /= other.sum(axis=1, keepdims=True)
    # The angle at the nearest point is obtuse, which needs no difference of two great distances.
    angles = ((points - points.max(axis=1, keepdims=True) - found) * (other - found)).sum(axis=1)
    assert (angles <= 1e-6 * np.maximum(1, np.ptp(points, axis=1))).all()


@given(
    st.sampled_from(["l1", "l2", "linf"]),
    st.integers(1, 64),
    st.floats(1e-3, 1e9),
    st.floats(1e-6, 1e6),
    st.one_of(st.none(), st.floats(1e-3, 1e3)),
    st.data(),
)
def test_scores_within_the_sensitivity_are_within_the_noise_on_the_grid(
    norm: Norm, columns: int, ratio: float, sensitivity: float, granularity: float | None, data: st.DataObject
) -> None:
    grid = lattice(ratio, sensitivity, norm, columns, 1e6, granularity)
    directions = hnp.arrays(np.float64, columns, elements=st.floats(-1, 1))
    one, move = data.draw(directions) * 1e3, data.draw(directions)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    move *= sensitivity / max(float(np.linalg.norm(move, order)), float(spread(norm, 1)) * 1e-9)
    steps = grid.snap(one + move) - grid.snap(one)
    assert grid.scale >= ratio * float(np.linalg.norm(steps, order)) * (1 - 1e-12)
