"""Model inversion through the API: climb the confidence in a class by finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.selftest.attacks.inversion import ascend, copies, outcome, scale, start
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, World
from guard.selftest.measures import Floats


@dataclass(frozen=True)
class PrototypeInversion:
    """Climbs each class's log-confidence from the mean image, gradients estimated from pairs of opposite random steps.

    All classes climb in lock-step, so that one request carries all their pairs. When the API stops answering, what was
    reached counts.

    Args:
        queries: rows a class.
        pairs: pairs of rows a class and a round.
        spread: standard deviation of the random steps, as a share of the features' greatest size.
        step: length of the step after a round, as the same share.
        momentum: what is kept of the last rounds' gradients.

    Source: Fredrikson, Jha, Ristenpart, CCS 2015, section 5 (MI-Face), gradients by natural evolution strategies (Ilyas
    et al., ICML 2018). Differs: digits, not faces; fixed rounds in place of a stopping rule; other attackers copy the
    model from the answers they got (their labels too) and invert the copy.
    """

    name: ClassVar[str] = "prototype_inversion"
    title: ClassVar[str] = "recover what classes look like by climbing their confidence through the API"
    threat: ClassVar[Threat] = "model inversion"
    atlas: ClassVar[str] = "AML.T0024.001"
    source: ClassVar[str] = (
        "Fredrikson, Jha, Ristenpart, Model Inversion Attacks that Exploit Confidence Information, CCS 2015, section 5"
    )
    published: ClassVar[str] = (
        "skilled workers pick a recovered face's owner from a line-up with 95% accuracy; rounding to .1 ends it"
    )
    victim: ClassVar[str] = "digits"
    metric: ClassVar[str] = "correlation"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("correlation", 0.8),)
    helps: ClassVar[str] = "labels give it away as well: classes that are no single person's, or training with privacy"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    queries: int = 1920
    pairs: int = 32
    spread: float = 0.3
    step: float = 0.05
    momentum: float = 0.8

    def run(self, world: World) -> Outcome:
        """Climb, then copy and invert."""
        reached, x, y = self.climb(world)
        found = {"climbed": reached}
        found |= {f"copy, {how}": ascend(world, copy) for how, copy in copies(world, x, y).items()}
        return outcome(world, found, frozenset({"climbed"}))

    def climb(self, world: World) -> tuple[Floats, Floats, Floats]:
        """Return the prototypes, shape (k, d), and every query that was answered with its scores.

        Raises:
            Refused: not one was answered.
        """
        knows, size, rng = world.knows, scale(world), world.rng("steps")
        x = np.tile(start(world), (knows.classes, 1))
        kept, asked, told = np.zeros_like(x), list[Floats](), list[Floats]()
        rounds = self.queries // (2 * self.pairs)
        for number in range(rounds):
            world.progress(number / rounds, "climbing")
            steps = rng.normal(size=(knows.classes, self.pairs, knows.size))
            rows = np.stack((x[:, None] + self.spread * size * steps, x[:, None] - self.spread * size * steps), axis=2)
            flat = rows.reshape(-1, knows.size)
            try:
                answers = world.api.ask(flat)
            except Refused as error:
                if error.answers is not None and len(error.answers):
                    asked.append(flat[: len(error.answers)])
                    told.append(error.answers)
                if not told:
                    raise
                break
            asked.append(flat)
            told.append(answers)
            kept = self.momentum * kept + (1 - self.momentum) * slope(answers, steps)
            way = kept / (np.linalg.norm(kept, axis=1, keepdims=True) + 1e-12)
            x = np.clip(x + self.step * size * way, knows.low, knows.high)
        return x, np.concatenate(asked), np.concatenate(told)


def slope(answers: Floats, steps: Floats) -> Floats:
    """Return the estimated gradients of the log-confidences, shape (k, d), up to a factor.

    Args:
        answers: to pairs of opposite steps, classes first, shape (k * pairs * 2, k); what reads 0 was rounded away and
            counts as half of the least score that was not.
        steps: shape (k, pairs, d).
    """
    k, pairs = steps.shape[:2]
    least = answers[answers > 0].min() / 2
    logs = np.log(np.where(answers > 0, answers, least)).reshape(k, pairs, 2, k)
    own: Floats = np.array([logs[c, :, 0, c] - logs[c, :, 1, c] for c in range(k)])
    return (own[:, :, None] * steps).mean(axis=1)


ATTACKS: tuple[Attack, ...] = (PrototypeInversion(),)
