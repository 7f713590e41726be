"""Gaussian noise on a grid: its size, its events, and what an attacker reads in the last bits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from guard.defences.base import Randomness
from guard.errors import UpstreamError
from guard.model.arrays import Floats
from guard.model.outputs import Outputs
from guard.privacy.events import Gaussian
from tests.support.mechanisms import Cryptographic, bound, outputs_of
from tests.support.randomness import Seeded, batch_of

RNG = Cryptographic()
WIDE = Outputs(kind="value", low=-1000, high=1000)


def released(values: list[float], rng: Randomness = RNG, *, kind: str = "dp_gaussian") -> Floats:
    """Values near 0, with noise that measures 1: far from the bounds of -1000 and 1000."""
    mechanism = bound(kind, outputs=WIDE, columns=1, sensitivity=1.0, noise_multiplier=1.0)
    return mechanism.apply(batch_of([[value] for value in values], "value"), rng, b"").scores[:, 0]


def test_noise_has_its_standard_deviation_and_no_bias() -> None:
    noise = released([0.25] * 40_000, Seeded(40_000, 3)) - 0.25
    # 4.9 standard errors: one in a million.
    assert abs(noise.mean()) < 4.9 / 200
    assert abs(noise.var() - 1) < 4.9 * np.sqrt(2 / 40_000)


def test_half_the_noise_would_be_noticed() -> None:
    noise = (released([0.25] * 40_000, Seeded(40_000, 3)) - 0.25) / 2
    assert abs(noise.var() - 1) > 4.9 * np.sqrt(2 / 40_000)


@pytest.mark.parametrize("quorum", [1, 100])
def test_noise_measures_its_multiple_of_the_sensitivity_and_hardly_more(quorum: int) -> None:
    grid = bound("dp_gaussian", columns=10, quorum=quorum, noise_multiplier=20.0).grid
    exact = 20.0 * 2**0.5 / quorum
    assert exact <= grid.width < exact * (1 + 1e-6)
    assert grid.fine


def test_any_input_leads_to_the_same_set_of_outputs() -> None:
    # Mironov, 2012: what floating-point noise can add to a score depends on the score.
    grain = bound("dp_gaussian", outputs=WIDE, columns=1, sensitivity=1.0, noise_multiplier=1.0).grid.grain
    for value in (0.0, 1 / 3, 0.1, -np.pi, 5e-324, 2.0**-40, 123.456):
        assert off_grid(released([value] * 2000), grain) == 0
    naive = 1 / 3 + np.random.default_rng(0).normal(size=2000)
    assert off_grid(naive, grain) > 0.5


def test_noise_on_a_grid_without_scores_on_it_would_tell_them() -> None:
    grain = bound("dp_gaussian", outputs=WIDE, columns=1, sensitivity=1.0, noise_multiplier=1.0).grid.grain

    def guess(answers: Floats) -> list[float]:
        """The candidates that all answers could come from, were noise alone on the grid."""
        return [c for c in (0.1, 0.3, 0.7) if off_grid(answers - c, grain) < 0.01]

    noise = np.rint(np.random.default_rng(0).normal(size=500) / grain) * grain
    assert guess(0.3 + noise) == [0.3]
    assert guess(released([0.3] * 500)) == []


def off_grid(values: Floats, grain: float) -> float:
    """Share of values that are no whole number of grains, to within what a sum of two floats rounds."""
    steps = values / grain
    return float(np.mean(np.abs(steps - np.rint(steps)) > 1e-3))


def test_nothing_below_the_grid_gets_through_the_projection() -> None:
    mechanism = bound("dp_gaussian", columns=10, quorum=100, noise_multiplier=0.5)
    scores = np.random.default_rng(5).dirichlet(np.ones(10), 200)
    on_grid = mechanism.grid.scores(mechanism.grid.snap(scores))
    one = mechanism.apply(batch_of(scores), Seeded(200, 1), b"").scores
    # The same whole steps, from other floats: the same bytes of noise give the same bits.
    shifted = scores + np.where(scores - on_grid > 0, -1, 1) * mechanism.grid.grain / 8
    other = mechanism.apply(batch_of(shifted), Seeded(200, 1), b"").scores
    same = (mechanism.grid.snap(mechanism.domain.fit(shifted)) == mechanism.grid.snap(scores)).all(axis=1)
    assert np.count_nonzero(same) > 50
    assert np.array_equal(one[same], other[same])


def test_every_answer_is_drawn_anew() -> None:
    assert len(set(released([0.5] * 1000).tolist())) == 1000
    assert not np.array_equal(released([0.5] * 10), released([0.5] * 10))


def test_labels_follow_the_noisy_scores() -> None:
    mechanism = bound("dp_gaussian", columns=3, noise_multiplier=20.0)
    after = mechanism.apply(batch_of([[0.9, 0.05, 0.05]] * 300), RNG, b"")
    assert np.array_equal(after.top, after.scores.argmax(axis=1))
    assert set(after.top.tolist()) == {0, 1, 2}


def test_values_and_embeddings_stay_in_their_domain() -> None:
    values = bound("dp_gaussian", outputs=Outputs(kind="value", low=-1, high=3), columns=1, noise_multiplier=5.0)
    found = values.apply(batch_of([[-1.0], [3.0], [0.5]] * 100, "value"), RNG, b"").scores
    assert (found >= -1).all()
    assert (found <= 3).all()
    assert found.min() == -1
    assert found.max() == 3
    vectors = bound("dp_gaussian", outputs=Outputs(kind="embedding", norm=2), columns=4096, noise_multiplier=0.1)
    far = np.random.default_rng(0).normal(size=(50, 16)) * 9
    lengths = np.linalg.norm(vectors.apply(batch_of(far, "embedding"), RNG, b"").scores, axis=1)
    assert lengths.max() <= 2 * (1 + 1e-12)


@pytest.mark.parametrize("reach", [1e-6, 1e6])
@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e9])
def test_the_smallest_and_the_greatest_ranges_and_noises_work(reach: float, ratio: float) -> None:
    outputs = Outputs(kind="value", low=-reach, high=reach)
    mechanism = bound("dp_gaussian", outputs=outputs, columns=1, noise_multiplier=ratio)
    assert Fraction(mechanism.grid.scale) * Fraction(mechanism.grid.grain) >= Fraction(ratio) * Fraction(2 * reach)
    found = mechanism.apply(batch_of([[-reach], [reach], [0.0], [reach / 3]] * 50, "value"), RNG, b"").scores
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= reach
    if ratio == 1e-3:
        assert found[0, 0] == pytest.approx(-reach, abs=0.02 * reach)


def test_a_wide_batch_and_an_embedding_of_4096_numbers_work() -> None:
    mechanism = bound("dp_gaussian", outputs=outputs_of("probabilities", 4096), columns=4096, noise_multiplier=1e9)
    assert mechanism.apply(batch_of(np.full((3, 4096), 1 / 4096)), RNG, b"").scores.sum(axis=1) == pytest.approx(1)
    assert mechanism.event() == Gaussian(1e9)
    vectors = bound("dp_gaussian", outputs=Outputs(kind="embedding", norm=1), columns=4096, noise_multiplier=1.0)
    with pytest.raises(UpstreamError, match="another form"):
        vectors.apply(batch_of(np.zeros((1, 4097)), "embedding"), RNG, b"")


def test_a_coarse_grid_is_accounted_as_one() -> None:
    fine = bound("dp_gaussian", quorum=100, noise_multiplier=20.0, granularity=1e-12)
    coarse = bound("dp_gaussian", quorum=100, noise_multiplier=20.0, granularity=1e-3)
    assert fine.event() == Gaussian(20.0, fine=True)
    assert coarse.event() == Gaussian(20.0, fine=False)
    # A grid of a fourteenth of the sensitivity: rounding two columns adds a tenth to it.
    assert coarse.grid.width == pytest.approx(0.2828 * (1 + 2**0.5 / 14.48), rel=0.01)


def test_solving_with_a_coarse_grid_takes_its_own_accounting() -> None:
    aim = {"epsilon": 8.0, "delta": 1e-6, "answers": 1000}
    auto, coarse = bound("dp_gaussian", aim).event(), bound("dp_gaussian", aim, granularity=0.25).event()
    assert isinstance(auto, Gaussian)
    assert isinstance(coarse, Gaussian)
    assert auto.fine
    assert not coarse.fine
    assert auto.noise_multiplier < coarse.noise_multiplier < 1.1 * auto.noise_multiplier


def test_a_granularity_that_numbers_cannot_hold_is_said_when_the_route_is_compiled() -> None:
    with pytest.raises(ValueError, match="no room in 64 bits"):
        bound("dp_gaussian", noise_multiplier=1.0, granularity=1e-18)
    with pytest.raises(ValueError, match="too fine"):
        bound("dp_gaussian", noise_multiplier=1e6, granularity=1e-12)
