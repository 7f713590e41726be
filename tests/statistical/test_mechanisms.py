"""Mechanisms of differential privacy keep their (epsilon, delta) against the best test of two worst neighbours.

Two inputs lie as far apart as their domain allows; an attacker knows both, sees releases of one, and tells which by the
likelihood ratio. For every event S that the attacker may bet on, P(S | one) - e^epsilon P(S | other) <= delta must
hold. Seeds are fixed; by Hoeffding's inequality a sound mechanism fails at one in a million seeds for each event. The
control is the same mechanism on a sensitivity of half of what it is, and so with half the noise: it must be caught.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from guard.defences.mechanism import Mechanism
from guard.model.arrays import Bools, Floats
from guard.model.outputs import Outputs
from guard.privacy.gaussian import delta_of
from tests.support.mechanisms import bound
from tests.support.randomness import Seeded, batch_of

N = 100_000
ROOM = math.sqrt(math.log(1e6) / (2 * N))
"""How far a frequency of N draws lies from its probability at one in a million (Hoeffding, 1963), to one side."""
VALUE = Outputs(kind="value", low=-1, high=1)
Pair = tuple[Floats, Floats]


def releases(mechanism: Mechanism, one: list[float], other: list[float]) -> Pair:
    """The first score of N releases of either input: for two columns or one it tells all."""
    kind = mechanism.domain.kind
    first, second = (
        mechanism.apply(batch_of(np.tile(row, (N, 1)), kind), Seeded(N, seed), b"").scores[:, 0]
        for seed, row in ((1, one), (2, other))
    )
    return first, second


def excess(pair: Pair, delta_at: dict[float, float]) -> float:
    """By how much P(S | one) - e^epsilon P(S | other) is above delta, beyond chance, at the worst event and epsilon."""
    return max(
        one.mean() - math.exp(epsilon) * other.mean() - delta - ROOM * (1 + math.exp(epsilon))
        for epsilon, delta in delta_at.items()
        for one, other in events(pair)
    )


def events(pair: Pair) -> Iterator[tuple[Bools, Bools]]:
    """Whatever a likelihood ratio that grows with the score can be held against, from both sides."""
    one, other = pair
    for threshold in np.quantile(np.concatenate(pair), np.linspace(0, 1, 21)):
        yield one >= threshold, other >= threshold
        yield other <= threshold, one <= threshold


def gaussian(ratio: float) -> dict[float, float]:
    return {epsilon: delta_of(epsilon, 1 / ratio) for epsilon in (0.0, 0.25, 0.5, 1.0)}


def pure(epsilon: float) -> dict[float, float]:
    return {epsilon: 0.0}


CASES: dict[str, tuple[dict[str, float], Outputs | None, dict[float, float]]] = {
    "dp_gaussian value": ({"noise_multiplier": 1.0}, VALUE, gaussian(1.0)),
    "dp_gaussian probabilities": ({"noise_multiplier": 1.0}, None, gaussian(1.0)),
    "dp_gaussian coarse": ({"noise_multiplier": 1.0, "granularity": 0.03125}, VALUE, gaussian(1.0)),
    "dp_laplace value": ({"noise_multiplier": 1.0}, VALUE, pure(1.0)),
    "dp_laplace probabilities": ({"noise_multiplier": 1.0}, None, pure(1.0)),
    "dp_laplace coarse": ({"noise_multiplier": 1.0, "granularity": 0.125}, VALUE, pure(1.0)),
    "noisy_max": ({"noise_multiplier": 1.0}, None, gaussian(1.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_no_event_tells_neighbours_apart_by_more_than_epsilon_and_delta(case: str) -> None:
    fields, outputs, delta_at = CASES[case]
    one, other = ([1.0], [-1.0]) if outputs is VALUE else ([1.0, 0.0], [0.0, 1.0])
    kind = case.partition(" ")[0]
    sound = bound(kind, fields, outputs=outputs, columns=len(one))
    half = sound.measurement().sensitivity / 2
    faulty = bound(kind, fields, outputs=outputs, columns=len(one), sensitivity=half)
    assert excess(releases(sound, one, other), delta_at) <= 0
    assert excess(releases(faulty, one, other), delta_at) > 0.02


def test_the_bound_is_met_so_the_noise_is_not_more_than_it_claims() -> None:
    # The best event of Gaussian DP at epsilon 0 is met by a value: total variation 2 Phi(mu / 2) - 1.
    pair = releases(bound("dp_gaussian", outputs=VALUE, columns=1, noise_multiplier=1.0), [1.0], [-1.0])
    best = max(one.mean() - other.mean() for one, other in events(pair))
    assert best == pytest.approx(delta_of(0.0, 1.0), abs=2 * ROOM)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_randomised_response_keeps_its_epsilon_in_both_directions(epsilon: float) -> None:
    pair = releases(bound("randomised_response", epsilon=epsilon), [1.0, 0.0], [0.0, 1.0])
    assert excess(pair, pure(epsilon)) <= 0
    assert excess(pair, pure(epsilon / 2)) > 0.02


@pytest.mark.parametrize("quorum", [1, 20])
def test_losses_of_the_exponential_mechanism_lie_in_a_range_of_its_epsilon(quorum: int) -> None:
    # The loss is log(P(label | one) / P(label | other)): its range over labels is epsilon, and so tight.
    def losses(sensitivity: float | None) -> float:
        mechanism = bound("exponential", quorum=quorum, sensitivity=sensitivity, epsilon=1.0)
        half = 0.5 / quorum
        one, other = releases(mechanism, [0.5 + half, 0.5 - half], [0.5 - half, 0.5 + half])
        return math.log(one.mean() / other.mean()) - math.log((1 - one.mean()) / (1 - other.mean()))

    # Four frequencies of at least a quarter, each within ROOM.
    room = 4 * ROOM / 0.25
    assert losses(None) == pytest.approx(1.0, abs=room)
    assert losses(0.5 / quorum) > 1.0 + room


def test_a_threshold_tells_no_more_than_its_own_noise() -> None:
    def answered(sensitivity: float | None) -> Pair:
        mechanism = bound(
            "noisy_max",
            columns=11,
            quorum=10,
            sensitivity=sensitivity,
            noise_multiplier=1.0,
            threshold=0.95,
            threshold_noise_multiplier=1.0,
        )
        # One of 10 votes moves the greatest share by a tenth.
        rows = [np.r_[top, np.full(10, (1 - top) / 10)].tolist() for top in (1.0, 0.9)]
        one, other = (np.isfinite(scores).astype(np.float64) for scores in releases(mechanism, rows[0], rows[1]))
        return one, other

    assert excess(answered(None), gaussian(1.0)) <= 0
    assert excess(answered(0.05), gaussian(1.0)) > 0.02
