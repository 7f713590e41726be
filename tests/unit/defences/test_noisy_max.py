"""The label that wins after noise, and the threshold that it must reach."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from pydantic import ValidationError

from guard.privacy.events import Composed, Gaussian
from tests.support.mechanisms import Cryptographic, bound, made
from tests.support.randomness import Seeded, batch_of

RNG = Cryptographic()
AGREED, SPLIT = [0.9, 0.05, 0.05], [0.34, 0.33, 0.33]


def test_only_the_label_leaves() -> None:
    after = bound("noisy_max", columns=3, quorum=100, noise_multiplier=20.0).apply(batch_of([AGREED] * 400), RNG, b"")
    assert after.labels_only
    assert after.kept is not None
    assert np.array_equal(after.kept, after.scores == 1)
    assert (after.scores.sum(axis=1) == 1).all()
    assert np.array_equal(after.top, after.scores.argmax(axis=1))


def test_the_greater_lead_wins_more_often() -> None:
    mechanism = bound("noisy_max", columns=3, quorum=100, noise_multiplier=20.0)
    agreed, split = (mechanism.apply(batch_of([row] * 4000), Seeded(0, 1), b"").top for row in (AGREED, SPLIT))
    assert np.mean(agreed == 0) > 0.9
    assert 0.3 < np.mean(split == 0) < 0.4


def test_a_tie_falls_to_a_column_whatever_the_scores_were() -> None:
    # A grid of halves and noise of one step: ties are common, and the first of them wins from either side.
    mechanism = bound("noisy_max", columns=2, noise_multiplier=0.001)
    coarse = mechanism.knowing(_grid=type(mechanism.grid)(0.5, 1))
    wins = [
        np.count_nonzero(coarse.apply(batch_of([row] * 20_000), Seeded(0, 2), b"").top == 0)
        for row in ([0.5, 0.5], [0.4999, 0.5001])
    ]
    assert wins[0] == wins[1] > 11_000


def test_below_the_threshold_nothing_is_released() -> None:
    mechanism = bound(
        "noisy_max",
        columns=3,
        quorum=100,
        noise_multiplier=20.0,
        threshold=0.6,
        threshold_noise_multiplier=2.0,
    )
    after = mechanism.apply(batch_of([AGREED, SPLIT] * 200), RNG, b"")
    withheld = np.isnan(after.scores).all(axis=1)
    assert np.array_equal(withheld, np.isnan(after.scores).any(axis=1))
    assert withheld.tolist() == [False, True] * 200
    assert not after.top[withheld].any()
    assert after.kept is not None
    assert after.kept[withheld].all()
    assert (after.scores[~withheld].sum(axis=1) == 1).all()


def test_the_threshold_has_noise_of_its_own() -> None:
    mechanism = bound("noisy_max", quorum=100, noise_multiplier=1.0, threshold=0.6, threshold_noise_multiplier=10.0)
    # Noise of .1: the chance of reaching .6 from .5 is that of one standard deviation.
    after = mechanism.apply(batch_of([[0.5, 0.5]] * 20_000), Seeded(0, 4), b"")
    answered = 1 - np.isnan(after.scores[:, 0]).mean()
    assert abs(answered - 0.158655) < 4.9 * np.sqrt(0.158655 * 0.841345 / 20_000)
    # The vote beside it is as it was: heads and tails among what is answered.
    heads = np.nanmean(after.scores[:, 0])
    assert abs(heads - 0.5) < 4.9 * 0.5 / np.sqrt(20_000 * answered)


def test_threshold_and_vote_are_always_charged_both() -> None:
    mechanism = bound("noisy_max", noise_multiplier=20.0, threshold=0.6, threshold_noise_multiplier=40.0)
    assert mechanism.event() == Composed((Gaussian(40.0), Gaussian(20.0)))
    assert bound("noisy_max", noise_multiplier=20.0).event() == Gaussian(20.0)


def test_a_threshold_whose_noise_has_few_steps_is_accounted_as_such() -> None:
    # A thousandth of 1 / 4096: float64 has no room for 2^32 steps of it beside a score of 1.
    event = bound(
        "noisy_max", quorum=4096, noise_multiplier=20.0, threshold=0.6, threshold_noise_multiplier=0.001
    ).event()
    assert event == Composed((Gaussian(0.001, fine=False), Gaussian(20.0)))


def test_a_known_threshold_leaves_less_for_the_vote() -> None:
    aim = {"epsilon": 8.0, "delta": 1e-6, "answers": 1000}
    alone = bound("noisy_max", aim).event()
    both = bound("noisy_max", aim, threshold=0.6, threshold_noise_multiplier=40.0).event()
    assert isinstance(alone, Gaussian)
    assert isinstance(both, Composed)
    assert both.parts[0] == Gaussian(40.0)
    spent = sum(1 / part.noise_multiplier**2 for part in both.parts if isinstance(part, Gaussian))
    assert spent == pytest.approx(1 / alone.noise_multiplier**2)


@pytest.mark.parametrize("columns", [2, 3, 1000])
def test_the_threshold_is_measured_by_what_the_greatest_score_can_move(columns: int) -> None:
    implied = bound(
        "noisy_max",
        columns=columns,
        quorum=50,
        noise_multiplier=1.0,
        threshold=0.6,
        threshold_noise_multiplier=10.0,
    )
    assert "standard deviation 0.2 on" in implied.noise()
    # Declared in L2: a move of L2 length s that sums to 0 moves one score by s * sqrt((k - 1) / k), not by s / sqrt 2.
    declared = bound(
        "noisy_max",
        columns=columns,
        sensitivity=0.01,
        noise_multiplier=1.0,
        threshold=0.6,
        threshold_noise_multiplier=10.0,
    )
    worst = np.full(columns, -1.0 / (columns - 1))
    worst[0] = 1.0
    move = 0.01 * Fraction(float((worst / np.linalg.norm(worst)).max()))
    assert f"standard deviation {float(10 * move):.6g} on" in declared.noise()


@pytest.mark.parametrize("field", ["threshold", "threshold_noise_multiplier"])
def test_a_threshold_needs_noise_and_noise_a_threshold(field: str) -> None:
    with pytest.raises(ValidationError, match="come together"):
        made("noisy_max", noise_multiplier=5.0, **{field: 0.5})


def test_a_threshold_that_no_score_reaches_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        made("noisy_max", noise_multiplier=5.0, threshold=1.5, threshold_noise_multiplier=5.0)
