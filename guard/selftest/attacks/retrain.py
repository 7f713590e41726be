"""Retraining on random queries, and on data like the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from guard.selftest.attacks.extraction import draw
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network_copies import Retraining, own_then_mixed
from guard.selftest.base import Attack, World
from guard.selftest.measures import Floats


@dataclass(frozen=True)
class Uniform(Retraining):
    """Queries are uniform over the features' ranges.

    Source: Tramer, Zhang, Juels, Reiter, Ristenpart, USENIX Security 2016, sections 4.1.3 (networks, scores) and 6.1
    (labels). Differs: the copy has more units than the model, whose architecture the attacker does not know.
    """

    name: ClassVar[str] = "retrain_uniform"
    title: ClassVar[str] = "train a copy of a network on uniform random queries"
    source: ClassVar[str] = "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016"
    published: ClassVar[str] = "a network of 2,225 unknowns: 4,450 queries agree on 99.89% (test) and 99.82% (uniform)"

    def collect(self, world: World) -> tuple[Floats, Floats]:
        """Ask uniform queries."""
        x = draw(world.knows, "uniform", self.queries, world.rng("queries"))
        asked, y = harvest(world.api, x, world.knows.classes)
        return cast("Floats", asked), y


@dataclass(frozen=True)
class InDistribution(Retraining):
    """Queries are the attacker's own data, then points between two rows of them.

    Source: Jagielski, Carlini, Berthelot, Kurakin, Papernot, "High Accuracy and High Fidelity Extraction of Neural
    Networks", USENIX Security 2020, section 4 (learning-based extraction, fully supervised). Differs: they have natural
    data in plenty; here the attacker has a quarter of a small data set and interpolates the rest (mixup).
    """

    name: ClassVar[str] = "retrain_in_distribution"
    title: ClassVar[str] = "train a copy of a network on data like its own"
    source: ClassVar[str] = (
        "Jagielski et al., High Accuracy and High Fidelity Extraction of Neural Networks, USENIX 2020"
    )
    published: ClassVar[str] = (
        "copies trained on the model's scores come closer to it than copies trained on true labels"
    )

    def collect(self, world: World) -> tuple[Floats, Floats]:
        """Ask own data first."""
        asked, y = harvest(world.api, own_then_mixed(world, self.queries), world.knows.classes)
        return cast("Floats", asked), y


ATTACKS: tuple[Attack, ...] = (Uniform(), InDistribution())
