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
from guard.selftest.attacks.cells import bare_labels
from guard.selftest.attacks.extraction import draw, tried
from guard.selftest.attacks.fit import completed, softmax
from guard.selftest.attacks.network import fit_network
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
        epochs: passes over the answers; when fewer came than queries were meant, more passes make up, ten times at most.
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
        world.progress(0.4, "training copies")
        curve = [self.point(world, x[:n], y[:n]) for n in POINTS if n < len(x)]
        tries = tried(world, self.copies(world, x, y), self.plain)
        best = min(found.measures[self.metric].value for found in tries)
        cost = world.api.asked / len(x)  # a wrapper may ask more than once for an answer
        points = [(round(n * cost), value) for n, value in [*curve, (len(x), best)]]
        return Outcome(tries, world.api.asked, points)

    def point(self, world: World, x: Floats, y: Floats) -> tuple[int, float]:
        """Return how many answers there are, and the least distance of a copy trained on them."""
        test = cast("Floats", world.judge.test_x)
        truth = world.judge.truth(test)
        found = (np.abs(copy(test) - truth).sum(axis=1).mean() for copy in self.copies(world, x, y).values())
        return len(x), float(min(found))

    def copies(self, world: World, x: Floats, y: Floats) -> dict[str, Callable[[Floats], Floats]]:
        """Train copies by how they were trained.

        Args:
            world: gives ranges, the attacker's own data and randomness.
            x: queries, shape (n, d).
            y: their answers, shape (n, k).
        """
        return {
            how: trained_copy(
                world.knows, rows, scores, self.hidden, enough(self.epochs, self.queries, len(rows)), temperature,
                world.rng("network"),
            )
            for how, (rows, scores, temperature) in self.lessons(world.knows, x, y).items()
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
    """Return how often to go over some rows: `epochs` when all queries were answered, at most ten times that.

    >>> enough(40, 10_000, 10_000), enough(40, 10_000, 5_000), enough(40, 10_000, 1)
    (40, 80, 400)
    """
    return min(10 * epochs, max(epochs, epochs * queries // max(1, rows)))


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

    Above 1, the temperature flattens the answers, p^(1/T), and the copy's scores before the softmax are multiplied by it
    again. At high temperatures that fits logits (Hinton et al. 2015, section 2.1; Ba and Caruana, NeurIPS 2014).
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
