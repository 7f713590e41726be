"""Mimic: what scores are worth to a thief, measured as the same copy trained on scores and on labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from guard.selftest.api import one_hot
from guard.selftest.attacks.extraction import measure
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network_copies import (
    ANSWERS,
    GRADED,
    GRADED_SOFTENED,
    SOFTENED,
    enough,
    own_then_mixed,
    trained_copy,
)
from guard.selftest.attacks.quantisers import bare_labels
from guard.selftest.base import Attack, Criterion, Outcome, Threat, Try, World
from guard.selftest.measures import Floats, exact, mean_of


@dataclass(frozen=True)
class Mimic:
    """Trains one network on the scores of some queries and one on the labels of the same queries.

    Both start from the same weights and see the rows in the same order, so that labels against labels differ by 0.

    Args:
        queries: the attacker's own data, then points between two rows of them.
        hidden: units of the copies.
        epochs: passes over the answers.
        temperature: of the softened scores.

    Source: Ba and Caruana, NeurIPS 2014 (fit to logits); Hinton, Vinyals, Dean 2015, section 2 (temperature). Differs:
    a temperature stands for the fit to logits, which truncated and rounded scores do not allow; the measure is distance
    to the model, where they count errors.
    """

    name: ClassVar[str] = "mimic"
    title: ClassVar[str] = "distil a model from its scores, against labels alone"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Ba and Caruana, Do Deep Nets Really Need to be Deep?, NeurIPS 2014"
    published: ClassVar[str] = (
        "TIMIT: a shallow net errs on 23.1% trained on labels, on 21.6% trained on a deep net's logits"
    )
    victim: ClassVar[str] = "digits"
    metric: ClassVar[str] = "score_advantage"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("score_advantage", 0.05),)
    helps: ClassVar[str] = (
        "fewer score levels, and a budget of graded answers: where answers are labels the advantage is 0"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    queries: int = 2000
    hidden: int = 128
    epochs: int = 100
    temperature: float = 4.0

    def run(self, world: World) -> Outcome:
        """Ask, train twice on the same queries, compare."""
        asked, y = harvest(world.api, own_then_mixed(world, self.queries), world.knows.classes)
        x = cast("Floats", asked)
        tries: list[Try] = []
        for how, (rows, temperature) in self.lessons(y).items():
            world.progress(0.4 + 0.2 * len(tries), f"training on {how}")
            tries.append(self.tried(world, how, x[rows], y[rows], temperature))
        return Outcome(tries, world.api.asked)

    def lessons(self, y: Floats) -> dict[str, tuple[NDArray[np.bool_], float]]:
        """Return what copies are trained on, by name: which answers, and a temperature."""
        every, graded = np.ones(len(y), dtype=np.bool_), ~bare_labels(y)
        found = {ANSWERS: (every, 1.0)}
        if graded.all():
            found[SOFTENED] = (every, self.temperature)
        elif graded.sum() > y.shape[1]:
            found |= {GRADED: (graded, 1.0), GRADED_SOFTENED: (graded, self.temperature)}
        return found

    def tried(self, world: World, how: str, x: Floats, y: Floats, temperature: float) -> Try:
        """Train on the answers and on their labels, and measure what the answers were worth."""
        knows, test = world.knows, cast("Floats", world.judge.test_x)
        labels = one_hot(y.argmax(axis=1).astype(np.float64), y.shape[1])
        passes = enough(self.epochs, self.queries, len(x))
        copy = trained_copy(knows, x, y, self.hidden, passes, temperature, world.rng("network"))
        other = trained_copy(knows, x, labels, self.hidden, passes, 1.0, world.rng("network"))
        truth = world.judge.truth(test)
        gain = np.abs(other(test) - truth).sum(axis=1) - np.abs(copy(test) - truth).sum(axis=1)
        found = {"score_advantage": mean_of(gain, world.rng("bootstrap"))} | measure(world, copy)
        found["graded_answers"] = exact(max(world.api.tally.graded.values(), default=0))
        return Try(how, found, plain=how in (ANSWERS, SOFTENED))


ATTACKS: tuple[Attack, ...] = (Mimic(),)
