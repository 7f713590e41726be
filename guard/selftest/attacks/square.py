"""Square Attack: random squares at the edge of the box, kept when the score falls; labels once there are no scores."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

import numpy as np

from guard.selftest.attacks.boundary import Box, within_boxes
from guard.selftest.attacks.evasion import Plan, margin
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World
from guard.selftest.measures import Floats, Ints

SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 iterations: where the squares' area is halved."""


def square(
    x: Floats, y: int, box: tuple[Floats, Floats], rng: np.random.Generator, iterations: int, area: float
) -> Plan:
    """Plan the attack on one input (Andriushchenko et al. 2020, algorithms 1 and 2).

    Args:
        x: the input, shape (d,).
        y: its class.
        box: least and greatest values that are near enough and in range, shape (d,) each.
        rng: draws the squares and their signs.
        iterations: most queries.
        area: share of the features that the first squares cover.
    """
    least, most = box
    side = isqrt(len(x)) if isqrt(len(x)) ** 2 == len(x) else 0
    # Vertical stripes; on a vector that is no square image, every feature is a stripe.
    signs = rng.integers(2, size=side or len(x))
    here = np.where(np.tile(signs, len(x) // len(signs)) == 1, most, least)
    scores = yield here[None]
    loss = margin(scores[0], y)
    for i in range(1, iterations):
        part = window(len(x), side, area * 0.5 ** sum(10_000 * i / iterations > stop for stop in SCHEDULE), rng)
        there = here.copy()
        there[part] = most[part] if rng.integers(2) else least[part]
        if (there == here).all():
            there[part] = np.where(here[part] == most[part], least[part], most[part])
        scores = yield there[None]
        now = margin(scores[0], y)
        if now < loss:
            here, loss = there, now


def window(d: int, side: int, area: float, rng: np.random.Generator) -> Ints:
    """Return the features of a random square of an image, or of a random run of a vector's features.

    Args:
        d: features.
        side: of the image; 0 when the vector is none.
        area: share of the features.
        rng: draws it.
    """
    if not side:
        length = min(d, max(1, round(area * d)))
        return rng.integers(d - length + 1) + np.arange(length)
    edge = min(side, max(1, round((area * d) ** 0.5)))
    row, column = rng.integers(side - edge + 1, size=2)
    return ((row + np.arange(edge))[:, None] * side + column + np.arange(edge)).ravel()


@dataclass(frozen=True)
class Square:
    """Finds an adversarial example in a box around each input from scores.

    Args:
        images: inputs under attack.
        reach: how near counts, as a share of each feature's range (the maximum norm).
        limit: most queries for one input, before it falls back to labels.
        area: share of the pixels that the first squares cover.

    Source: Andriushchenko, Croce, Flammarion, Hein, ECCV 2020, algorithms 1 and 2 (maximum norm). Differs: the loss is
    the margin of log probabilities, since an API gives no logits; for inputs that scores did not win, it
    goes on by labels on another account (see `boundary.corner_plans`).
    """

    name: ClassVar[str] = "square"
    title: ClassVar[str] = "adversarial examples by random squares, from scores"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = (
        "Andriushchenko, Croce, Flammarion, Hein, Square Attack: a Query-Efficient Black-Box Adversarial Attack via "
        "Random Search, ECCV 2020"
    )
    published: ClassVar[str] = "ImageNet (maximum norm .05): 0% to 0.3% failures, 31 to 197 queries an image on average"
    victim: ClassVar[str] = "digits_mlp"
    metric: ClassVar[str] = "success"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("success", 0.9),)
    helps: ClassVar[str] = (
        "a model trained to be robust; budgets and detection of near-duplicate queries raise the price"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    images: int = 30
    reach: float = 0.2
    limit: int = 400
    area: float = 0.8

    def run(self, world: World) -> Outcome:
        """Attack all inputs in lock-step, then go on by labels."""

        def plan(x: Floats, y: int, box: Box, rng: np.random.Generator) -> Plan:
            return square(x, y, box, rng, self.limit, self.area)

        return within_boxes(world, self.images, self.reach, self.limit, plan)


ATTACKS: tuple[Attack, ...] = (Square(),)
