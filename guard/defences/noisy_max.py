"""The label that wins after noise."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Mechanism
from guard.model.outputs import Kind
from guard.privacy.events import Composed, Event, Gaussian
from guard.privacy.measurement import Norm


class NoisyMax(Mechanism, frozen=True):
    """Answers the label whose score is greatest after Gaussian noise (PATE's GNMax), and nothing else.

    Args:
        noise_multiplier: standard deviation divided by L2 sensitivity.
        threshold: least noisy top score; below it the row is withheld.
        threshold_noise_multiplier: standard deviation of the threshold's noise divided by its sensitivity.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    leaves_labels: ClassVar[bool] = True
    norm: ClassVar[Norm] = "l2"

    kind: Literal["noisy_max"] = "noisy_max"
    noise_multiplier: float = Field(ge=1e-3, le=1e9, examples=[20.0])
    threshold: float | None = Field(default=None, gt=0)
    threshold_noise_multiplier: float | None = Field(default=None, ge=1e-3, le=1e9)

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return one-hot rows."""
        del salt, rng
        top = batch.scores.argmax(axis=1)
        chosen = np.zeros(batch.scores.shape)
        chosen[np.arange(len(top)), top] = 1.0
        return Batch(chosen, top, batch.kind, batch.complete, chosen > 0, labels_only=True)

    def event(self) -> Event:
        """Return what one row costs."""
        vote = Gaussian(self.noise_multiplier)
        if self.threshold_noise_multiplier is None:
            return vote
        return Composed((Gaussian(self.threshold_noise_multiplier), vote))

    def noise(self) -> str:
        """Return the noise in words."""
        return f"Gaussian noise of standard deviation {self.noise_multiplier * self._sensitivity:.6g}, largest wins"
