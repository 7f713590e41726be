"""Mimic: what scores are worth to a thief, measured as the same copy trained on scores and on labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.extraction import measure
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network import Network
from guard.selftest.attacks.network_copies import (
    ANSWERS,
    LABELS,
    SOFTENED,
    Lesson,
    copy_of,
    enough,
    from_scores,
    hard,
    own_then_mixed,
    train,
)
from guard.selftest.base import Attack, Criterion, Outcome, Threat, Try, World
from guard.selftest.measures import Floats, Measure, exact, mean_of

Copy = Callable[[Floats], Floats]
"""Inputs of shape (n, d) -> probabilities of shape (n, k)."""


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
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("score_advantage", 0.1),)
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
        networks = {LABELS: self.trained(world, Lesson(x, hard(y)))}
        other = copy_of(world.knows, networks[LABELS])
        tries: list[Try] = []
        for how, lesson in from_scores(x, y, self.temperature).items():
            world.progress(0.4 + 0.1 * len(tries), f"training on {how}")
            networks[how] = self.trained(world, lesson, networks.get(lesson.after))
            copy = copy_of(world.knows, networks[how], lesson.temperature)
            tries.append(Try(how, self.compared(world, copy, other), plain=how in (ANSWERS, SOFTENED)))
        return Outcome(tries, world.api.asked)

    def trained(self, world: World, lesson: Lesson, start: Network | None = None) -> Network:
        """Train a network, always from the same first weights."""
        passes = enough(self.epochs, self.queries, len(lesson.x))
        return train(world.knows, lesson, self.hidden, passes, world.rng("network"), start)

    def compared(self, world: World, copy: Copy, other: Copy) -> dict[str, Measure]:
        """Measure how much closer a copy from scores is than one from labels, and the former itself."""
        test = cast("Floats", world.judge.test_x)
        truth = world.judge.truth(test)
        gain = np.abs(other(test) - truth).sum(axis=1) - np.abs(copy(test) - truth).sum(axis=1)
        graded = exact(max(world.api.tally.graded.values(), default=0))
        found = {"score_advantage": mean_of(gain, world.rng("bootstrap")), "graded_answers": graded}
        return measure(world, copy) | found


ATTACKS: tuple[Attack, ...] = (Mimic(),)
