"""NES: descend a score by a gradient that is estimated from scores around a point; labels once there are no scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.selftest.attacks.boundary import Box, within_boxes
from guard.selftest.attacks.evasion import Plan, margin, span_of
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World
from guard.selftest.measures import Floats

FLAT = 5
"""Gradients of 0 in a row, after which an input is given up: the answers around it are all the same."""


def nes(
    x: Floats, y: int, box: tuple[Floats, Floats], world: World, rng: np.random.Generator, pairs: int, sigma: float,
    rate: float, momentum: float,
) -> Plan:  # fmt: skip
    """Plan the attack on one input (Ilyas et al. 2018, sections 2.1 and 2.2, untargeted).

    Args:
        x: the input, shape (d,).
        y: its class.
        box: least and greatest values that are near enough and in range, shape (d,) each.
        world: tells the features' ranges.
        rng: draws the directions.
        pairs: of antithetic directions for a gradient.
        sigma: how far they go, as a share of each feature's range.
        rate: how far a step goes, as a share of each feature's range.
        momentum: share of the past gradients that a step keeps.
    """
    knows, span = world.knows, span_of(world)
    here, total, flat = x, np.zeros(len(x)), 0
    while flat < FLAT:
        u = rng.normal(size=(pairs, len(x)))
        u = np.concatenate((u, -u))
        scores = yield np.clip(here + sigma * span * u, knows.low, knows.high)
        losses = np.array([margin(row, y) for row in scores])
        flat = flat + 1 if np.ptp(losses) == 0 else 0
        total = momentum * total + (1 - momentum) * (losses @ u)
        here = np.clip(here - rate * span * np.sign(total), *box)
        yield here[None]


@dataclass(frozen=True)
class Nes:
    """Finds an adversarial example in a box around each input by gradients estimated from scores.

    Args:
        images: inputs under attack.
        reach: how near counts, as a share of each feature's range (the maximum norm).
        limit: most queries for one input, before it falls back to labels.
        pairs: of antithetic directions for a gradient.
        sigma: how far they go, as a share of each feature's range.
        rate: how far a step goes, as a share of each feature's range.
        momentum: share of the past gradients that a step keeps.

    Source: Ilyas, Engstrom, Athalye, Lin, ICML 2018, sections 2.1 and 2.2. Differs: untargeted; the loss is the margin
    of log probabilities; fewer and wider directions, for 64 dimensions and for scores that are rounded; an input is
    given up after five gradients of 0 in a row; for inputs that scores did not win, it goes on by labels on another
    account (see `boundary.corner_plans`), with the boundary's normal in place of section 2.4's gradient of a smoothed
    label.
    """

    name: ClassVar[str] = "nes"
    title: ClassVar[str] = "adversarial examples by estimated gradients, from scores"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = (
        "Ilyas, Engstrom, Athalye, Lin, Black-box Adversarial Attacks with Limited Queries and Information, ICML 2018"
    )
    published: ClassVar[str] = (
        "ImageNet, targeted (maximum norm .05): 99.2% with scores, a median of 11,550 queries; 90% with labels only"
    )
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
    limit: int = 1000
    pairs: int = 10
    sigma: float = 0.05
    rate: float = 0.05
    momentum: float = 0.9

    def run(self, world: World) -> Outcome:
        """Attack all inputs in lock-step, then go on by labels."""

        def plan(x: Floats, y: int, box: Box, rng: np.random.Generator) -> Plan:
            return nes(x, y, box, world, rng, self.pairs, self.sigma, self.rate, self.momentum)

        return within_boxes(world, self.images, self.reach, self.limit, plan)


ATTACKS: tuple[Attack, ...] = (Nes(),)
