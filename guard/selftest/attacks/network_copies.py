"""Retraining: train a network on whatever an API answered, in every way that answers allow, and measure the copies.

The published attacks train on the answers as they are. An attacker who has read Guard's source does more with the same
answers: flattens exact scores, so that small probabilities count as much as large ones; leaves out bare labels where
there are graded answers; trusts nothing but labels; adds data of its own with true labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.api import one_hot
from guard.selftest.attacks.extraction import draw, tried
from guard.selftest.attacks.fit import completed, softmax
from guard.selftest.attacks.network import fit_network
from guard.selftest.attacks.quantisers import bare_labels
from guard.selftest.base import Criterion, Knowledge, Outcome, Refused, Threat, World
from guard.selftest.measures import Floats

POINTS = (500, 2000)
"""After how many answers a curve is measured, besides the last one."""
ANSWERS, SOFTENED, GRADED = "answers", "answers, softened", "graded answers"
GRADED_SOFTENED, LABELS, OWN = "graded answers, softened", "labels", "answers and own labels"


@dataclass(frozen=True)
class Retraining:
    """Asks, and trains a network with one hidden layer.

    Args:
        queries: how many are asked.
        hidden: units of the copy.
        epochs: passes over the answers; when fewer came than queries were meant, up to five times as many.
        temperature: of the softened scores.
    """

    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    victim: ClassVar[str] = "digits_mlp"
    metric: ClassVar[str] = "surrogate_l1"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("agreement", 0.9),)
    helps: ClassVar[str] = (
        "a budget of graded answers per customer, then labels, then refusal; nothing keeps decisions secret"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")
    plain: ClassVar[frozenset[str]] = frozenset({ANSWERS})

    queries: int = 10_000
    hidden: int = 128
    epochs: int = 40
    temperature: float = 4.0

    def collect(self, world: World) -> tuple[Floats, Floats]:
        """Return the queries that were answered, shape (n, d), and their scores, shape (n, k).

        Raises:
            Refused: not one was answered.
        """
        raise NotImplementedError

    def run(self, world: World) -> Outcome:
        """Ask, train in every way, measure."""
        x, y = self.collect(world)
        world.progress(0.3, "training copies")
        tries = tried(world, self.copies(world, x, y), self.plain)
        world.progress(0.8, "training copies on fewer answers")
        best = min(tries, key=lambda found: found.measures[self.metric].value)
        cost = world.api.asked / len(x)  # a wrapper may ask more than once for an answer
        curve = [(round(n * cost), self.at(world, x[:n], y[:n], best.how)) for n in POINTS if n < len(x)]
        curve.append((world.api.asked, best.measures[self.metric].value))
        return Outcome(tries, world.api.asked, curve)

    def at(self, world: World, x: Floats, y: Floats, how: str) -> float:
        """Return the distance of the copy that the first answers give, trained as the best one was."""
        lessons = self.lessons(world.knows, x, y)
        # Where the last answers were labels, the first ones may all be graded.
        whole = {GRADED: ANSWERS, GRADED_SOFTENED: SOFTENED}.get(how, how)
        chosen = next(name for name in (how, whole, ANSWERS) if name in lessons)
        copy = self.copies(world, x, y, only=chosen)[chosen]
        test = cast("Floats", world.judge.test_x)
        return float(np.abs(copy(test) - world.judge.truth(test)).sum(axis=1).mean())

    def copies(self, world: World, x: Floats, y: Floats, *, only: str = "") -> dict[str, Callable[[Floats], Floats]]:
        """Train copies by how they were trained.

        Args:
            world: gives ranges, the attacker's own data and randomness.
            x: queries, shape (n, d).
            y: their answers, shape (n, k).
            only: train this one; all of them when empty.
        """
        return {
            how: trained_copy(
                world.knows, rows, scores, self.hidden, enough(self.epochs, self.queries, len(rows)), temperature,
                world.rng("network"),
            )
            for how, (rows, scores, temperature) in self.lessons(world.knows, x, y).items()
            if only in ("", how)
        }  # fmt: skip

    def lessons(self, knows: Knowledge, x: Floats, y: Floats) -> dict[str, tuple[Floats, Floats, float]]:
        """Return what to train on, by name: inputs, targets, temperature."""
        graded = ~bare_labels(y)
        found = {ANSWERS: (x, y, 1.0)}
        if graded.any():
            found[LABELS] = (x, one_hot(y.argmax(axis=1).astype(np.float64), y.shape[1]), 1.0)
        if graded.all():
            found[SOFTENED] = (x, y, self.temperature)
        elif graded.sum() > y.shape[1]:
            # Beside graded answers, bare labels pull a copy towards being too sure.
            found[GRADED] = (x[graded], y[graded], 1.0)
            found[GRADED_SOFTENED] = (x[graded], y[graded], self.temperature)
        if knows.own_y is not None:
            own = one_hot(np.asarray(knows.own_y, dtype=np.float64), y.shape[1])
            mixed = np.concatenate((cast("Floats", knows.own_x), x)), np.concatenate((own, completed(y)))
            found[OWN] = (*mixed, 1.0)
        return found


def enough(epochs: int, queries: int, rows: int) -> int:
    """Return how often to go over some rows: `epochs` when all queries were answered, at most five times that.

    >>> enough(40, 10_000, 10_000), enough(40, 10_000, 5_000), enough(40, 10_000, 1)
    (40, 80, 200)
    """
    return min(5 * epochs, max(epochs, epochs * queries // max(1, rows)))


def trained_copy(
    knows: Knowledge,
    x: Floats,
    y: Floats,
    hidden: int,
    passes: int,
    temperature: float,
    rng: np.random.Generator,
) -> Callable[[Floats], Floats]:
    """Train a network and return it as inputs of shape (n, d) -> probabilities of shape (n, k).

    Above 1, the temperature flattens the answers, p^(1/T), and the copy's scores before the softmax are multiplied by
    it again. At high temperatures that fits logits (Hinton et al. 2015, section 2.1; Ba and Caruana, NeurIPS 2014).
    """
    network = fit_network(to_unit(knows, x), softened(y, temperature), hidden, passes, rng)
    return lambda z: softmax(network.logits(to_unit(knows, z)) * temperature)


def to_unit(knows: Knowledge, x: Floats) -> Floats:
    """Map each feature's range to 0 to 1; a constant feature is only shifted."""
    return (x - knows.low) / np.where(knows.high > knows.low, knows.high - knows.low, 1.0)


def softened(y: Floats, temperature: float) -> Floats:
    """Return completed scores to the power 1 / T, each row summing to 1.

    >>> softened(np.array([[0.9, 0.1], [0.0, 1.0]]), 2.0).round(2).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    flat = completed(y) ** (1.0 / temperature)
    return flat / flat.sum(axis=1, keepdims=True)


def own_then_mixed(world: World, n: int) -> Floats:
    """Return the attacker's own data in random order, then points between two rows of them, shape (n, d)."""
    rng, own = world.rng("queries"), cast("Floats", world.knows.own_x)
    first = own[rng.permutation(len(own))[:n]]
    return np.concatenate((first, draw(world.knows, "mixed", n - len(first), rng)))


def gather(world: World, rows: Floats) -> tuple[Floats, Floats, bool]:
    """Ask some rows; return those that were answered, their scores, and whether the API is still answering."""
    try:
        return rows, world.api.ask(rows), True
    except Refused as error:
        answers = error.answers if error.answers is not None else np.empty((0, world.knows.classes))
        return rows[: len(answers)], answers, False
