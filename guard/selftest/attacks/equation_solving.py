"""Equation solving: copy a (softmax) regression from its answers to random queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.extraction import Draw, draw, tried
from guard.selftest.attacks.fit import cross_entropy, least_squares
from guard.selftest.attacks.harvest import harvest
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World
from guard.selftest.measures import Floats

RIDGES = (1e-6, 1e-4, 1e-3)


@dataclass(frozen=True)
class EquationSolving:
    """Solves log(p_i / p_mean) = w_i x + b_i by least squares.

    Args:
        queries: random queries.
        draws: how they are drawn.

    Source: Tramer, Zhang, Juels, Reiter, Ristenpart, USENIX Security 2016, sections 4.1 and 4.3. Differs: other copies
    are fitted to the same answers by cross-entropy, which survives rounding and labels; the best counts.
    """

    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016"
    metric: ClassVar[str] = "surrogate_l1"
    helps: ClassVar[str] = "a budget of graded answers per customer, then labels, then refusal"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    queries: int = 200
    draws: Draw = "gauss"

    def run(self, world: World) -> Outcome:
        """Ask, then fit in every way."""
        x = draw(world.knows, self.draws, self.queries, world.rng("queries"))
        asked, y = harvest(world.api, x, world.knows.classes)
        rows = cast("Floats", asked)
        scale = np.maximum(np.abs(world.knows.high), np.abs(world.knows.low)).max()
        copies = self.copies(rows / scale, y, scale)
        return Outcome(tried(world, copies, {"equations", "cross-entropy 1e-06"}), world.api.asked)

    def copies(self, x: Floats, y: Floats, scale: float) -> dict[str, Callable[[Floats], Floats]]:
        """Fit copies to scaled queries and their answers, by how they are fitted."""
        fitted = {f"cross-entropy {ridge:g}": cross_entropy(x, y, ridge) for ridge in RIDGES}
        if (y > 0).all():
            fitted["equations"] = least_squares(x, y)
        return {how: lambda z, copy=copy: copy.probabilities(z / scale) for how, copy in fitted.items()}


@dataclass(frozen=True)
class Binary(EquationSolving):
    """On a logistic regression: d + 1 answers suffice."""

    name: ClassVar[str] = "equation_solving_binary"
    title: ClassVar[str] = "copy a logistic regression by solving equations"
    published: ClassVar[str] = "d + 1 queries (41 on average) and no error"
    victim: ClassVar[str] = "breast_cancer"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("surrogate_l1", 0.005),)

    queries: int = 100


@dataclass(frozen=True)
class Softmax(EquationSolving):
    """On a softmax regression."""

    name: ClassVar[str] = "equation_solving_softmax"
    title: ClassVar[str] = "copy a softmax regression by solving equations"
    published: ClassVar[str] = "265 queries 99.96% and 530 queries 100% agreement at 530 unknowns; digits 650 queries 100%"
    victim: ClassVar[str] = "digits"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("surrogate_l1", 0.01),)


ATTACKS: tuple[Attack, ...] = (Binary(), Softmax())
