"""Laplace noise with a differential privacy guarantee."""

from __future__ import annotations

from typing import ClassVar, Literal

from guard.defences.base import Batch, Randomness
from guard.defences.mechanism import Calibrated, Granularity
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import Event, Laplace, Pure
from guard.privacy.lattice import Lattice
from guard.privacy.measurement import Norm
from guard.privacy.projection import project


class DpLaplace(Calibrated, frozen=True):
    """Adds discrete Laplace noise, calibrated to what one training record can change."""

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "value"})
    norm: ClassVar[Norm] = "l1"

    kind: Literal["dp_laplace"] = "dp_laplace"
    granularity: Literal["auto"] | Granularity = "auto"

    @property
    def step(self) -> float | None:
        """The grid's step, where the policy gives it."""
        return None if self.granularity == "auto" else self.granularity

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        """Return the scores with noise, moved into their domain again."""
        grid = self.grid
        noise = discrete.laplace(grid.scale, scores.size, rng.fresh).reshape(scores.shape)
        released = project(grid.scores(grid.snap(scores) + noise), self.domain)
        return Batch(released, released.argmax(axis=1), batch.kind, batch.complete)

    def event_at(self, ratio: float, grid: Lattice) -> Event:
        """Return what one row costs."""
        # With few steps a scale the discrete Laplace can lose as much as any epsilon-DP mechanism, the continuous less.
        return Laplace(ratio) if grid.fine else Pure(1.0 / ratio)

    def noise(self) -> str:
        """Return the noise in words."""
        return f"Laplace noise of scale {self.grid}"
