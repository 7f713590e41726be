"""Sensitivity and domain: how far one training record can move an answer, and what an answer must be for that to hold.

A model is an arbitrary function of its training data, so one record may move its answer across the whole domain: the
sensitivity is the domain's diameter. The mean of n answers of models trained on disjoint shards moves by at most 1/n
of that, and so do shares of votes: a record is in one shard. `quorum` stands for n, whoever else answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import inf, nextafter, sqrt
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
        clip: what lies outside is moved into the domain; False: it is refused. Embeddings are always clipped.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    norm: float | None = None
    clip: bool = False

    def diameter(self, norm: Norm) -> float | None:
        """Return the greatest distance of two answers, rounded up; None when nothing bounds it.

        >>> Bounds("probabilities").diameter("l1"), Bounds("value", 0, 5).diameter("l2")
        (2.0, 5)
        """
        if self.kind == "probabilities":
            return _SIMPLEX[norm]
        if self.kind == "value" and self.low is not None and self.high is not None:
            rounded = self.high - self.low
            short = rounded < inf and rounded < Fraction(self.high) - Fraction(self.low)
            return nextafter(rounded, inf) if short else rounded
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
        # One column, since the interval bounds the distance of numbers and not of vectors.
        if self.kind == "value" and self.low is not None and self.high is not None and scores.shape[1] == 1:
            bounded = np.clip(scores, self.low, self.high)
            if not self.clip and not np.array_equal(bounded, scores):
                raise _outside()
            return bounded
        if self.kind == "embedding" and self.norm is not None:
            # Divided by the greatest first, so that no square is beyond what float64 holds.
            greatest = np.maximum(np.abs(scores).max(axis=1, keepdims=True, initial=0.0), 1e-290)
            lengths = np.sqrt(np.square(scores / greatest).sum(axis=1, keepdims=True))
            return scores * np.minimum(1.0, self.norm / greatest / np.maximum(lengths, 1.0))
        raise _outside()

    def _simplex(self, scores: Floats) -> Floats:
        bounded = np.maximum(scores, 0.0)
        if self.clip:
            bounded /= np.maximum(bounded.max(axis=1, keepdims=True, initial=0.0), 1.0)
        elif (scores < -1e-6).any() or (scores > 1.0 + SUM_TOLERANCE).any():
            raise _outside()
        total = bounded.sum(axis=1, keepdims=True)
        if not self.clip and (np.abs(total - 1.0) > SUM_TOLERANCE).any():
            raise _outside()
        empty = total[:, 0] <= 0.0
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
