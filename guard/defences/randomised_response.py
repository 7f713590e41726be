"""The label, or with some probability another."""

from __future__ import annotations

from math import exp
from typing import ClassVar, Literal

from pydantic import Field

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Epsilon, Mechanism, labels
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import Event, Pure
from guard.privacy.measurement import Norm


class RandomisedResponse(Mechanism, frozen=True):
    """Answers the label, or with some probability another, and nothing else.

    Args:
        epsilon: of every answer, in nats.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    leaves_labels: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    kind: Literal["randomised_response"] = "randomised_response"
    epsilon: Epsilon = Field(examples=[1.0])

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        """Return one-hot rows."""
        chosen = discrete.randomised_response(scores.argmax(axis=1), scores.shape[1], self.epsilon, rng.fresh)
        return labels(chosen, batch)

    def event(self) -> Event:
        """Return what one row costs, however little the scores can move."""
        return Pure(self.epsilon)

    def noise(self) -> str:
        """Return the noise in words."""
        truthful = 1.0 / (1.0 + (self._columns - 1) * exp(-self.epsilon))
        return f"the label with probability {truthful:.6g}, else any other alike"
