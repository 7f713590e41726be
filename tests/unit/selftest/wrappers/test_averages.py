"""Averages: each breaks one way of keying noise, and not the next one up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import cast

import numpy as np
import pytest

from guard.selftest.base import Rows, Unresolved
from guard.selftest.measures import Floats
from guard.selftest.wrappers import WRAPPERS, Wrapper
from tests.unit.selftest.support import Defend, ModelApi, linear_victim, world

VICTIM = linear_victim(size=12)
SIGMA = 0.05


def keyed(name: Callable[[Floats], Floats]) -> Defend:
    """Noise that is the same for the same name of a query."""

    def defend(x: Rows, scores: Floats) -> Floats:
        noisy = scores.copy()
        for i, row in enumerate(name(cast("Floats", x))):
            seed = int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest())
            noisy[i] += np.random.default_rng(seed).normal(0, SIGMA, scores.shape[1])
        return noisy

    return defend


def fresh() -> Defend:
    rng = np.random.default_rng(1)
    return lambda x, scores: scores + rng.normal(0, SIGMA, scores.shape)


def exact() -> Defend:
    return keyed(lambda x: x)


def cells() -> Defend:
    return keyed(lambda x: np.floor(x / 0.25))


def left(wrapper: Wrapper, defend: Defend) -> float:
    """Return what is left of the noise, mean absolute."""
    around = wrapper(world(VICTIM, defend))
    x = cast("Floats", VICTIM.test_x)[:100]
    return float(np.abs(around.api.ask(x) - VICTIM.predict(x)).mean())


@pytest.mark.parametrize(
    ("name", "broken", "held"),
    [("averaging", fresh, exact), ("jitter_inside", exact, cells), ("jitter_across", cells, None)],
)
def test_each_breaks_its_noise_and_not_the_next(
    name: str, broken: Callable[[], Defend], held: Callable[[], Defend] | None
) -> None:
    single = SIGMA * np.sqrt(2 / np.pi)
    assert left(lambda w: w, broken()) == pytest.approx(single, rel=0.2)
    assert left(WRAPPERS[name], broken()) < 0.5 * single
    if held is not None:
        assert left(WRAPPERS[name], held()) > 0.8 * single


def test_without_noise_jitters_cancel() -> None:
    assert left(WRAPPERS["jitter_across"], lambda x, scores: scores) < 1e-3


def test_labels_of_a_spent_budget_are_not_averaged_with_scores() -> None:
    around = WRAPPERS["averaging"](world(VICTIM, graded=100))
    x = cast("Floats", VICTIM.test_x)[:80]
    answers = around.api.ask(x)
    # The second repeat ends in labels, and the third is never asked.
    assert around.api.asked == 160
    assert np.allclose(answers[:20], VICTIM.predict(x[:20]))


def test_a_refusal_ends_repeats_and_not_the_attack() -> None:
    x = cast("Floats", VICTIM.test_x)[:40]
    around = WRAPPERS["averaging"](world(VICTIM, limit=100))
    assert np.allclose(around.api.ask(x), VICTIM.predict(x))


def test_jitters_stay_inside_the_range() -> None:
    asked: list[Floats] = []

    def watch(x: Rows, scores: Floats) -> Floats:
        asked.append(cast("Floats", x))
        return scores

    edge = np.tile(VICTIM.knows.high, (5, 1))
    WRAPPERS["jitter_across"](world(VICTIM, api=ModelApi(VICTIM.predict, watch))).api.ask(edge)
    assert len(asked) == 8
    assert max(float(x.max()) for x in asked) == VICTIM.knows.high[0]


def test_texts_have_no_neighbours() -> None:
    around = world(VICTIM)
    texts = replace(around, knows=replace(around.knows, kind="text"))
    with pytest.raises(Unresolved):
        WRAPPERS["jitter_inside"](texts)
