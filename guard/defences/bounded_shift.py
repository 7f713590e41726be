"""Move a bounded mass from the likeliest classes to the least likely."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, keep_top
from guard.model.arrays import Floats
from guard.model.outputs import Kind

_LEAD = 0.01
"""What is left of the classes' lead over the level that they are cut to, so that their order stays."""


class BoundedShift(Defence, frozen=True):
    """Moves epsilon / 2 of the mass from the likeliest class to the least likely: an L1 distance of at most epsilon.

    Where the top would fall to the second class both give, and so on, down to a common level from which each keeps a
    hundredth of its lead, so that the order of those that give stays. The class that gets it never overtakes the top:
    of an even distribution there is less to move, or nothing.

    Costs: a mean L1 of epsilon, and calibration (digits: error + .046 at .1, + .096 at .2, + .24 at .5). Does nothing
    against an attacker who has read this file: mostly only one class can be the one that got the mass, since without it
    that class would be the least likely. So 14 to 20% of random queries, and 87 to 90% of those between real inputs,
    are undone exactly, and the copy of digits is the model (.000 at 650 queries, three seeds, epsilon .1 to .5). A copy
    that undoes nothing ends up .21, .38 and .51 away, which is what makes such defences look good. Put a quantiser or
    labels behind it, or leave it out.
    Source: after ModelGuard-W (Tang, Dai, DiValentin, Ding, Hass, Gong, Chen, Li, USENIX Security 2024), the worst
    perturbation of a bounded L1 distance. Differs: the worst one for cross-entropy is taken in closed form and without
    a surrogate attacker; the argmax is kept.

    Args:
        epsilon: greatest L1 distance, above 0 and up to 2.

    >>> batch = Batch(np.array([[0.8, 0.15, 0.05]]), np.array([0]), "probabilities")
    >>> BoundedShift(epsilon=0.2).apply(batch, None, b"").scores.round(3)
    array([[0.7 , 0.15, 0.15]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "labels"})
    instead: ClassVar[str] = "drop bounded_shift here, or let the model answer probabilities"

    kind: Literal["bounded_shift"] = "bounded_shift"
    epsilon: float = Field(default=0.1, gt=0, le=2)

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the shifted scores; dropped ones neither give nor get."""
        del rng, salt
        scores, rows = batch.scores, np.arange(len(batch.top))
        if scores.shape[1] < 2:
            return batch
        open_to = scores if batch.kept is None else np.where(batch.kept, scores, np.inf)
        least = open_to.argmin(axis=1)
        low = scores[rows, least][:, None]
        level = _level(scores, low, self.epsilon / 2)
        lead = np.maximum(scores - level, 0.0)
        shifted = np.where(lead > 0, level + _LEAD * lead, scores)
        shifted[rows, least] = low[:, 0] + (1.0 - _LEAD) * np.add.reduce(lead, axis=1)
        shifted = keep_top(shifted, batch.top)
        return Batch(shifted, batch.top, batch.kind, batch.complete, batch.kept, batch.labels_only)


def _level(scores: Floats, low: Floats, most: float) -> Floats:
    """Return the level to which scores are cut, shape (n, 1).

    With g(t) = sum of max(p - t, 0), of which all but `_LEAD` is moved, the level is the least t at which no more than
    `most` is moved and `low` does not rise above t. Both are piecewise linear, convex and falling in t, so each is the
    greatest root of their pieces, of which the j-th counts the j greatest scores.

    Args:
        scores: shape (n, k).
        low: scores of the classes that get it, shape (n, 1).
        most: the mass that may be moved.
    """
    sums = np.sort(scores, axis=1)[:, ::-1].cumsum(axis=1)
    count = np.arange(1.0, scores.shape[1] + 1.0)
    by_mass = (sums - most / (1.0 - _LEAD)) / count
    by_low = ((1.0 - _LEAD) * sums + low) / ((1.0 - _LEAD) * count + 1.0)
    return np.maximum(by_mass, by_low).max(axis=1, keepdims=True)
