"""The label, or with some probability another."""

from __future__ import annotations

from math import exp
from typing import ClassVar, Literal

from pydantic import Field

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Mechanism, labels
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import Event, Pure
from guard.privacy.measurement import Norm


class RandomisedResponse(Mechanism, frozen=True):
    """Answers the label, or with some probability any other, and nothing else (randomised response of k labels).

    The model's label is given with probability e^epsilon / (e^epsilon + k - 1), each other one with 1 / (e^epsilon + k
    - 1). That is epsilon-differentially private whatever the model's scores are. One record may change a label wholly,
    so there is no sensitivity to speak of (guard prints that of a single score), neither an ensemble nor
    `privacy.sensitivity` makes it cheaper, and for an ensemble `noisy_max` is the better choice.

    Costs: labels. Epsilon 1, 2, 4 keep 23%, 45%, 86% of 10 classes' labels, 73%, 88%, 98% of two classes'. A budget of
    epsilon 8 at delta 1e-6 buys 2 answers at epsilon 4, 4 at 2, 8 at 1. For a single model and a handful of answers
    nothing here is better; for 100 answers nothing is of use.
    Does nothing against whoever copies the model from labels alone but limit how many there are.
    Source: Warner, 1965; for k labels and its optimality at large epsilon: Kairouz, Oh and Viswanath, JMLR 2016.
    Differs: the coin is exact.

    Args:
        epsilon: of every answer, in nats; the privacy budget's epsilon is that of all together.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    leaves_labels: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    kind: Literal["randomised_response"] = "randomised_response"
    epsilon: float = Field(gt=0, le=1000, examples=[1.0])

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
