"""Model inversion in two steps: copy the model from few answers, then invert the copy offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from guard.selftest.attacks.extraction import Draw, draw
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.inversion import ascend, copies, outcome, start
from guard.selftest.base import Attack, Criterion, Outcome, Threat, World
from guard.selftest.measures import Floats


@dataclass(frozen=True)
class ExtractThenInvert:
    """Copies a softmax regression from its answers to random queries, then climbs the copy's confidence in each class.

    Args:
        queries: random queries.
        draws: how they are drawn.
        steps: of gradient ascent.
        step: length of a step, as a share of the features' greatest size.

    Source: Tramer et al., USENIX Security 2016, section 5.1 (extraction first makes the inversion of Fredrikson, Jha,
    Ristenpart, CCS 2015, section 5, cheap). Differs: digits, not faces; copies are fitted in several ways, also to the
    labels alone; the best counts. Inversion is plain gradient ascent on the log-confidence from the mean image.
    """

    name: ClassVar[str] = "extract_then_invert"
    title: ClassVar[str] = "recover what classes look like from a copy of the model"
    threat: ClassVar[Threat] = "model inversion"
    atlas: ClassVar[str] = "AML.T0024.001"
    source: ClassVar[str] = (
        "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016, section 5; "
        "Fredrikson, Jha, Ristenpart, Model Inversion Attacks that Exploit Confidence Information, CCS 2015, section 5"
    )
    published: ClassVar[str] = (
        "40 faces from 41,216 queries in all, where inverting one face through the API takes 20,600"
    )
    victim: ClassVar[str] = "digits"
    metric: ClassVar[str] = "correlation"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("correlation", 0.8),)
    helps: ClassVar[str] = "labels give it away as well: classes that are no single person's, or training with privacy"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    queries: int = 650
    draws: Draw = "gauss"
    steps: int = 20
    step: float = 0.05

    def run(self, world: World) -> Outcome:
        """Ask, copy, invert."""
        start(world)
        x, y = harvest(
            world.api, draw(world.knows, self.draws, self.queries, world.rng("queries")), world.knows.classes
        )
        fitted = copies(world, cast("Floats", x), y)
        found = {how: ascend(world, copy, self.steps, self.step) for how, copy in fitted.items()}
        return outcome(world, found, frozenset({"equations", "cross-entropy 1e-06"}))


ATTACKS: tuple[Attack, ...] = (ExtractThenInvert(),)
