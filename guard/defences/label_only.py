"""Answer the label and nothing else."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.defences.base import Batch, Defence, Randomness
from guard.model.outputs import Kind


class LabelOnly(Defence, frozen=True):
    """Leaves only the label: one-hot for tensors, `{label: 1}` for maps and lists, 0 or 1 for a two-class scalar.

    Costs: all confidence. Does nothing against an attacker who only wants a copy that agrees: 97% agreement on digits
    at 3,250 labels, .96 with no query at all; the copy's probabilities stay away (L1 .143 at 650 queries, .118 at
    3,250), and membership inference (LiRA on a forest) falls from AUC .995 to .75 to .78, noisy copies of each record
    included. Last steps before a denial.
    Source: Tramer et al., USENIX Security 2016, section 6; Choquette-Choo et al., ICML 2021; figures in `defences.md`.

    >>> batch = Batch(np.array([[0.1, 0.6, 0.3]]), np.array([1]), "probabilities")
    >>> LabelOnly().apply(batch, None, b"").scores
    array([[0., 1., 0.]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "labels"})
    leaves_labels: ClassVar[bool] = True
    coarsens: ClassVar[bool] = True
    instead: ClassVar[str] = "only a denial is possible here: drop label_only and write then: deny on the budgets"

    kind: Literal["label_only"] = "label_only"

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return 1 in column `top` and 0 elsewhere."""
        del rng, salt
        kept = np.equal(np.arange(batch.scores.shape[1], dtype=np.int64), batch.top[:, None])
        return Batch(kept.astype(np.float64), batch.top, batch.kind, True, kept, True)
