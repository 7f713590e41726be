"""Anomaly evasion: morph an anomaly towards normal rows, a few features at a time, until it passes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.boundary import bisect
from guard.selftest.attacks.evasion import Bools, Hunt, Plan, hunt, span_of, then_labels
from guard.selftest.base import Attack, Criterion, Outcome, Threat, Unresolved, World
from guard.selftest.measures import Floats, Ints

ANOMALOUS = 1
"""The class that is blocked."""


def climb(x: Floats, bound: float, normal: Floats, rng: np.random.Generator, share: float) -> Plan:
    """Plan the descent of one anomaly's score.

    Args:
        x: the anomaly, shape (d,).
        bound: how far it may go (Euclidean).
        normal: the attacker's normal rows, shape (n, d).
        rng: draws rows, features and how far they move.
        share: of the features that move at a time.
    """
    here = x
    scores = yield here[None]
    loss = scores[0, ANOMALOUS]
    while True:
        there = within(morphed(here, normal[rng.integers(len(normal))], rng, share), x, bound)
        scores = yield there[None]
        if scores[0, ANOMALOUS] <= loss:
            here, loss = there, scores[0, ANOMALOUS]


def restore(x: Floats, normal: Floats, rng: np.random.Generator, share: float) -> Plan:
    """Plan the way back from the nearest normal row that passes, by labels: nearer to the anomaly while it passes.

    The arguments are those of `climb`.
    """
    far = yield from passing(x, normal)
    if far is None:
        return
    here = yield from bisect(x, far, ANOMALOUS, 1 / 64)
    while True:
        if rng.integers(2):
            there = morphed(here, x, rng, share)
        else:
            # Other features for the same distance, a little less of it.
            there = morphed(here, normal[rng.integers(len(normal))], rng, share)
            there = within(there, x, 0.97 * float(np.linalg.norm(here - x)))
        if (there == here).all():
            continue
        scores = yield there[None]
        if scores[0].argmax() != ANOMALOUS:
            here = there


def passing(x: Floats, normal: Floats, most: int = 10) -> Generator[Floats, Floats, Floats | None]:
    """Ask the nearest normal rows; returns the first that passes."""
    for row in normal[np.argsort(np.linalg.norm(normal - x, axis=1))][:most]:
        scores = yield row[None]
        if scores[0].argmax() != ANOMALOUS:
            return row
    return None


def morphed(here: Floats, towards: Floats, rng: np.random.Generator, share: float) -> Floats:
    """Move a random share of the features a random part of the way to another row's."""
    return np.where(rng.random(len(here)) < share, here + rng.random() * (towards - here), here)


def within(row: Floats, x: Floats, bound: float) -> Floats:
    """Draw a row towards `x` until it is no further than `bound`."""
    away = float(np.linalg.norm(row - x))
    return row if away <= bound else x + (row - x) * (bound / away)


@dataclass(frozen=True)
class AnomalyEvasion:
    """Gets anomalies past a detector, as near to what they were as stated.

    Args:
        rows: anomalies under attack.
        way: how far each may go, as a share of its distance to the nearest normal row that the attacker owns.
        limit: most queries for one anomaly by scores, and as many again by labels.
        share: of the features that move at a time.

    Source: Xu, Qi, Evans, NDSS 2016: variants of a blocked sample take parts of samples that pass, and the detector's
    score says which to keep. Differs: hill climbing in place of genetic programming; features in place of parts of a
    document; a distance in place of the test that a variant still does harm. Anomalies that scores did not get past it
    go on by labels on another account, from a normal row back towards themselves (as Brendel, Rauber, Bethge, ICLR
    2018).
    """

    name: ClassVar[str] = "anomaly_evasion"
    title: ClassVar[str] = "anomalies that pass an isolation forest"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = "Xu, Qi, Evans, Automatically Evading Classifiers, NDSS 2016"
    published: ClassVar[str] = "variants of all 500 malicious documents pass both detectors"
    victim: ClassVar[str] = "anomalies"
    metric: ClassVar[str] = "passed"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("passed", 0.95),)
    helps: ClassVar[str] = (
        "budgets and detection of near-duplicate queries raise the price; no change of answers holds it"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores", "own_labels", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    rows: int = 40
    way: float = 0.7
    limit: int = 200
    share: float = 0.1

    def run(self, world: World) -> Outcome:
        """Attack all anomalies in lock-step, then go on by labels."""
        x, normal = self.rows_of(world)
        nearest = np.array([np.linalg.norm(normal - row, axis=1).min() for row in x])
        y = np.full(len(x), ANOMALOUS, dtype=np.int64)
        found = Hunt(x, y, "l2", self.way * nearest, span_of(world))
        plans = [
            climb(row, float(bound), normal, world.rng(f"plan {i}"), self.share)
            for i, (row, bound) in enumerate(zip(x, found.bound, strict=True))
        ]
        hunt(world.api, found, plans, self.limit)
        back = [restore(row, normal, world.rng(f"labels {i}"), self.share) for i, row in enumerate(x)]
        about = f"within {self.way:.0%} of the way to the nearest normal row"
        return then_labels(world, found, back, about, "passed", self.limit)

    def rows_of(self, world: World) -> tuple[Floats, Floats]:
        """Return held-out anomalies that the model blocks, and the attacker's normal rows.

        Raises:
            Unresolved: there are too few of either.
        """
        test = cast("Floats", world.judge.test_x)
        blocked: Bools = world.judge.truth(test).argmax(axis=1) == ANOMALOUS
        if world.judge.test_y is not None:
            blocked &= np.asarray(world.judge.test_y) == ANOMALOUS
        which = world.rng("inputs").permutation(np.flatnonzero(blocked))[: self.rows]
        own = cast("Floats", world.knows.own_x)
        normal = own[cast("Ints", world.knows.own_y) != ANOMALOUS] if world.knows.own_y is not None else own[:0]
        if len(which) < 10 or not len(normal):
            raise Unresolved(f"needs 10 blocked anomalies and a normal row; there are {len(which)} and {len(normal)}")
        return test[which], normal


ATTACKS: tuple[Attack, ...] = (AnomalyEvasion(),)
