"""A label drawn with a preference for great scores."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal, Self

from pydantic import Field

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Epsilon, Mechanism, labels
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import BoundedRange, Event
from guard.privacy.lattice import lattice, sampled
from guard.privacy.measurement import Norm


class Exponential(Mechanism, frozen=True):
    """Answers a label drawn by the exponential mechanism, and nothing else.

    Args:
        epsilon: of every answer, in nats.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    leaves_labels: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    kind: Literal["exponential"] = "exponential"
    epsilon: Epsilon = Field(examples=[1.0])

    def solved(self) -> Self:
        """Return a bound mechanism with its grid: its scale is the sensitivity in whole steps, 2^32 of them or more."""
        return self.knowing(_grid=sampled(lattice(1.0, self._sensitivity, self.norm, self._columns, self.magnitude)))

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        """Return one-hot rows."""
        rate = Fraction(self.epsilon) / (2 * self.grid.scale)
        chosen = discrete.exponential(self.grid.snap(scores), rate.numerator, rate.denominator, rng.fresh)
        return labels(chosen, batch)

    def event(self) -> Event:
        """Return what one row costs."""
        return BoundedRange(self.epsilon)

    def noise(self) -> str:
        """Return the noise in words."""
        return f"a draw with weights e^({self.epsilon / (2 * self.grid.width):.6g} * score)"
