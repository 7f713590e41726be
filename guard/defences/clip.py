"""Bound the length of embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness
from guard.model.outputs import Kind


class Clip(Defence, frozen=True):
    """Scales vectors whose L2 norm is above `norm` down to it; their direction stays, and shorter ones stay whole.

    For models that answer vectors of any length (`normalize: false`): a length is one more number about each text, and
    an outlier's would outshout noise behind it, whose scale only means something beside a bound.

    Costs: nothing where vectors have norm 1 already, as most models' have; elsewhere the lengths above the bound.
    Does nothing against whoever compares directions, which is what embeddings are for.
    Source: Abadi et al., CCS 2016, section 3 (clipping by norm). Differs: of answers, not of gradients.

    Args:
        norm: greatest L2 norm.

    >>> batch = Batch(np.array([[3.0, 4.0], [0.3, 0.4]]), np.array([1, 1]), "embedding")
    >>> Clip().apply(batch, None, b"").scores
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"embedding"})
    instead: ClassVar[str] = "outputs: {kind: embedding}, or drop this step"

    kind: Literal["clip"] = "clip"
    norm: float = Field(default=1.0, gt=0, le=1e9, examples=[1.0])

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return vectors no longer than `norm`."""
        del rng, salt
        scores = batch.scores
        # By the greatest entry first: the squares of great numbers would overflow.
        greatest = np.maximum(np.abs(scores).max(axis=1, keepdims=True, initial=0.0), np.finfo(np.float64).tiny)
        shares = scores / greatest
        length = np.maximum(np.sqrt(np.square(shares).sum(axis=1, keepdims=True)), 1.0)
        over = length > self.norm / greatest
        return batch._replace(scores=np.where(over, shares * (self.norm / length), scores))
