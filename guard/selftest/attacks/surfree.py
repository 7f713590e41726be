"""SurFree: turn around an input along the decision boundary, by labels alone and with no gradient."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.selftest.attacks.boundary import bisect, random_start
from guard.selftest.attacks.evasion import Hunt, Plan, hunt, inputs, nearby, reach, span_of
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World
from guard.selftest.measures import Floats

ANGLE = 30.0
FACTOR = 0.98
MOST_ANGLE = 80.0


def surfree(
    x: Floats, y: int, low: Floats, high: Floats, rng: np.random.Generator, steps: int, signs: int, kept: int
) -> Plan:
    """Plan the attack on one input (Maho et al. 2021, algorithm 1).

    Args:
        x: the input, shape (d,).
        y: its class.
        low: least values, shape (d,).
        high: greatest values, shape (d,).
        rng: draws the start and the directions.
        steps: most directions.
        signs: angles that are tried in each sense of a direction.
        kept: directions that a new one is made orthogonal to.
    """
    far = yield from random_start(y, low, high, rng)
    if far is None:
        return
    here = yield from bisect(x, far, y, 1e-3)
    angle = ANGLE
    past: list[Floats] = []
    for _ in range(steps):
        away = float(np.linalg.norm(here - x))
        if away == 0:
            return
        towards = (here - x) / away
        across = orthogonal(rng.normal(size=len(x)), [towards, *past[-kept:]])
        past.append(across)

        def at(degrees: float, u: Floats = towards, v: Floats = across, r: float = away) -> Floats:
            turn = np.deg2rad(degrees)
            return np.clip(x + r * np.cos(turn) * (np.cos(turn) * u + np.sin(turn) * v), low, high)

        found = yield from sign_search(at, y, angle, signs)
        if found is None:
            angle *= FACTOR
            continue
        angle = min(angle / FACTOR, MOST_ANGLE)
        found = yield from angle_search(at, y, found, angle / signs)
        there = at(found)
        if np.linalg.norm(there - x) < away:
            here = there


def orthogonal(direction: Floats, others: list[Floats]) -> Floats:
    """Return a direction of length 1 with what lies along others taken out, one after the other (Gram and Schmidt)."""
    for other in others:
        direction = direction - (direction @ other) * other
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def sign_search(
    at: Callable[[float], Floats], y: int, angle: float, signs: int
) -> Generator[Floats, Floats, float | None]:
    """Try angles of both senses, great ones first; returns the first that is adversarial."""
    for i in range(signs):
        for sense in (1.0, -1.0):
            degrees = sense * angle * (1 - i / signs)
            scores = yield at(degrees)[None]
            if scores[0].argmax() != y:
                return degrees
    return None


def angle_search(
    at: Callable[[float], Floats], y: int, found: float, stride: float, precision: float = 0.01, most: int = 10
) -> Generator[Floats, Floats, float]:
    """Turn further while it stays adversarial, then search the border; returns the greatest adversarial angle seen.

    Args:
        at: angle in degrees -> point, shape (d,).
        y: the input's class.
        found: an adversarial angle.
        stride: how far to turn at a time, in degrees.
        precision: where to stop, in the cosine.
        most: most queries of the search.
    """
    inside, outside = found, found + np.sign(found) * stride
    while abs(outside) < MOST_ANGLE:
        scores = yield at(outside)[None]
        if scores[0].argmax() == y:
            break
        inside, outside = outside, outside + np.sign(found) * stride
    for _ in range(most):
        if abs(np.cos(np.deg2rad(inside)) - np.cos(np.deg2rad(outside))) <= precision:
            break
        middle = (inside + outside) / 2
        scores = yield at(middle)[None]
        if scores[0].argmax() != y:
            inside = middle
        else:
            outside = middle
    return float(inside)


@dataclass(frozen=True)
class SurFree:
    """Finds an adversarial example near each input by labels alone, with few queries.

    Args:
        images: inputs under attack.
        share: how near counts, as a share of the median distance of an input to the nearest one of another class.
        limit: most queries for one input.
        steps: most directions for one input.
        signs: angles tried in each sense of a direction.
        kept: directions that a new one is made orthogonal to.

    Source: Maho, Furon, Le Merrer, CVPR 2021, algorithm 1, with the authors' defaults (30 degrees, factor .98, three
    angles a sense, search to .01 in the cosine). Differs: directions are Gaussian, where the paper draws them from the
    low frequencies of a cosine transform, which means little on 8 x 8 pixels and nothing on other vectors; fewer
    directions are kept, since 64 dimensions hold no 100 orthogonal ones; a search ends as soon as a query is
    adversarial within the bound.
    """

    name: ClassVar[str] = "surfree"
    title: ClassVar[str] = "adversarial examples by turning along the boundary, labels only, no gradient"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = "Maho, Furon, Le Merrer, SurFree: A Fast Surrogate-Free Black-Box Attack, CVPR 2021"
    published: ClassVar[str] = "small distances on ImageNet after some hundreds to 1,000 queries an image"
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
    steps: int = 1000
    signs: int = 3
    kept: int = 30

    def run(self, world: World) -> Outcome:
        """Attack all inputs in lock-step."""
        x, y = inputs(world, self.images)
        low, high = world.knows.low, world.knows.high
        found = Hunt(x, y, "l2", np.full(len(x), reach(world.judge, self.share)), span_of(world))
        plans = [
            surfree(row, int(c), low, high, world.rng(f"plan {i}"), self.steps, self.signs, self.kept)
            for i, (row, c) in enumerate(zip(x, y, strict=True))
        ]
        hunt(world.api, found, plans, self.limit)
        return nearby(world, found)


ATTACKS: tuple[Attack, ...] = (SurFree(),)
