"""HopSkipJump: walk along the decision boundary towards an input, by labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.selftest.attacks.boundary import FIRST, ITERATIONS, walk
from guard.selftest.attacks.evasion import Hunt, hunt, inputs, nearby, reach, span_of
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World


@dataclass(frozen=True)
class HopSkipJump:
    """Finds an adversarial example near each input by labels alone.

    Args:
        images: inputs under attack.
        share: how near counts, as a share of the median distance of an input to the nearest one of another class.
        limit: most queries for one input.
        iterations: steps before a search starts anew.
        first: probes of the first gradient.

    Source: Chen, Jordan, Wainwright, S&P 2020, algorithms 1 and 2, Euclidean, untargeted. Differs: a search ends as
    soon as a query is adversarial within the bound, and starts anew when it has not come so far after some steps; fewer
    probes, for 64 dimensions instead of thousands.
    """

    name: ClassVar[str] = "hopskipjump"
    title: ClassVar[str] = "adversarial examples by walking along the boundary, labels only"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = (
        "Chen, Jordan, Wainwright, HopSkipJumpAttack: A Query-Efficient Decision-Based Attack, S&P 2020"
    )
    published: ClassVar[str] = "small distances on MNIST, CIFAR and ImageNet after 1,000 to 25,000 queries an image"
    victim: ClassVar[str] = "digits_mlp"
    metric: ClassVar[str] = "success"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("success", 0.9),)
    helps: ClassVar[str] = (
        "a model trained to be robust; budgets and detection of near-duplicate queries raise the price"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector"})
    floors: ClassVar[tuple[str, ...]] = ()

    images: int = 30
    share: float = 0.6
    limit: int = 1500
    iterations: int = ITERATIONS
    first: int = FIRST

    def run(self, world: World) -> Outcome:
        """Attack all inputs in lock-step."""
        x, y = inputs(world, self.images)
        low, high = world.knows.low, world.knows.high
        found = Hunt(x, y, "l2", np.full(len(x), reach(world.judge, self.share)), span_of(world))
        plans = [
            walk(row, int(c), low, high, world.rng(f"plan {i}"), self.iterations, self.first)
            for i, (row, c) in enumerate(zip(x, y, strict=True))
        ]
        hunt(world.api, found, plans, self.limit)
        return nearby(world, found)


ATTACKS: tuple[Attack, ...] = (HopSkipJump(),)
