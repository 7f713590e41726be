"""What all extraction attacks share: queries to draw, and how a copy is measured.

A copy is anything with `probabilities(x)`. It is measured on held-out data and on uniform inputs, against the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal, Protocol, cast

import numpy as np

from guard.selftest.base import Knowledge, Try, Unresolved, World
from guard.selftest.measures import Floats, Measure, exact, fidelity

Draw = Literal["uniform", "gauss", "mixed"]
UNIFORM = 1500


class Copy(Protocol):
    """A stolen model."""

    def probabilities(self, x: Floats) -> Floats:
        """Return probabilities, shape (n, k)."""
        ...


def draw(knows: Knowledge, how: Draw, n: int, rng: np.random.Generator) -> Floats:
    """Return `n` queries, shape (n, d), inside the features' ranges.

    Args:
        knows: ranges and the attacker's data.
        how: `uniform` over the ranges; `gauss` around the mean of the attacker's data with half its spread; `mixed`
            points between two rows of the attacker's data.
        n: how many.
        rng: draws them.
    """
    if how == "uniform":
        return rng.uniform(knows.low, knows.high, (n, knows.size))
    own = cast("Floats", knows.own_x)
    if how == "gauss":
        return np.clip(own.mean(axis=0) + rng.normal(0, 0.5, (n, knows.size)) * knows.std, knows.low, knows.high)
    share = rng.random((n, 1))
    return share * own[rng.integers(len(own), size=n)] + (1 - share) * own[rng.integers(len(own), size=n)]


def standardised(copy: Copy, std: Floats) -> Callable[[Floats], Floats]:
    """Return a copy that was fitted to inputs divided by `std`, shape (d,), as one of inputs as they are."""
    return lambda x: copy.probabilities(x / std)


def measure(world: World, copy: Callable[[Floats], Floats]) -> dict[str, Measure]:
    """Return a copy's distance and agreement, on held-out data and on uniform inputs.

    Args:
        world: holds the truth.
        copy: inputs of shape (n, d) -> probabilities of shape (n, k).
    """
    test = cast("Floats", world.judge.test_x)
    uniform = draw(world.knows, "uniform", UNIFORM, world.rng("uniform test"))
    rng = world.rng("bootstrap")
    found = fidelity(copy(test), world.judge.truth(test), rng)
    try:
        truth = world.judge.truth(uniform)
    except Unresolved:  # a live target's limit of queries leaves no room to ask so many
        return found
    return found | fidelity(copy(uniform), truth, rng, "_uniform")


def strongest(
    world: World, copies: Mapping[str, Callable[[Floats], Floats]], plain: frozenset[str] | set[str]
) -> dict[str, Callable[[Floats], Floats]]:
    """Return the copies in `plain` and, of the others, those that are best by some metric: many fits, few tries."""
    test = cast("Floats", world.judge.test_x)
    truth = world.judge.truth(test)
    uniform = draw(world.knows, "uniform", UNIFORM, world.rng("uniform test"))
    sets = [(test, truth)]
    with suppress(Unresolved):
        sets.append((uniform, world.judge.truth(uniform)))
    kept = {how for how in copies if how in plain}
    others = [how for how in copies if how not in plain]
    for x, true in sets:
        found = {how: copies[how](x) for how in others}
        if found:
            far = {how: float(np.abs(p - true).sum()) for how, p in found.items()}
            same = {how: int((p.argmax(axis=1) == true.argmax(axis=1)).sum()) for how, p in found.items()}
            kept |= {min(far, key=far.__getitem__), max(same, key=same.__getitem__)}
    return {how: copy for how, copy in copies.items() if how in kept}


def tried(
    world: World, copies: Mapping[str, Callable[[Floats], Floats]], plain: frozenset[str] | set[str]
) -> list[Try]:
    """Measure copies by how they were made; those in `plain` are the published attack's.

    Every try carries `graded_answers`: what one account was told.
    """
    graded = exact(max(world.api.tally.graded.values(), default=0))
    return [Try(how, measure(world, copy) | {"graded_answers": graded}, how in plain) for how, copy in copies.items()]
