"""Sensitivity and domain: how far one training record can move an answer, and what an answer must be for that to hold.

A model is an arbitrary function of its training data, so one record may move its answer across the whole domain: the
sensitivity is the domain's diameter. The mean of n answers of models trained on disjoint shards moves by at most 1/n
of that, and so do shares of votes: a record is in one shard. `quorum` stands for n, whoever else answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

import numpy as np

from guard.errors import UpstreamError
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy.events import Event

Norm = Literal["l1", "l2", "linf"]
Unit = Literal["training_record", "training_user"]
Adjacency = Literal["replace_one", "add_or_remove_one"]
SUM_TOLERANCE = 0.02
_SIMPLEX: dict[Norm, float] = {"l1": 2.0, "l2": sqrt(2.0), "linf": 1.0}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The domain of a model's answers.

    Args:
        kind: of the scores.
        low: least value, for kind `value`.
        high: greatest value, for kind `value`.
        norm: greatest L2 norm, for kind `embedding`.
        clip: what lies outside is moved to the nearest point of the domain; False: it is refused.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    norm: float | None = None
    clip: bool = False

    def diameter(self, norm: Norm) -> float | None:
        """Return the greatest distance of two answers; None when nothing bounds it.

        >>> Bounds("probabilities").diameter("l1"), Bounds("value", 0, 5).diameter("l2")
        (2.0, 5)
        """
        if self.kind == "probabilities":
            return _SIMPLEX[norm]
        if self.kind == "value" and self.low is not None and self.high is not None:
            return self.high - self.low
        if self.kind == "embedding" and self.norm is not None and norm != "l1":
            return 2.0 * self.norm
        return None

    def fit(self, scores: Floats) -> Floats:
        """Return scores inside the domain: sums within 2% of 1 are made 1, what lies further out is clipped or refused.

        Args:
            scores: shape (n, k).

        Raises:
            UpstreamError: code `outside_outputs`; not a number, or outside and not to be clipped.

        >>> Bounds("probabilities").fit(np.array([[0.5, 0.49]])).sum().item()
        1.0
        """
        if not np.isfinite(scores).all():
            raise _outside()
        if self.kind == "probabilities":
            return self._simplex(scores)
        if self.kind == "value":
            bounded = np.clip(scores, -inf if self.low is None else self.low, inf if self.high is None else self.high)
            if not self.clip and not np.array_equal(bounded, scores):
                raise _outside()
            return bounded
        if self.kind == "embedding" and self.norm is not None:
            lengths = np.sqrt(np.square(scores).sum(axis=1, keepdims=True))
            # Clipping to the norm is what the spec says by naming one.
            return scores * np.minimum(1.0, self.norm / np.maximum(lengths, 1e-300))
        raise _outside()

    def _simplex(self, scores: Floats) -> Floats:
        bounded = np.maximum(scores, 0.0)
        total = bounded.sum(axis=1, keepdims=True)
        apart = (scores < -1e-6).any() or (np.abs(total - 1.0) > SUM_TOLERANCE).any()
        if apart and not self.clip:
            raise _outside()
        empty = total[:, 0] <= 0
        if empty.any():
            bounded[empty], total[empty] = 1.0, bounded.shape[1]
        return bounded / total


def _outside() -> UpstreamError:
    return UpstreamError("the model's answer lies outside its declared outputs", code="outside_outputs")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A mechanism with everything that its privacy loss follows from.

    Args:
        mechanism: its name in the policy.
        event: what one answer costs.
        norm: in which sensitivity is measured.
        sensitivity: how far one unit can move what noise is added to, in `norm`.
        quorum: models that an aggregate is taken to be of; 1 for a single model.
        noise: the noise in words, with its scale in the scores' unit.
    """

    mechanism: str
    event: Event
    norm: Norm
    sensitivity: float
    quorum: int
    noise: str
