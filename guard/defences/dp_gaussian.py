"""Gaussian noise with a differential privacy guarantee."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Mechanism
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import Event, Gaussian
from guard.privacy.filters import FINE_STEPS
from guard.privacy.measurement import Norm


class DpGaussian(Mechanism, frozen=True):
    """Adds discrete Gaussian noise, calibrated to what one training record can change.

    Args:
        noise_multiplier: standard deviation divided by L2 sensitivity.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "value", "embedding"})
    norm: ClassVar[Norm] = "l2"

    kind: Literal["dp_gaussian"] = "dp_gaussian"
    noise_multiplier: float = Field(ge=1e-3, le=1e9, examples=[20.0])

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the scores with noise."""
        del salt
        sigma = self.noise_multiplier * self._sensitivity
        grain = math.ldexp(1.0, math.frexp(sigma)[1] - 1 - int(math.log2(FINE_STEPS)))
        steps = math.ceil(self.noise_multiplier * (self._sensitivity / grain + 2 * math.sqrt(batch.scores.shape[1])))
        units = np.rint(batch.scores / grain) + discrete.gaussian(steps, batch.scores.size, rng.fresh).reshape(
            batch.scores.shape
        )
        noisy = np.maximum(units * grain, 1e-9)
        noisy = noisy / noisy.sum(axis=1, keepdims=True)
        return Batch(noisy, noisy.argmax(axis=1), batch.kind, batch.complete, batch.kept, batch.labels_only)

    def event(self) -> Event:
        """Return what one row costs."""
        return Gaussian(self.noise_multiplier)

    def noise(self) -> str:
        """Return the noise in words."""
        return f"Gaussian noise of standard deviation {self.noise_multiplier * self._sensitivity:.6g}"
