"""What a mechanism leaves of a model's answers, found by running it, and what would leave more.

Everything is compared with the best answer that needs no model at all: the same one to everybody (the most frequent
label, or the mean scores). A plan whose releases are hardly better than that is useless, however private.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, exp, log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from guard.cli.budget_request import Unplannable
from guard.errors import UpstreamError

if TYPE_CHECKING:
    from guard.defences.base import Batch, Defence, Reuse
    from guard.model.arrays import Floats, Words
    from guard.privacy.measurement import Bounds

USELESS, GOOD = 0.2, 0.8
"""Shares of what the model says beyond the same answer to everybody: below the first a plan is useless; the second is
what is aimed at when something better is looked for."""
DRAWS = 20_000
QUICK = 3_000
_NUMBERS = 400_000
"""Most random numbers of one simulation."""
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Utility:
    """How far releases are from what the model said.

    Args:
        draws: releases that were drawn.
        changed: share of labels that changed; None where there are no labels.
        changed_error: its standard error.
        changed_constant: the share that would change if everybody got the most frequent label.
        error: mean distance a row, in `norm`; of labels alone that of one-hot rows.
        error_constant: that of the mean scores.
        norm: `L1`, or `L2` for embeddings.
        labels_only: releases are labels.
        withheld: share of rows that a threshold withheld; they count in nothing else.
    """

    draws: int
    changed: float | None
    changed_error: float
    changed_constant: float
    error: float
    error_constant: float
    norm: str
    labels_only: bool
    withheld: float

    @property
    def label_skill(self) -> float | None:
        """The share of labels beyond the most frequent one's that survives; None without labels, or with one alone."""
        if self.changed is None or not self.changed_constant:
            return None
        return 1.0 - self.changed / self.changed_constant

    @property
    def score_skill(self) -> float | None:
        """The share of the scores' distance from their mean that survives; None for labels alone."""
        return None if self.labels_only or not self.error_constant else 1.0 - self.error / self.error_constant

    @property
    def skill(self) -> float:
        """What decides: labels where there are any, otherwise scores."""
        found = self.label_skill if self.changed is not None else self.score_skill
        return 1.0 if found is None else found


class Seeded:
    """Randomness of a simulation: repeatable, and for nothing else."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def fresh(self, size: int) -> bytes:
        """Return bytes."""
        return self._generator.bytes(size)

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        """Refuse: no mechanism draws words."""
        del reuse, width, salt
        raise Unplannable("a step behind the mechanism draws noise of its own, which is private already")

    def constant(self, name: bytes) -> float:
        """Refuse: no mechanism keeps a secret number."""
        del name
        raise Unplannable("a step behind the mechanism keeps a secret number, which a simulation does not know")

    def own(self, name: bytes, size: int) -> bytes:
        """Refuse: no mechanism has a secret for each client."""
        del name, size
        raise Unplannable("a step behind the mechanism has a secret for each client, which a simulation does not know")


def simulate(steps: Sequence[Defence], bounds: Bounds, scores: Floats, seed: int, draws: int = DRAWS) -> Utility:
    """Run a route's steps on scores, each row as many times as it takes.

    Args:
        steps: the route's, the mechanism bound.
        bounds: the scores' domain.
        scores: shape (n, k).
        seed: of the draws.
        draws: how many, at most.

    Raises:
        Unplannable: scores lie outside the domain, or have another form than declared.
    """
    from guard.defences.base import Batch, has_classes

    try:
        truth = bounds.fit(scores)
    except UpstreamError as error:
        hint = "give --data of such answers, or other --low, --high"
        raise Unplannable(f"the data are not of kind {bounds.kind}: {error.message}", hint) from error
    draws = max(len(truth), min(draws, _NUMBERS // truth.shape[1]))
    rows = np.tile(np.arange(len(truth)), ceil(draws / len(truth)))[:draws]
    rng, classes = Seeded(seed), has_classes(bounds.kind)
    changed = error = withheld = 0.0
    labels_only = False
    for start in range(0, draws, _ROWS):
        given = truth[rows[start : start + _ROWS]]
        released = _through(steps, Batch(given, given.argmax(axis=1), bounds.kind, classes), rng)
        kept = np.isfinite(released.scores).all(axis=1)
        withheld += float(np.count_nonzero(~kept))
        changed += float(np.count_nonzero(kept & (released.top != given.argmax(axis=1))))
        error += float(_distances(given[kept], released.scores[kept], bounds).sum())
        labels_only = released.labels_only
    answered = max(1.0, draws - withheld)
    share = changed / answered
    return Utility(
        draws=draws,
        changed=share if classes else None,
        changed_error=sqrt(share * (1.0 - share) / answered),
        changed_constant=1.0 - np.bincount(truth.argmax(axis=1)).max().item() / len(truth),
        error=error / answered,
        error_constant=float(_distances(truth, _middle(truth, bounds), bounds).mean()),
        norm="L2" if bounds.kind == "embedding" else "L1",
        labels_only=labels_only,
        withheld=withheld / draws,
    )


def _through(steps: Sequence[Defence], batch: Batch, rng: Seeded) -> Batch:
    for index, step in enumerate(steps):
        if step.mode == "enforce" and not batch.labels_only:
            batch = step.apply(batch, rng, b"%d" % index)
    return batch


def _distances(a: Floats, b: Floats, bounds: Bounds) -> Floats:
    apart = np.subtract(a, b)
    if bounds.kind == "embedding":
        return np.sqrt(np.square(apart).sum(axis=1))
    return np.abs(apart).sum(axis=1)


def _middle(truth: Floats, bounds: Bounds) -> Floats:
    """Return the best answer to everybody: the median for values, otherwise the mean, shape (1, k)."""
    if bounds.kind == "value":
        return np.median(truth, axis=0, keepdims=True)
    return truth.mean(axis=0, keepdims=True)


def least(good: Callable[[float], bool], low: float, high: float) -> float | None:
    """Return about the least number from `low` to `high` that is good, within 3%; None when `high` is not.

    >>> round(least(lambda x: x >= 20, 1, 4096))
    20
    """
    if not good(high):
        return None
    if good(low):
        return low
    a, b = log(low), log(high)
    while b - a > 0.03:
        middle = (a + b) / 2.0
        a, b = (a, middle) if good(exp(middle)) else (middle, b)
    return exp(b)
