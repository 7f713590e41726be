"""Noise that is given in one of two ways: as a multiple of the sensitivity, or by what it is to achieve."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from guard.privacy.filters import choose
from tests.support.mechanisms import bound, made

CALIBRATED = ("dp_gaussian", "dp_laplace", "noisy_max")


@pytest.mark.parametrize("kind", CALIBRATED)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "nothing says how much noise"),
        ({"epsilon": 1, "delta": 1e-6}, "nothing says how much noise"),
        ({"answers": 5}, "nothing says how much noise"),
        ({"noise_multiplier": 5, "answers": 5}, "already says how much noise"),
        ({"noise_multiplier": 5, "epsilon": 1, "delta": 1e-6, "answers": 5}, "already says how much noise"),
        ({"noise_multiplier": 0}, "greater than or equal to 0.001"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier"),
        ({"epsilon": 0, "delta": 1e-6, "answers": 5}, "greater than 0"),
        ({"epsilon": 1, "delta": 1, "answers": 5}, "less than 1"),
        ({"epsilon": 1, "delta": 1e-6, "answers": 0}, "greater than or equal to 1"),
    ],
)
def test_noise_is_given_in_exactly_one_way(kind: str, fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        made(kind, **fields)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_noise_that_was_worked_out_buys_what_was_asked_for(kind: str) -> None:
    mechanism = bound(kind, columns=10, quorum=100, epsilon=8.0, delta=1e-6, answers=1000)
    event = mechanism.event()
    filter_ = choose([event], 8.0, 1e-6, 10)
    assert 1000 * filter_.cost(event) <= filter_.limit(8.0, 1e-6) < 1001 * filter_.cost(event)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_noise_that_does_not_exist_is_said_when_the_route_is_compiled(kind: str) -> None:
    with pytest.raises(ValueError, match="no noise lets 1,000,000,000,000 answers fit"):
        bound(kind, epsilon=1e-9, delta=1e-9, answers=10**12)
