"""Keep the k greatest scores."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, drop
from guard.model.arrays import Bools, Floats
from guard.model.outputs import Kind


class TopK(Defence, frozen=True):
    """Keeps the k greatest scores of each row; the others leave maps and lists, and read 0 in tensors.

    Of logprobs, a dropped one reads -9999 where something has to stand, as OpenAI's servers write it: 0 would be the
    greatest. Of a generated token's candidates, the token itself counts as one, and is dropped as any other. Nothing
    is renormalised: see `renormalise`. Of equal scores at the border the first columns stay. Logits are refused: they
    have no least value.

    Costs: the scores of unlikely classes; of a generated text, the numbers of tokens that were drawn from outside the
    top: 54% at k 5 where the perplexity is 49, none where the likeliest token is always taken. Does nothing against
    extraction by itself: k scores of a softmax still give k - 1 equations a query, and top-1 with one decimal comes as
    close as .061 (L1, digits, 650 queries; label only .143). For a language model's last layer, top-20 holds (error
    .95) and top-5 beside an open logit_bias does not.
    Source: truncation of Tramer et al., USENIX Security 2016, section 6; figures in `defences.md`.

    Args:
        k: how many scores stay.

    >>> batch = Batch(np.array([[0.1, 0.6, 0.3]]), np.array([1]), "probabilities")
    >>> TopK(k=2).apply(batch, None, b"").scores
    array([[0. , 0.6, 0.3]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "logprobs", "labels"})
    instead: ClassVar[str] = "drop top_k here, or let the model answer probabilities"

    kind: Literal["top_k"] = "top_k"
    k: int = Field(ge=1, examples=[3])

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Drop all but the k greatest scores; `batch` itself when rows are no longer than that."""
        del rng, salt
        if batch.scores.shape[1] <= self.k:
            return batch
        kept = _greatest(batch.scores, self.k)
        if batch.kept is not None:
            kept &= batch.kept
        scores = drop(batch.scores, kept, batch.kind)
        return Batch(scores, batch.top, batch.kind, False, kept, batch.labels_only)


def _greatest(scores: Floats, k: int) -> Bools:
    """Mark the k greatest scores of each row, shape (n, width) with width > k; the first of equal ones."""
    n, width = scores.shape
    ordered = scores.copy()
    ordered.partition(width - k, axis=1)
    kept = scores >= ordered[:, width - k, None]
    if np.count_nonzero(kept) != n * k:
        kept = np.zeros((n, width), dtype=np.bool_)
        kept[np.arange(n)[:, None], (-scores).argsort(axis=1, kind="stable")[:, :k]] = True
    return kept
