"""Line search: copy a linear classifier from labels alone, by points on its boundary."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.active_labels import PUBLISHED, ask_near_boundary, on_labels
from guard.selftest.attacks.asking import Asker, Spent
from guard.selftest.attacks.extraction import standardised, tried
from guard.selftest.attacks.fit import Linear, cross_entropy
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats, exact

_STEEP = 50.0
"""Length of a copy's weights: labels say nothing of it, so it decides as good as for sure."""
_RIDGES = (1e-5, 1e-4, 1e-3)
_ACTIVE = "logistic regression on labels near its boundary"
_ROUNDS = 4


@dataclass(frozen=True)
class LowdMeek:
    """Bisects between rows of either class, and lays a hyperplane through the points where the label changes.

    Args:
        first: rows of the attacker's own that are asked for their label.
        spare: points on the boundary beyond the `d` that fix a hyperplane.
        precision: of points, as a distance in standard deviations.

    Source: Lowd and Meek, "Adversarial Learning", KDD 2005; Tramer et al., USENIX Security 2016, section 6.1, who copy
    models with it. Differs: searches lines between random pairs of rows in lock-step rather than one line a feature,
    and takes the hyperplane of least squares through all points. Adaptive, where labels are changed near the boundary
    or queries are snapped: a logistic regression on all labels that were seen, and, by an attacker apart, on as many
    labels of rows near the copy's boundary.
    """

    name: ClassVar[str] = "lowd_meek"
    title: ClassVar[str] = "copy a linear classifier from labels, by points on its boundary"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Lowd and Meek, Adversarial Learning, KDD 2005; Tramèr et al., USENIX Security 2016"
    published: ClassVar[str] = "labels only: 2,050 queries on average for a linear model, as run by Tramèr et al."
    victim: ClassVar[str] = "breast_cancer"
    metric: ClassVar[str] = "cosine"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("cosine", 0.99),)
    helps: ClassVar[str] = "nothing: a budget of 100 rows still leaves its weights at a cosine of .95"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    first: int = 60
    spare: int = 6
    precision: float = 1e-4

    def run(self, world: World) -> Outcome:
        """Search lines, then fit."""
        knows = world.knows
        if knows.classes != 2:
            raise Unresolved("it copies models with two classes")
        std = np.maximum(knows.std, 1e-9)
        asker, rng = Asker(world.api, 10**6), world.rng("lines")
        own = cast("Floats", knows.own_x)
        lines = Lines(np.empty((0, knows.size)), np.empty((0, knows.size)))
        try:
            rows = own[rng.permutation(len(own))[: self.first]]
            label = asker.ask(rows).argmax(axis=1)
            lines = Lines.between(rows[label == 0], rows[label == 1], knows.size + self.spare, rng)
            lines.search(asker, std, self.precision)
        except Spent:
            pass  # the lines are as far as they came
        x, y = asker.kept()
        labels = np.eye(2)[y.argmax(axis=1)]
        fitted = {
            f"logistic regression on all labels {ridge:g}": cross_entropy(x / std, labels, ridge) for ridge in _RIDGES
        }
        if len(lines.zero) > 1:
            fitted = {"hyperplane": hyperplane(lines.middle() / std, x / std, labels), **fitted}
        apart = replace(world, api=world.account(1))
        with contextlib.suppress(Refused):
            fitted[_ACTIVE] = on_labels(ask_near_boundary(apart, len(x), _ROUNDS), knows, PUBLISHED)
        notes = [f"{len(lines.zero)} lines searched; who asks near the copy's boundary has an account of its own"]
        return Outcome(_tries(world, fitted, std), world.api.asked, notes=notes)


@dataclass
class Lines:
    """Pairs of points, one of either class, between which the label changes.

    Args:
        zero: ends of class 0, shape (m, d).
        one: ends of class 1, shape (m, d).
    """

    zero: Floats
    one: Floats

    @staticmethod
    def between(zeros: Floats, ones: Floats, count: int, rng: np.random.Generator) -> Lines:
        """Return lines between random pairs; none when a class is missing."""
        if not len(zeros) or not len(ones):
            count = 0
        i, j = rng.integers(max(1, len(zeros)), size=count), rng.integers(max(1, len(ones)), size=count)
        return Lines(zeros[i].copy(), ones[j].copy())

    def middle(self) -> Floats:
        """Return the points half-way, shape (m, d)."""
        return (self.zero + self.one) / 2

    def search(self, asker: Asker, std: Floats, precision: float) -> None:
        """Halve all lines in lock-step until each is as short as asked.

        Raises:
            Spent: the lines are as far as they came.
        """
        while True:
            live = np.flatnonzero(np.linalg.norm((self.zero - self.one) / std, axis=1) > precision)
            if not len(live):
                return
            middle = self.middle()[live]
            above = asker.ask(middle).argmax(axis=1) == 1
            self.one[live[above]] = middle[above]
            self.zero[live[~above]] = middle[~above]


def hyperplane(points: Floats, x: Floats, labels: Floats) -> Linear:
    """Lay a hyperplane through points, shape (m, d), by least squares, with the labelled rows of class 1 above it.

    Args:
        points: on the boundary.
        x: labelled rows, shape (n, d).
        labels: one-hot, shape (n, 2).
    """
    centre = points.mean(axis=0)
    normal = np.linalg.svd(points - centre)[2][-1]
    if np.corrcoef((x - centre) @ normal, labels[:, 1])[0, 1] < 0:
        normal = -normal
    upper = _STEEP * np.append(normal, -(centre @ normal))
    return Linear(np.stack((-upper, upper)) / 2)


def _tries(world: World, fitted: dict[str, Linear], std: Floats) -> list[Try]:
    """Measure copies in standardised units, and the angle between their weights and the model's."""
    copies = {how: standardised(copy, std) for how, copy in fitted.items()}
    try:
        weights = cast("Floats", world.judge.secret("weights"))
    except KeyError as error:
        raise Unresolved("the model has no weights to compare with") from error
    true = (weights[-1] - weights[0] if len(weights) > 1 else weights[0]) * std
    tries: list[Try] = []
    for attempt in tried(world, copies, {"hyperplane"}):
        found = np.diff(fitted[attempt.how].weights[:, :-1], axis=0)[0]
        length = float(np.linalg.norm(found) * np.linalg.norm(true))
        cosine = exact(float(found @ true) / length if length else 0.0)
        tries.append(Try(attempt.how, {**attempt.measures, "cosine": cosine}, attempt.plain))
    return tries


ATTACKS: tuple[Attack, ...] = (LowdMeek(),)
