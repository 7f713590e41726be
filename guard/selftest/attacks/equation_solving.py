"""Equation solving: copy a (softmax) regression from its answers to random queries."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from guard.selftest.api import one_hot
from guard.selftest.attacks.extraction import Draw, draw, strongest, tried
from guard.selftest.attacks.fit import Linear, cross_entropy, least_squares
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.quantisers import told
from guard.selftest.attacks.regressions import PLAIN, regressions
from guard.selftest.base import Api, Attack, Criterion, Knowledge, Outcome, Refused, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the queries: where the curve is measured."""


@dataclass(frozen=True)
class EquationSolving:
    """Solves log(p_i / p_mean) = w_i x + b_i by least squares.

    Args:
        queries: random queries.
        draws: how they are drawn.
        other_draws: how attackers with an account each draw as many, who know the policy.

    Source: Tramer, Zhang, Juels, Reiter, Ristenpart, USENIX Security 2016, sections 4.1 and 4.3. Differs: queries are
    drawn around the attacker's data, not over the features' ranges, where a softmax on many classes saturates; a copy
    is fitted by cross-entropy beside, which survives rounding. Attackers who know the policy add the fits of
    `regressions`, and the best of them counts, chosen by who measures: a real one would have to choose blindly.
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
    other_draws: tuple[Draw, ...] = ("mixed", "uniform")

    def run(self, world: World) -> Outcome:
        """Ask, then fit in every way."""
        scale = scale_of(world.knows)
        x, y = self._asked(world, world.api, self.draws)
        world.progress(0.3, "fitting")
        tries = self._tries(world, x / scale, y, self.draws, PLAIN)
        curve = prefix_curve(world, x / scale, y, scale)
        for number, how in enumerate(self.other_draws, 1):
            world.progress(0.3 + 0.6 * number / len(self.other_draws), f"{how} queries")
            # An account of its own, so that no drawing spends another's budget; a live target has only one.
            with suppress(Refused, Unresolved):
                api = world.account(number)
                x, y = self._asked(world, api, how)
                tries += self._tries(replace(world, api=api), x / scale, y, how, frozenset())
        return Outcome(tries, world.api.asked, curve)

    def _asked(self, world: World, api: Api, how: Draw) -> tuple[Floats, Floats]:
        x = draw(world.knows, how, self.queries, world.rng(f"{how} queries"))
        rows, y = harvest(api, x, world.knows.classes)
        return cast("Floats", rows), y

    def _tries(self, world: World, x: Floats, y: Floats, how: Draw, plain: frozenset[str]) -> list[Try]:
        scale = scale_of(world.knows)
        copies: dict[str, Callable[[Floats], Floats]] = {}
        for fit, copy in regressions(x, y, world.rng(f"{how} fits"), own_labels(world.knows)):
            copies[fit] = unscaled(copy, scale)
        found = tried(world, strongest(world, copies, plain), plain)
        return [replace(t, how=f"{how} queries, {t.how}") for t in found]


def scale_of(knows: Knowledge) -> float:
    """Return what inputs are divided by to be of order one."""
    return max(float(np.abs(knows.high).max()), float(np.abs(knows.low).max()), 1e-9)


def own_labels(knows: Knowledge) -> tuple[Floats, Floats] | None:
    """Return the attacker's own data, scaled, and their labels as one-hot scores; None when there are no labels."""
    if knows.own_y is None or knows.classes < 2:
        return None
    labels = np.asarray(knows.own_y, dtype=np.float64)
    return cast("Floats", knows.own_x) / scale_of(knows), one_hot(labels, knows.classes)


def unscaled(copy: Linear, scale: float) -> Callable[[Floats], Floats]:
    """Return a copy of scaled inputs as one of inputs as they are."""
    return lambda z: copy.probabilities(z / scale)


def prefix_curve(world: World, x: Floats, y: Floats, scale: float) -> list[tuple[int, float]]:
    """Return (queries, surrogate_l1) of copies of the first answers, fitted cheaply."""
    test = cast("Floats", world.judge.test_x)
    truth = world.judge.truth(test)
    found: list[tuple[int, float]] = []
    for n in sorted({max(1, int(share * len(x))) for share in SHARES}):
        copies = [cross_entropy(x[:n], told(y[:n]), ridge) for ridge in (1e-6, 1e-4)]
        if (y[:n] > 0).all():
            copies.append(least_squares(x[:n], y[:n]))
        far = [float(np.abs(copy.probabilities(test / scale) - truth).sum(axis=1).mean()) for copy in copies]
        found.append((n, min(far)))
    return found


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
    published: ClassVar[str] = (
        "265 queries 99.96% and 530 queries 100% agreement at 530 unknowns; digits 650 queries 100%"
    )
    victim: ClassVar[str] = "digits"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("surrogate_l1", 0.01),)


ATTACKS: tuple[Attack, ...] = (Binary(), Softmax())
