"""Adaptive retraining: copy a classifier from labels alone, asking where the copy so far is unsure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.asking import Asker, Spent
from guard.selftest.attacks.extraction import draw, standardised, tried
from guard.selftest.attacks.fit import Linear, cross_entropy
from guard.selftest.base import Attack, Criterion, Knowledge, Outcome, Threat, World
from guard.selftest.measures import Floats

_CANDIDATES = 5
_WHILE_ASKING = 1e-3
PUBLISHED = 1e-4
"""Ridge of the published attack's copy."""
_RIDGES = (1e-5, PUBLISHED, 1e-3, 1e-2)


@dataclass(frozen=True)
class ActiveLabels:
    """Asks likely rows, fits a (softmax) regression to the labels, and asks near its boundary, round by round.

    Args:
        queries: rows in all.
        rounds: the first one is drawn, each further one lies near the boundary of the copy so far.

    Source: Tramer et al., USENIX Security 2016, section 6.1, adaptive retraining (after Cohn, Atlas and Ladner 1994).
    Differs: picks the least certain of ten candidates rather than searching for points on the boundary. Adaptive: other
    ridges, and scores where they come.
    """

    name: ClassVar[str] = "active_labels"
    title: ClassVar[str] = "copy a classifier from labels, asking near the copy's boundary"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016"
    published: ClassVar[str] = "827 queries for above 99% agreement (linear), 26,000 for above 99.9% (softmax)"
    victim: ClassVar[str] = "breast_cancer"
    metric: ClassVar[str] = "agreement"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("agreement", 0.98),)
    helps: ClassVar[str] = "nothing: a hundred labels are enough; a budget of rows makes more of them dearer"
    needs: ClassVar[frozenset[str]] = frozenset({"vector"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    queries: int = 640
    rounds: int = 4

    def run(self, world: World) -> Outcome:
        """Ask and fit in turn."""
        knows, std = world.knows, np.maximum(world.knows.std, 1e-9)
        curve: list[tuple[int, float]] = []

        def after(answered: int, copy: Linear) -> None:
            curve.append((answered, _agreement(world, copy, std)))
            world.progress(0.9 * answered / self.queries, "asking near the boundary")

        asker = ask_near_boundary(world, self.queries, self.rounds, after)
        fitted = {f"labels, ridge {ridge:g}": on_labels(asker, knows, ridge) for ridge in _RIDGES}
        x, y = asker.kept()
        fitted["scores"] = cross_entropy(x / std, y, PUBLISHED)
        copies = {how: standardised(copy, std) for how, copy in fitted.items()}
        return Outcome(tried(world, copies, {f"labels, ridge {PUBLISHED:g}"}), world.api.asked, curve)


def ask_near_boundary(
    world: World, queries: int, rounds: int, after: Callable[[int, Linear], None] = lambda answered, copy: None
) -> Asker:
    """Ask likely rows, then those of which a copy fitted to the labels so far is unsure, round by round.

    Args:
        world: whose API is asked.
        queries: rows in all.
        rounds: how many.
        after: told the rows answered and the copy after each round.

    Raises:
        Refused: not one row was answered.
    """
    knows, rng = world.knows, world.rng("rounds")
    asker, share = Asker(world.api, queries), queries // rounds
    rows = draw(knows, "gauss", share, rng)
    try:
        for _ in range(rounds):
            asker.ask(rows)
            copy = on_labels(asker, knows, _WHILE_ASKING)
            after(asker.answered, copy)
            rows = unsure(knows, copy, share, rng)
    except Spent:
        pass
    asker.kept()
    return asker


def on_labels(asker: Asker, knows: Knowledge, ridge: float) -> Linear:
    """Fit a copy, for inputs divided by their spread, to the labels of all that was answered."""
    x, y = asker.kept()
    return cross_entropy(x / np.maximum(knows.std, 1e-9), np.eye(knows.classes)[y.argmax(axis=1)], ridge)


def unsure(knows: Knowledge, copy: Linear, n: int, rng: np.random.Generator) -> Floats:
    """Return the `n` of ten times as many likely rows whose two best classes are closest in the copy, shape (n, d)."""
    found = np.concatenate([draw(knows, how, _CANDIDATES * n, rng) for how in ("mixed", "gauss")])
    ranked = np.sort(copy.probabilities(found / np.maximum(knows.std, 1e-9)), axis=1)
    return found[np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")[:n]]


def _agreement(world: World, copy: Linear, std: Floats) -> float:
    test = cast("Floats", world.judge.test_x)
    said = copy.probabilities(test / std).argmax(axis=1)
    return float((said == world.judge.truth(test).argmax(axis=1)).mean())


ATTACKS: tuple[Attack, ...] = (ActiveLabels(),)
