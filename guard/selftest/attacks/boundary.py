"""The decision boundary by labels alone: finding it, its normal, and stepping along it.

Everything here is a generator that yields rows it wants asked and is sent their scores (see `evasion`), of which it
reads the greatest only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from guard.selftest.attacks.evasion import Hunt, Plan, hunt, inputs, span_of, then_labels
from guard.selftest.base import Outcome, World
from guard.selftest.measures import Floats

FIRST = 12
"""Probes of a walk's first gradient: for some tens of features. The published attacks take 100 for images."""
ITERATIONS = 12
"""Steps after which a walk that has not come near enough starts anew."""
MOMENTUM = 0.7
Box = tuple[Floats, Floats]
"""Least and greatest value of each feature."""


def random_start(
    y: int, low: Floats, high: Floats, rng: np.random.Generator, tries: int = 50
) -> Generator[Floats, Floats, Floats | None]:
    """Draw uniform inputs until one is of another class than `y`; returns it, or None after `tries`."""
    for _ in range(tries):
        row = rng.uniform(low, high)
        scores = yield row[None]
        if scores[0].argmax() != y:
            return row
    return None


def bisect(x: Floats, far: Floats, y: int, precision: float) -> Generator[Floats, Floats, Floats]:
    """Search the boundary on the line from an input to an adversarial example; returns its adversarial side.

    Args:
        x: the input, shape (d,).
        far: the adversarial example.
        y: the input's class.
        precision: where to stop, as a share of the line.
    """
    least, most = 0.0, 1.0
    while most - least > precision:
        middle = (least + most) / 2
        scores = yield (x + middle * (far - x))[None]
        if scores[0].argmax() != y:
            most = middle
        else:
            least = middle
    return x + most * (far - x)


def gradient(
    here: Floats, y: int, low: Floats, high: Floats, rng: np.random.Generator, probes: int, delta: float
) -> Generator[Floats, Floats, Floats]:
    """Estimate the direction away from class `y` at a point on the boundary from labels around it.

    Args:
        here: the point, shape (d,).
        y: the class.
        low: least values, shape (d,).
        high: greatest values, shape (d,).
        rng: draws the probes.
        probes: how many.
        delta: how far from the point they lie.

    Source: Chen, Jordan, Wainwright, S&P 2020, equation 16 (with the mean of the labels as its baseline).
    """
    u = rng.normal(size=(probes, len(here)))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    rows = np.clip(here + delta * u, low, high)
    u = (rows - here) / delta
    scores = yield rows
    phi = np.where(scores.argmax(axis=1) != y, 1.0, -1.0)
    # Where all labels agree, the baseline would leave nothing.
    weights = phi if abs(phi.mean()) == 1 else phi - phi.mean()
    direction = weights @ u
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def step(
    here: Floats, direction: Floats, y: int, low: Floats, high: Floats, size: float, halvings: int = 16
) -> Generator[Floats, Floats, Floats]:
    """Go along a direction, half as far until it is adversarial; returns where that is, or `here`."""
    for _ in range(halvings):
        there = np.clip(here + size * direction, low, high)
        scores = yield there[None]
        if scores[0].argmax() != y:
            return there
        size /= 2
    return here


def walk(
    x: Floats, y: int, low: Floats, high: Floats, rng: np.random.Generator, iterations: int, first: int,
    box: tuple[Floats, Floats] | None = None,
) -> Plan:  # fmt: skip
    """Plan HopSkipJump on one input (Chen et al. 2020, algorithm 2), from one start after the other.

    Args:
        x: the input, shape (d,).
        y: its class.
        low: least values, shape (d,).
        high: greatest values, shape (d,).
        rng: draws the starts and the probes.
        iterations: steps before it starts anew.
        first: probes of the first gradient; step t has `first` times the root of t of them.
        box: asks after each gradient for the corner of this box that lies furthest along all gradients so far, too.
    """
    d = len(x)
    while (far := (yield from random_start(y, low, high, rng))) is not None:
        here = yield from bisect(x, far, y, d**-1.5)
        total = np.zeros(d)
        delta = 0.1 * float((high - low).max())
        for t in range(1, iterations + 1):
            direction = yield from gradient(here, y, low, high, rng, int(first * t**0.5), delta)
            if box is not None:
                total = MOMENTUM * total + direction
                yield np.where(total > 0, box[1], box[0])[None]
            far = yield from step(here, direction, y, low, high, float(np.linalg.norm(here - x)) / t**0.5)
            delta = max(float(np.linalg.norm(far - x)) / d, 1e-9)
            here = yield from bisect(x, far, y, d**-1.5)


def box_around(world: World, found: Hunt) -> tuple[Floats, Floats]:
    """Return the least and the greatest inputs within the bound of each input, shape (n, d) each."""
    away = found.bound[:, None] * found.span
    return np.maximum(found.x - away, world.knows.low), np.minimum(found.x + away, world.knows.high)


def corner_plans(world: World, found: Hunt) -> list[Plan]:
    """Plan walks along the boundary that jump to the corner of each input's box where the boundary's normal points."""
    least, most = box_around(world, found)
    low, high = world.knows.low, world.knows.high
    return [
        walk(x, int(y), low, high, world.rng(f"labels {i}"), ITERATIONS, FIRST, (least[i], most[i]))
        for i, (x, y) in enumerate(zip(found.x, found.y, strict=True))
    ]


def within_boxes(
    world: World,
    images: int,
    reach: float,
    limit: int,
    plan: Callable[[Floats, int, Box, np.random.Generator], Plan],
) -> Outcome:
    """Attack inputs in lock-step inside boxes around them, then go on by labels where scores did not win.

    Args:
        world: what is attacked.
        images: how many inputs.
        reach: half a box's width, as a share of each feature's range.
        limit: most queries for one input before it falls back to labels.
        plan: makes an input's plan from the input, its class, its box and a generator of its own.
    """
    x, y = inputs(world, images)
    found = Hunt(x, y, "linf", np.full(len(x), reach), span_of(world))
    least, most = box_around(world, found)
    plans = [plan(x[i], int(y[i]), (least[i], most[i]), world.rng(f"plan {i}")) for i in range(len(x))]
    hunt(world.api, found, plans, limit)
    about = f"within {reach:g} of each feature's range"
    return then_labels(world, found, corner_plans(world, found), about)
