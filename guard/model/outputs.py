"""What a route's model answers: the kind of its scores, and which members of an answer carry them."""

from __future__ import annotations

from math import isfinite
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from guard.model.arrays import Floats

Kind = Literal["probabilities", "logits", "logprobs", "value", "embedding", "labels"]
CLASS_KINDS: frozenset[Kind] = frozenset({"probabilities", "logits", "logprobs"})
"""Kinds with one number per class, so that an argmax means something."""
_SUM_TOLERANCE = 0.02
"""How far a distribution's sum may be from 1: half precision and upstream rounding to two decimals of ten classes."""


class Outputs(BaseModel):
    """The declaration `outputs:` of a route.

    Args:
        kind: what the scores are.
        low: least value of kind `value`.
        high: greatest value of kind `value`.
        tensors: names (tensors, members, JSON paths) that carry scores; None finds every one of the declared kind.
        labels: names that carry a row's label; None finds them by their usual names and by agreement with the scores.
        classes: the label of each column, in order; needed where labels must be rewritten (`keep_argmax: false`).
        norm: greatest L2 norm of kind `embedding`: a mechanism of differential privacy clips longer ones to it.
        clip: what lies outside the declared domain is moved into it before a mechanism of differential privacy; left
            out, it is refused after it was charged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "probabilities"
    low: float | None = None
    high: float | None = None
    tensors: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    classes: tuple[str | int, ...] | None = Field(default=None, min_length=2)
    norm: float | None = Field(default=None, gt=0, le=1e9)
    clip: bool = False

    def accepts(self, scores: Floats, *, complete: bool, named: bool) -> bool:
        """Say whether `scores` are of the declared kind.

        Args:
            scores: shape (n, k); rows with a non-finite member are passed over.
            complete: rows are whole distributions (a top-5 list is not).
            named: the operator named this member in `tensors`, so its sum is not questioned.

        >>> Outputs().accepts(np.array([[0.2, 0.8]]), complete=True, named=False)
        True
        >>> Outputs().accepts(np.array([[0.2, 7.0]]), complete=True, named=True)
        False
        """
        if self.kind == "labels":
            return False
        if self.kind in ("logits", "embedding"):
            return True
        if self.kind == "value":
            return True
        if self.kind == "logprobs":
            return bool(scores.max(initial=-np.inf, where=~np.isnan(scores)) <= 1e-6)
        # argmin and argmax are several times as fast as min and max on small arrays, and find NaN as well.
        low, high = scores.item(scores.argmin()), scores.item(scores.argmax())
        if not (isfinite(low) and isfinite(high)):
            finite = scores[np.isfinite(scores).all(axis=1)]
            return len(finite) == 0 or self.accepts(finite, complete=complete, named=named)
        if low < -1e-6 or high > 1.0 + 1e-6:
            return False
        if named or scores.shape[1] < 2:
            return True
        sums = np.add.reduce(scores, 1)
        top = sums.item(sums.argmax())
        return top <= 1.0 + _SUM_TOLERANCE and (not complete or sums.item(sums.argmin()) >= 1.0 - _SUM_TOLERANCE)
