"""Noise on tokens' log-probabilities: its scale, its independence, and what cannot be averaged.

Every test has a fixed key, so it passes or fails for good; critical values as in `test_noise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest

from guard.defences.base import Reuse
from guard.defences.noise import Noise
from guard.model.arrays import Floats
from tests.statistical.test_noise import KS_LIMIT, NORMAL_LIMIT, fresh, laplace_cdf, normal_cdf
from tests.support.generated import Client, client, token

SCALE = 0.1
N = 1500
NAMES = ("P", "Q", "R", "S")


def answers(spec: Noise, choices: Sequence[str], prompt: str = "hello", seed: int = 0) -> Floats:
    """Return the noise on four candidates a token of each choice's answer, shape (choices, tokens, 4)."""
    got = client(spec, prompts=(prompt,), fresh=fresh(seed))
    others = [(name, -5.0) for name in NAMES]
    got.take(
        *(got.piece(said, [token(letter, *others) for letter in said], f"{i}/text") for i, said in enumerate(choices)),
        choices=len(choices),
    )
    return np.array([_noise(got, f"{i}/text") for i in range(len(choices))])


def _noise(got: Client, key: str) -> list[list[float]]:
    raws = cast("list[dict[str, dict[str, float]]]", got.tokens[key])
    return [[raw["top"][name] + 5.0 for name in NAMES] for raw in raws]


LONG = "".join(np.random.default_rng(1).choice(list("abcdefghij"), N))


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_noise_on_tokens_has_the_stated_distribution(mechanism: str) -> None:
    spec = Noise.model_validate({"kind": "noise", "mechanism": mechanism, "scale": SCALE})
    found = np.sort(answers(spec, [LONG]).ravel())
    cdf = normal_cdf if mechanism == "gaussian" else laplace_cdf

    def distance(scale: float) -> float:
        ideal = cdf(found, scale)
        steps = np.arange(len(found) + 1) / len(found)
        return math.sqrt(len(found)) * float(max((steps[1:] - ideal).max(), (ideal - steps[:-1]).max()))

    assert distance(SCALE) < KS_LIMIT
    assert distance(SCALE * 1.3) > KS_LIMIT


def test_noise_on_one_token_says_nothing_of_the_next_or_of_another_candidate() -> None:
    noise = answers(Noise(scale=SCALE), [LONG])[0]

    def related(a: Floats, b: Floats) -> float:
        return abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])) * math.sqrt(a.size)

    assert related(noise[:-1], noise[1:]) < NORMAL_LIMIT
    assert related(noise[:, :1], noise[:, 1:2]) < NORMAL_LIMIT
    other = answers(Noise(scale=SCALE), ["x" + LONG[1:]])[0]
    assert related(noise[1:], other[1:]) < NORMAL_LIMIT  # another beginning
    assert related(noise, answers(Noise(scale=SCALE), [LONG])[0]) > NORMAL_LIMIT  # which is the same


def test_repeats_choices_and_streams_leave_nothing_to_average_and_fresh_noise_does() -> None:
    def left(spec: Noise) -> float:
        draws = [answers(spec, ["abc"] * 8, seed=seed) for seed in range(100)]
        return float(np.abs(np.concatenate(draws).mean(axis=0)).mean()) / SCALE

    assert left(Noise(scale=SCALE)) > 0.5
    assert left(Noise(scale=SCALE, reuse="none")) < 0.2


def test_prompts_that_are_answered_alike_are_averaged() -> None:
    draws = [answers(Noise(scale=SCALE), ["abc"], f"hello{' ' * i} you") for i in range(1, 201)]
    left = float(np.abs(np.concatenate(draws).mean(axis=0)).mean()) / SCALE
    assert left == pytest.approx(0.8 / math.sqrt(200), abs=0.05)


@pytest.mark.parametrize("reuse", ["query", "cell"])
def test_prompts_that_differ_in_case_or_white_space_share_no_noise(reuse: Reuse) -> None:
    # Their distributions differ, and with the same noise the difference would be exact: all that is needed to read the
    # last layer off it.
    spec = Noise(scale=SCALE, reuse=reuse)
    one = answers(spec, ["abc"], "hello you")
    for other in ("Hello you", "hello  you", "hello you "):
        assert (answers(spec, ["abc"], other) != one).all()
