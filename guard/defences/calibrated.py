"""Mechanisms whose noise is given as a multiple of the sensitivity, or by what it is to achieve."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from guard.defences.base import Batch
from guard.defences.mechanism import Mechanism
from guard.errors import InvariantError
from guard.model.arrays import Floats, Ints
from guard.privacy.calibrate import GREATEST_RATIO, LEAST_RATIO, least_noise
from guard.privacy.events import Event
from guard.privacy.lattice import Lattice, lattice, sampled
from guard.privacy.projection import project

NoiseMultiplier = Annotated[float, Field(ge=LEAST_RATIO, le=GREATEST_RATIO)]
Granularity = Annotated[float, Field(gt=0, le=1e9)]


class Calibrated(Mechanism, frozen=True):
    """Base of mechanisms whose noise may be given in either of two ways: itself, or by what it is to achieve.

    Args:
        noise_multiplier: scale of the noise divided by sensitivity; this, or `epsilon`, `delta` and `answers`.
        epsilon: with `delta` and `answers`, instead of `noise_multiplier`: the least noise with which so many answers
            fit into a privacy budget of (epsilon, delta), worked out when the policy is read. In nats.
        delta: of that budget.
        answers: how many answers are to fit into it.
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["noise_multiplier"]}, {"required": ["epsilon", "delta", "answers"]}]}
    )

    noise_multiplier: NoiseMultiplier | None = Field(default=None, examples=[20.0])
    epsilon: float | None = Field(default=None, gt=0, le=1000, examples=[8.0])
    delta: float | None = Field(default=None, gt=0, lt=1, examples=[1e-6])
    answers: int | None = Field(default=None, ge=1, le=10**12, examples=[1000])

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        aim = (self.epsilon, self.delta, self.answers)
        if self.noise_multiplier is not None and any(value is not None for value in aim):
            raise ValueError("noise_multiplier already says how much noise: drop it, or epsilon, delta and answers")
        if self.noise_multiplier is None and any(value is None for value in aim):
            raise ValueError("nothing says how much noise: write noise_multiplier, or epsilon, delta and answers")
        return self

    @property
    def step(self) -> float | None:
        """The grid's step, where the policy gives it."""
        return None

    def solved(self) -> Self:
        """Return a bound mechanism with its noise multiplier and grid worked out."""
        made = self.model_copy(update={"noise_multiplier": self._ratio()})
        return made.knowing(_grid=sampled(made.grid_at(made.ratio)))

    @property
    def ratio(self) -> float:
        """The noise multiplier, as given or as worked out.

        Raises:
            InvariantError: not bound, and not given.
        """
        if self.noise_multiplier is None:
            raise InvariantError("a mechanism ran before it was bound")
        return self.noise_multiplier

    def grid_at(self, ratio: float) -> Lattice:
        """Return the grid, with the noise on it, for a noise multiplier.

        Raises:
            ValueError: there is none.
        """
        return lattice(ratio, self._sensitivity, self.norm, self._columns, self.magnitude, self.step)

    def event_at(self, ratio: float, grid: Lattice) -> Event:
        """Return what one row costs with so much noise."""
        raise NotImplementedError

    def event(self) -> Event:
        """Return what one row costs."""
        return self.event_at(self.ratio, self.grid)

    def _ratio(self) -> float:
        if self.epsilon is None or self.delta is None or self.answers is None:
            return self.ratio

        def event_of(ratio: float) -> Event:
            return self.event_at(ratio, self.grid_at(ratio))

        return least_noise(event_of, self.epsilon, self.delta, self.answers, self._columns)


def with_noise(mechanism: Mechanism, scores: Floats, noise: Ints, batch: Batch) -> Batch:
    """Return a release of scores and noise, added in whole steps of the mechanism's grid and moved into the domain.

    Args:
        mechanism: bound.
        scores: inside their domain, shape (n, k).
        noise: whole steps, shape (n * k,).
        batch: what the scores came in; nothing but its form is used.
    """
    grid = mechanism.grid
    released = project(grid.scores(grid.snap(scores) + noise.reshape(scores.shape)), mechanism.domain)
    return Batch(released, released.argmax(axis=1), batch.kind, batch.complete)
