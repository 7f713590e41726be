"""Answer which bin of a value it is."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness
from guard.model.outputs import Kind

_NAME = b"bin offset"
_WHOLE = 2.0**52
"""Values of so many widths have no place inside their bin that could be hidden."""


class Bin(Defence, frozen=True):
    """Answers the middle of a value's bin: y' = (floor(y / w + o) + 1/2 - o) * w.

    The offset o is a secret number of the ledger, in (0, 1), the same for every client, query and route. It keeps bins
    from being cut at round numbers, and no more: whoever sees one answer and knows w knows both ends of its bin. It is
    not each client's own. That would help against a leaked answer (.86 falls to .75 for an attacker with one account,
    and is .85 again with four), but two accounts would know a value to half a bin, and k to about 1 / (k + 1) of it,
    while one offset tells any number of accounts what it tells one. A new secret cuts anew, and those who asked before
    and after have two cuts.

    Costs: up to half a width on every value, a quarter in the mean (diabetes: R^2 falls by .002, .010 and .056 at .1,
    .25 and .5 of an interquartile range); the middle of an outermost bin may lie outside `outputs.low` and
    `outputs.high`. Does nothing against a copy of a smooth model: bisection finds inputs whose value is the end of a
    bin, which is known exactly, and d + 1 of those solve a linear regression. 180 queries copy the one on diabetes (11
    unknowns, 20 seeds) to .0001 standard deviations whatever the bin; without looking for ends, a fit inside the bins
    errs by .005, .011 and .022 after 275 queries. A leaked answer still gives a binary attribute away in 1.00, .86 and
    .70 of cases (base .53). It hides differences smaller than a bin where there is no end to find by small steps, as in
    trees.
    Source: uniform quantisation with an offset; formula and figures in `defences.md`.

    Args:
        width: of a bin, in the values' unit; .1 to .5 of their interquartile range is what was measured.

    >>> class Half:
    ...     def constant(self, name):
    ...         return 0.5
    >>> batch = Batch(np.array([[152.1], [147.0]]), np.array([0, 0]), "value")
    >>> Bin(width=10).apply(batch, Half(), b"").scores.tolist()
    [[150.0], [150.0]]
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"value"})
    coarsens: ClassVar[bool] = True
    random: ClassVar[bool] = True
    instead: ClassVar[str] = "use grid or levels for probabilities, round for others"

    kind: Literal["bin"] = "bin"
    width: float = Field(ge=1e-9, le=1e9, examples=[10.0])

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the middles of bins; values too large for the width to show stay."""
        # Not the step's salt: a client may choose how many outputs come back, and each would be cut with an offset of
        # its own.
        del salt
        offset = rng.constant(_NAME)
        limit = _WHOLE * self.width
        inside = np.clip(batch.scores, -limit, limit)
        middle = (np.floor(inside / self.width + offset) + (0.5 - offset)) * self.width
        binned = np.where(np.abs(batch.scores) < limit, middle, batch.scores)
        return Batch(binned, batch.top, batch.kind, batch.complete, batch.kept, batch.labels_only)
