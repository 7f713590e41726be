"""Flatten or sharpen a distribution."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, drop, keep_top
from guard.model.arrays import Floats
from guard.model.outputs import Kind


class Temperature(Defence, frozen=True):
    """Divides logits by a temperature.

    Probabilities become p^(1/t), renormalised; logits z / t; logprobs l / t, renormalised. A row that is not a whole
    distribution (a top-5 list) keeps the mass that it had.

    Costs: calibration; t = 2 moves digits answers by .526 (L1) and the calibration error by .257, twice what label
    only moves them. Does nothing against extraction: the map is smooth and has one parameter, a copy of tempered
    answers agrees with the model in 1.00 of all queries and comes within .063 and .047 (L1, 650 and 3,250 queries).
    Here for calibrating a model, not for hiding it.
    Source: Guo et al., ICML 2017, section 4; figures in `defences.md`.

    Args:
        t: above 1 flattens, below 1 sharpens; .001 to 1000.

    >>> batch = Batch(np.array([[0.8, 0.2]]), np.array([0]), "probabilities")
    >>> Temperature(t=2).apply(batch, None, b"").scores.round(3)
    array([[0.667, 0.333]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "logits", "logprobs", "labels"})

    kind: Literal["temperature"] = "temperature"
    t: float = Field(ge=1e-3, le=1e3, examples=[2.0])

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the tempered scores; dropped ones stay dropped."""
        del rng, salt
        scores = batch.scores
        if batch.kind == "probabilities":
            tempered = _probabilities(scores, self.t, complete=batch.complete)
        elif batch.kind == "logprobs":
            mass = 0.0 if batch.complete else _log_mass(scores)
            tempered = (scores - _peak(scores)) / self.t
            tempered = np.minimum(tempered - _log_mass(tempered) + mass, 0.0)
        else:
            tempered = scores / self.t
        if batch.kept is not None:
            tempered = drop(tempered, batch.kept, batch.kind)
        return Batch(
            keep_top(tempered, batch.top), batch.top, batch.kind, batch.complete, batch.kept, batch.labels_only
        )


def _probabilities(scores: Floats, t: float, *, complete: bool) -> Floats:
    # Divided by the greatest first, so that no power of a small number underflows the whole row; a row of zeros stays.
    peak = _peak(scores)
    peak[peak == 0] = 1.0
    tempered = (scores / peak) ** (1.0 / t)
    mass = 1.0 if complete else scores.sum(axis=1, keepdims=True)
    total = tempered.sum(axis=1, keepdims=True)
    total[total == 0] = 1.0
    return tempered * (mass / total)


def _peak(scores: Floats) -> Floats:
    return scores.max(axis=1, keepdims=True)


def _log_mass(logprobs: Floats) -> Floats:
    peak = _peak(logprobs)
    return peak + np.log(np.exp(logprobs - peak).sum(axis=1, keepdims=True))
