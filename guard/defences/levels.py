"""Answer the label and one of a few levels of confidence."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from guard.defences.base import Batch, Defence, Randomness
from guard.model.arrays import Floats
from guard.model.outputs import Kind


class Levels(Defence, frozen=True):
    """Leaves the label and a level: the top score becomes the nearest level above 1/K, the others share the rest.

    In a row that is not a whole distribution (a top-5 list, or after top_k) the classes left out count as one more,
    which takes a share of the rest with it.

    Costs: a mean L1 of .178 (digits, four levels), everything about the second class; top-1 unchanged. Does nothing
    against a patient attacker who only wants agreement (.81 of uniform queries at 3,250; L1 .116 at 650 queries and
    .040 with the interval attack at 3,250), nor alone against membership inference (LiRA AUC .995 to .98; with an
    ensemble of 5 shards .62 to .69).
    Source: figures and formula in `defences.md`.

    Args:
        levels: ascending, the greatest above .5, so that one is above 1/K whatever K is.

    >>> batch = Batch(np.array([[0.5, 0.1, 0.4]]), np.array([0]), "probabilities")
    >>> Levels().apply(batch, None, b"").scores
    array([[0.55 , 0.225, 0.225]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "labels"})
    coarsens: ClassVar[bool] = True
    instead: ClassVar[str] = "use round here, or let the model answer probabilities"

    kind: Literal["levels"] = "levels"
    levels: tuple[float, ...] = Field(default=(0.55, 0.75, 0.9, 0.99), min_length=1)

    @field_validator("levels")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(low < high for low, high in zip((0.0, *value), (*value, np.inf), strict=True)) or value[-1] > 1:
            raise ValueError("levels must ascend, above 0 and up to 1")
        if value[-1] <= 0.5:
            raise ValueError("the greatest level must be above 0.5")
        return value

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return two values a row: a level at `top`, an even share of the rest elsewhere."""
        del rng, salt
        scores, rows = batch.scores, np.arange(len(batch.top))
        best = scores[rows, batch.top][:, None]
        classes = scores.shape[1] if batch.kept is None else batch.kept.sum(axis=1, keepdims=True)
        classes = np.asarray(classes + (not batch.complete), dtype=np.float64)
        level = _nearest(np.asarray(self.levels), best, 1.0 / classes)
        share = (1.0 - level) / np.maximum(classes - 1.0, 1.0)
        result = np.repeat(share, scores.shape[1], axis=1)
        if batch.kept is not None:
            result *= batch.kept
        result[rows, batch.top] = level[:, 0]
        return Batch(result, batch.top, batch.kind, batch.complete, batch.kept, batch.labels_only)


def _nearest(levels: Floats, best: Floats, floor: Floats) -> Floats:
    """Return the level above `floor` nearest to `best`, shape (n, 1); 1 where none is above it (a single class)."""
    distance = np.where(levels > floor, np.abs(best - levels), np.inf)
    nearest = levels[distance.argmin(axis=1)][:, None]
    return np.where(nearest > floor, nearest, 1.0)
