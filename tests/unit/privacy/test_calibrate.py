"""The least noise: what was asked for fits by the filter that will be in force, and with any less it does not."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

from guard.privacy import calibrate
from guard.privacy.calibrate import least_noise
from guard.privacy.events import Composed, Event, Gaussian, Laplace, Pure
from guard.privacy.filters import choose

KINDS: dict[str, Callable[[float], Event]] = {
    "gaussian": Gaussian,
    "coarse gaussian": lambda ratio: Gaussian(ratio, fine=False),
    "laplace": Laplace,
    "pure": lambda ratio: Pure(1.0 / ratio),
    "threshold and vote": lambda ratio: Composed((Gaussian(500.0), Gaussian(ratio))),
    "coarse below 50": lambda ratio: Gaussian(ratio, fine=ratio >= 50),
}


def fits(event: Event, epsilon: float, delta: float, answers: int) -> bool:
    chosen = choose([event], epsilon, delta, 10)
    return answers * chosen.cost(event) <= chosen.limit(epsilon, delta)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("epsilon", "delta", "answers"), [(8.0, 1e-6, 1000), (0.3, 1e-9, 7), (20.0, 1e-5, 10**5)])
def test_so_many_answers_fit_and_with_less_noise_they_do_not(
    kind: str, epsilon: float, delta: float, answers: int
) -> None:
    event_of = KINDS[kind]
    ratio = least_noise(event_of, epsilon, delta, answers, 10)
    assert fits(event_of(ratio), epsilon, delta, answers)
    assert not fits(event_of(ratio * (1 - 1e-6)), epsilon, delta, answers)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("answers", [1, 10, 1000, 10**6])
def test_not_one_answer_more_fits(kind: str, answers: int) -> None:
    event = KINDS[kind](least_noise(KINDS[kind], 8.0, 1e-6, answers, 10))
    chosen = choose([event], 8.0, 1e-6, 10)
    assert chosen.limit(8.0, 1e-6) // chosen.cost(event) == answers


def test_more_answers_than_units_are_refused() -> None:
    with pytest.raises(ValueError, match="no noise lets 10,000,000,000 answers fit into epsilon 1e-06 at delta 1e-06"):
        least_noise(Gaussian, 1e-6, 1e-6, 10**10, 10)


def test_an_aim_that_any_noise_meets_takes_the_least() -> None:
    assert least_noise(lambda ratio: Pure(min(1.0, 1.0 / ratio)), 1000.0, 0.5, 1, 10) == calibrate.LEAST_RATIO


def test_doctests_hold() -> None:
    assert not doctest.testmod(calibrate).failed
