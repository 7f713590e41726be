"""Retraining: train a network on whatever an API answered, in every way that answers allow, and measure the copies.

The published attacks train on the answers as they are. An attacker who has read Guard's source does more with the same
answers: flattens exact scores, so that small probabilities count as much as large ones; looks for scores behind
quantised ones; weighs graded answers up where most are bare labels; trusts nothing but labels; adds data of its own
with true labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.api import one_hot
from guard.selftest.attacks.extraction import draw, strongest, tried
from guard.selftest.attacks.fit import completed, softmax
from guard.selftest.attacks.network import Network, fit_network
from guard.selftest.attacks.quantisers import Cells, bare_labels, cells_of, told
from guard.selftest.base import Criterion, Knowledge, Outcome, Refused, Threat, World
from guard.selftest.measures import Floats

RATE = 5e-3
FEW = 0.01
"""Share of scores that may read 0 where scores are taken for exact."""
POINTS = (500, 2000)
"""After how many answers a curve is measured, besides the last one."""
ANSWERS, SOFTENED, WINNERS = "answers", "answers, softened", "winners only"
GRADED, WEIGHED, INTERVAL = "graded answers", "graded answers weighed up", "interval"
LABELS, OWN = "labels", "answers and own labels"


@dataclass(frozen=True)
class Lesson:
    """What a copy is trained on.

    Args:
        x: inputs, shape (n, d).
        y: targets, shape (n, k).
        temperature: softens the targets.
        after: lesson that the network has learned before; empty for none.
        cells: bounds of the true scores behind `y`, to train until the copy's scores lie in them.
    """

    x: Floats
    y: Floats
    temperature: float = 1.0
    after: str = ""
    cells: Cells | None = None


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
        copies = self.copies(world, self.lessons(world.knows, x, y))
        tries = tried(world, strongest(world, copies, self.plain), self.plain)
        world.progress(0.8, "training copies on fewer answers")
        best = min(tries, key=lambda found: found.measures[self.metric].value)
        cost = world.api.asked / len(x)  # a wrapper may ask more than once for an answer
        curve = [(round(n * cost), self.at(world, x[:n], y[:n], best.how)) for n in POINTS if n < len(x)]
        curve.append((world.api.asked, best.measures[self.metric].value))
        return Outcome(tries, world.api.asked, curve)

    def at(self, world: World, x: Floats, y: Floats, how: str) -> float:
        """Return the distance of the copy that the first answers give, trained as the best one was."""
        lessons = self.lessons(world.knows, x, y)
        chosen = how if how in lessons else ANSWERS
        copy = self.copies(world, {name: lessons[name] for name in lessons if name in (chosen, lessons[chosen].after)})
        test = cast("Floats", world.judge.test_x)
        return float(np.abs(copy[chosen](test) - world.judge.truth(test)).sum(axis=1).mean())

    def lessons(self, knows: Knowledge, x: Floats, y: Floats) -> dict[str, Lesson]:
        """Return what to train on: what scores teach, then labels, then answers and the attacker's own labels."""
        found = from_scores(x, y, self.temperature)
        if not bare_labels(y).all():
            found[LABELS] = Lesson(x, hard(y))
        if knows.own_y is not None:
            own = one_hot(np.asarray(knows.own_y, dtype=np.float64), y.shape[1])
            found[OWN] = Lesson(np.concatenate((cast("Floats", knows.own_x), x)), np.concatenate((own, told(y))))
        return found

    def copies(self, world: World, lessons: Mapping[str, Lesson]) -> dict[str, Callable[[Floats], Floats]]:
        """Train copies by what they were trained on."""
        networks: dict[str, Network] = {}
        for how, lesson in lessons.items():
            passes = enough(self.epochs, self.queries, len(lesson.x))
            start = networks.get(lesson.after)
            networks[how] = train(world.knows, lesson, self.hidden, passes, world.rng("network"), start)
        return {how: copy_of(world.knows, networks[how], lesson.temperature) for how, lesson in lessons.items()}


def from_scores(x: Floats, y: Floats, temperature: float) -> dict[str, Lesson]:
    """Return what scores teach, by name.

    Args:
        x: queries, shape (n, d).
        y: whatever came back, shape (n, k).
        temperature: for scores that are exact enough to be softened.
    """
    bare, scores = bare_labels(y), told(y)
    found = {ANSWERS: Lesson(x, y)}
    if bare.all():
        return found
    if (scores != y).any():
        found[WINNERS] = Lesson(x, scores)
    if bare.any():
        # Beside graded answers, bare labels pull a copy towards being too sure.
        repeats = max(1, int(bare.sum()) // int((~bare).sum()))
        rows = np.concatenate((np.repeat(np.flatnonzero(~bare), repeats), np.flatnonzero(bare)))
        found[GRADED] = Lesson(x[~bare], scores[~bare])
        found[WEIGHED] = Lesson(x[rows], scores[rows])
    elif WINNERS not in found and (y == 0).mean() < FEW:
        found[SOFTENED] = Lesson(x, y, temperature)
    cells = cells_of(y)
    if cells is not None:
        found[INTERVAL] = Lesson(x, y, after=WINNERS if WINNERS in found else ANSWERS, cells=cells)
    return found


def enough(epochs: int, queries: int, rows: int) -> int:
    """Return how often to go over some rows: `epochs` when all queries were answered, at most five times that.

    >>> enough(40, 10_000, 10_000), enough(40, 10_000, 5_000), enough(40, 10_000, 1)
    (40, 80, 200)
    """
    return min(5 * epochs, max(epochs, epochs * queries // max(1, rows)))


def train(
    knows: Knowledge, lesson: Lesson, hidden: int, passes: int, rng: np.random.Generator, start: Network | None = None
) -> Network:
    """Train a network on a lesson; one that goes on from another takes a third of the passes and of the step size.

    Above 1, the temperature flattens the answers, p^(1/T). At high temperatures that fits logits (Hinton et al. 2015,
    section 2.1; Ba and Caruana, NeurIPS 2014).
    """
    x = to_unit(knows, lesson.x)
    y = lesson.y if lesson.temperature == 1.0 else softened(lesson.y, lesson.temperature)
    if start is None:
        return fit_network(x, y, hidden, passes, rng, cells=lesson.cells)
    return fit_network(x, y, hidden, max(1, passes // 3), rng, rate=RATE / 3, start=start, cells=lesson.cells)


def copy_of(knows: Knowledge, network: Network, temperature: float = 1.0) -> Callable[[Floats], Floats]:
    """Return a network as inputs of shape (n, d) -> probabilities of shape (n, k), its temperature taken back."""
    return lambda z: softmax(network.logits(to_unit(knows, z)) * temperature)


def hard(y: Floats) -> Floats:
    """Return the winners of scores, shape (n, k), as one-hot rows."""
    return one_hot(y.argmax(axis=1).astype(np.float64), y.shape[1])


def to_unit(knows: Knowledge, x: Floats) -> Floats:
    """Scale features to order one: 0 to 1 over their ranges, so that black stays 0; signed ones are centred."""
    wide = np.where(knows.high > knows.low, knows.high - knows.low, 1.0)
    if knows.low.min() >= 0:
        return (x - knows.low) / wide
    return (x - cast("Floats", knows.own_x).mean(axis=0)) / (wide / 2)


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
