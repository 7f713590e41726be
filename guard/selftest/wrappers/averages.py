"""Wrappers that ask every query several times, as it is or a little beside itself, and average."""

from __future__ import annotations

import numpy as np

from guard.selftest.base import Api, Refused, Rows, Unresolved, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers.wrapped import Wrapped, everywhere

REPEATS = 8
INSIDE = 1e-6
"""Of a feature's range: changes a query's bytes and nothing else."""
ACROSS = 0.05
"""Of a feature's standard deviation: crosses a border of some feature's cell, and hardly moves the model."""


class Averaged(Wrapped):
    """Asks each row several times and averages.

    Labels that a spent budget answers with are not averaged with scores. A refusal ends the repeats, not the attack.

    Args:
        inner: the API.
        repeats: how often.
        jitter: standard deviation of what is added to each repeat, shape (d,); 0 for plain repeats. Jitters come in
            pairs of opposite sign, so that the first order cancels.
        low: least value of each feature, shape (d,): jitters do not leave the range.
        high: greatest value.
        rng: draws the jitter.
    """

    def __init__(
        self, inner: Api, repeats: int, jitter: Floats, low: Floats, high: Floats, rng: np.random.Generator
    ) -> None:
        super().__init__(inner)
        self.repeats, self.jitter, self.low, self.high, self.rng = repeats, jitter, low, high, rng

    def ask(self, x: Rows) -> Floats:
        """Return the mean of all repeats' scores."""
        total, done, offset = None, 0, None
        for i in range(self.repeats):
            if done and self.inner.tally.first_label_at is not None:
                break
            asked = x
            if isinstance(x, np.ndarray):
                offset = self.rng.normal(size=x.shape) * self.jitter if i % 2 == 0 or offset is None else -offset
                asked = np.clip(x + offset, np.minimum(self.low, x), np.maximum(self.high, x))
            try:
                answers = self.inner.ask(asked)
            except Refused:
                if total is None:
                    raise
                break
            total, done = answers if total is None else total + answers, done + 1
        return total / done if total is not None else self.inner.ask(x)


def averaging(world: World) -> World:
    """Ask every query 8 times and average: breaks fresh noise."""
    return _averaged(world, "averaging", 0.0 * world.knows.std)


def jitter_inside(world: World) -> World:
    """Ask 8 queries that differ by a millionth and average: breaks noise keyed on a query's exact bytes."""
    return _averaged(world, "jitter inside", INSIDE * (world.knows.high - world.knows.low))


def jitter_across(world: World) -> World:
    """Ask 8 queries a twentieth of a standard deviation around each and average: breaks noise keyed on small cells."""
    return _averaged(world, "jitter across", ACROSS * world.knows.std)


def _averaged(world: World, purpose: str, jitter: Floats) -> World:
    knows = world.knows
    if knows.kind == "text" and purpose != "averaging":
        raise Unresolved("texts have no neighbours to average over")
    return everywhere(world, lambda api: Averaged(api, REPEATS, jitter, knows.low, knows.high, world.rng(purpose)))
