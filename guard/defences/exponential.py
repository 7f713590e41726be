"""A label drawn with a preference for great scores."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal, Self

from pydantic import Field

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Mechanism, labels
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import BoundedRange, Event
from guard.privacy.lattice import lattice, sampled
from guard.privacy.measurement import Norm


class Exponential(Mechanism, frozen=True):
    """Answers a label drawn at random with a preference for great scores (exponential mechanism), and nothing else.

    A label is drawn with weight e^(epsilon * score / (2 * sensitivity)), where one training record moves a score by at
    most the sensitivity: 1 for one model, over an ensemble's quorum. Every answer is epsilon-differentially private,
    and answers add up better than those of any epsilon-DP mechanism would, by epsilon^2 / 8 of concentrated DP each.

    Costs: labels, a little more than `noisy_max` does for many answers. With 100 models that vote on digits (90.8%
    right without noise), epsilon 8 at delta 1e-6 buys 100 answers at epsilon .29 each of which 85% are right, or 1,000
    at .092 of which 45% are. For one model epsilon 1 gives even a certain label a weight of only e^.5 against the
    others' 1: with 10 classes 15% right.
    Does nothing against whoever copies the model from labels alone but limit how many there are.
    Source: McSherry and Talwar, FOCS 2007; composition: Cesar and Rogers, ALT 2021, theorem 4. Differs: scores are put
    on a grid of 2^32 steps a sensitivity first, whose rounding counts towards the sensitivity, and the draw is exact.

    Args:
        epsilon: of every answer, in nats; the privacy budget's epsilon is that of all together.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    leaves_labels: ClassVar[bool] = True
    norm: ClassVar[Norm] = "linf"

    kind: Literal["exponential"] = "exponential"
    epsilon: float = Field(gt=0, le=1000, examples=[1.0])

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
