"""What a defence is: a frozen spec with one pure function over a whole batch.

Defences run in the policy's order. Each takes the `Batch` that the one before left, and returns a new one; none changes its argument's
arrays. `top` never changes: it is the argmax of what the model said, which order-preserving defences keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from guard.errors import Problem
from guard.model.arrays import Bools, Floats, Ints
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs

Reuse = Literal["query", "cell", "none"]
Mode = Literal["shadow", "enforce"]


class Randomness(Protocol):
    """Randomness for the rows of one batch; the engine supplies it, keyed by secret, client and query."""

    def uniform(self, reuse: Reuse, width: int, salt: bytes) -> Floats:
        """Return uniforms in the open interval (0, 1), shape (n, width).

        Args:
            reuse: `query`: a function of secret, client and snapped query; `cell`: of the query's coarse cell; `none`: fresh.
            width: numbers a row.
            salt: tells apart defences and predictions that need independent numbers for the same query.
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Scores on their way through the defences.

    Args:
        scores: shape (n, k), float64; finite. Never changed in place.
        top: column of the argmax of what the model said, shape (n,).
        kind: what the scores are.
        complete: rows are whole distributions.
        kept: shape (n, k), False where a score was dropped (it is 0 there); None when all are kept.
        labels_only: no row carries more than its label.
    """

    scores: Floats
    top: Ints
    kind: Kind
    complete: bool = True
    kept: Bools | None = None
    labels_only: bool = False


class Defence(BaseModel):
    """Base of all defences: `kind` names it in YAML, its fields are its parameters.

    Subclasses set `suits` and `order_preserving`, and implement `apply`.

    Args:
        mode: `shadow` computes and counts what this step would change, and changes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suits: ClassVar[frozenset[Kind]]
    """Kinds of outputs that it can work on."""
    coarsens: ClassVar[bool] = False
    """It maps scores to fewer values, so noise after it would be seen for what it is."""
    random: ClassVar[bool] = False
    """It draws from `Randomness`."""

    kind: str
    mode: Mode = "enforce"

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the batch as this defence leaves it.

        Args:
            batch: what the step before left.
            rng: keyed randomness.
            salt: this step's own, so that two noises in one policy are independent.
        """
        raise NotImplementedError

    def check(self, outputs: Outputs, inputs: Inputs | None) -> list[Problem]:
        """Return what is wrong with these parameters on a route with such outputs and inputs; paths are field names."""
        del outputs, inputs
        return []


Registry = Mapping[str, type[Defence]]


def keep_top(scores: Floats, top: Ints) -> Floats:
    """Swap values so that column `top` holds each row's greatest score; returns `scores` itself when it already does.

    Args:
        scores: shape (n, k).
        top: shape (n,).
    Returns:
        Shape (n, k); each row holds the same values.
    """
    found = scores.argmax(axis=1)
    wrong = np.flatnonzero(found != top)
    if not wrong.size:
        return scores
    result = scores.copy()
    result[wrong, found[wrong]] = scores[wrong, top[wrong]]
    result[wrong, top[wrong]] = scores[wrong, found[wrong]]
    return result
