"""Let the scores that are left sum to the same in every row."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, drop, keep_top
from guard.model.arrays import Floats
from guard.model.outputs import Kind


class Renormalise(Defence, frozen=True):
    """Scales probabilities that are left to a fixed sum, and shifts logprobs to the same end.

    For a list of the likeliest tokens or classes: behind `top_k`, or where the model itself answers a few. It hides
    one number a row, the share of all that is not listed. Differences of logprobs stay, so put it behind `noise` and
    before `round`. A token's number without candidates always reads log(mass): it must not tell what it reads beside
    them.

    Costs: absolute numbers, and with them perplexity: -55% where 49 was true (five candidates and the token itself,
    2,000 words; -10% at mass .5), ranking and ratios stay exact. Does nothing against the last-layer attack by itself,
    which lives on differences (Carlini et al., ICML 2024, section 4), and nothing on whole distributions, which sum to
    1 already.
    Source: the softmax of the kept logits; figures in `defences.md`. Differs: any mass, and ties keep the model's top.

    Args:
        mass: what a row sums to, as a probability.

    >>> batch = Batch(np.array([[0.4, 0.1]]), np.array([0]), "probabilities", complete=False)
    >>> Renormalise().apply(batch, None, b"").scores
    array([[0.8, 0.2]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "logprobs", "labels"})

    kind: Literal["renormalise"] = "renormalise"
    mass: float = Field(default=1.0, gt=0, le=1, examples=[1.0])

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return rows of the given mass; a row of zeros stays."""
        del rng, salt
        scores = _logprobs(batch.scores) if batch.kind == "logprobs" else _probabilities(batch.scores)
        if batch.kind == "logprobs":
            scores += np.log(self.mass)
            if batch.kept is not None:
                scores = drop(scores, batch.kept, batch.kind)
        else:
            scores *= self.mass
        return batch._replace(scores=keep_top(np.minimum(scores, 0.0 if batch.kind == "logprobs" else 1.0), batch.top))


def _probabilities(scores: Floats) -> Floats:
    total = np.add.reduce(scores, axis=1, keepdims=True)
    return scores / np.where(total > 0, total, 1.0)


def _logprobs(scores: Floats) -> Floats:
    # What was dropped is so unlikely that it adds nothing.
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
