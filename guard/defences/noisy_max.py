"""The label that wins after noise."""

from __future__ import annotations

from math import ceil, nan, sqrt
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from guard.defences.base import Batch, Randomness
from guard.defences.calibrated import Calibrated, NoiseMultiplier
from guard.defences.mechanism import labels
from guard.model.arrays import Bools, Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import Composed, Event, Gaussian
from guard.privacy.lattice import Lattice, lattice, sampled
from guard.privacy.measurement import Norm


class NoisyMax(Calibrated, frozen=True):
    """Answers the label whose score is greatest after Gaussian noise (PATE's GNMax), and nothing else.

    Scores get noise as in `dp_gaussian`, and only the winner leaves: one-hot for tensors. With `threshold`, the
    greatest score, with noise of its own, must reach it; otherwise the request is refused (422) and remembered so. Both
    draws are charged whichever way the threshold falls, since a refusal tells, too. On an ensemble that votes this is
    PATE's (Confident-)GNMax, and `ensemble: {aggregate: noisy_vote}` is short for it.

    Costs: labels. With 100 models that vote on digits (90.8% right without noise), epsilon 8 at delta 1e-6 buys 100
    answers of which 86% are right, or 1,000 of which 50% are; on their averaged scores 62% and 24%. For one model it is
    chance. Accounting is independent of the data: votes that agree cost as much as any, where PATE's data-dependent
    analysis would charge less and then could not publish what it charged.
    Does nothing against whoever copies the model from labels alone but limit how many there are.
    Source: Papernot, Song, Mironov, Raghunathan, Talwar and Erlingsson, ICLR 2018, section 4.1 (GNMax) and algorithm 1
    (Confident-GNMax). Differs: discrete noise on a grid; any scores that sum to 1, not votes alone; Gaussian DP instead
    of Renyi DP.

    Args:
        noise_multiplier: standard deviation divided by L2 sensitivity (in votes: PATE's sigma divided by sqrt 2); this,
            or `epsilon`, `delta` and `answers`.
        threshold: least noisy top score; below it the row is withheld.
        threshold_noise_multiplier: standard deviation of the threshold's noise divided by how far the greatest score
            can move (in votes: PATE's sigma of the threshold). Known also where `epsilon`, `delta` and `answers` are to
            find the other noise.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    leaves_labels: ClassVar[bool] = True
    norm: ClassVar[Norm] = "l2"

    kind: Literal["noisy_max"] = "noisy_max"
    threshold: float | None = Field(default=None, gt=0, le=1)
    threshold_noise_multiplier: NoiseMultiplier | None = None

    _threshold_grid: Lattice | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.threshold is None) != (self.threshold_noise_multiplier is None):
            raise ValueError("threshold and threshold_noise_multiplier come together")
        return self

    def solved(self) -> Self:
        """Return a bound mechanism with noise multiplier and grids worked out."""
        return super().solved().knowing(_threshold_grid=self._threshold_lattice())

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        """Return one-hot rows; those below the threshold are not a number throughout."""
        grid = self.grid
        noise = discrete.gaussian(grid.scale, scores.size, rng.fresh).reshape(scores.shape)
        # Of equal ones the first column wins, whatever the scores were.
        chosen = (grid.snap(scores) + noise).argmax(axis=1)
        withheld = self._withheld(scores, rng)
        if withheld is None:
            return labels(chosen, batch)
        chosen[withheld] = 0
        released = labels(chosen, batch)
        if released.kept is not None:
            released.kept[withheld] = True
        released.scores[withheld] = nan
        return released

    def event_at(self, ratio: float, grid: Lattice) -> Event:
        """Return what one row costs: threshold and vote, whichever way the threshold falls."""
        vote = Gaussian(ratio, fine=grid.fine)
        threshold = self._threshold_lattice()
        if threshold is None or self.threshold_noise_multiplier is None:
            return vote
        return Composed((Gaussian(self.threshold_noise_multiplier, fine=threshold.fine), vote))

    def noise(self) -> str:
        """Return the noise in words."""
        said = f"Gaussian noise of standard deviation {self.grid}, of which the largest wins"
        if self._threshold_grid is None:
            return said
        return f"{said}, if the largest score and noise of standard deviation {self._threshold_grid} reach a threshold"

    def _withheld(self, scores: Floats, rng: Randomness) -> Bools | None:
        grid = self._threshold_grid
        if grid is None or self.threshold is None:
            return None
        noisy = grid.snap(scores.max(axis=1)) + discrete.gaussian(grid.scale, len(scores), rng.fresh)
        return np.less(noisy, ceil(self.threshold / grid.grain))

    def _threshold_lattice(self) -> Lattice | None:
        ratio = self.threshold_noise_multiplier
        if ratio is None:
            return None
        return sampled(lattice(ratio, self._greatest_move(), "linf", 1, self.magnitude))

    def _greatest_move(self) -> float:
        """Return how far one training record can move the greatest score.

        Scores sum to 1, so what one gains the others lose: of a move of L2 length s one coordinate has at most
        s * sqrt((k - 1) / k).
        """
        columns = max(self._columns, 2)
        whole = self.domain.diameter("linf") or 1.0
        return min(whole / self._quorum, self._sensitivity * sqrt((columns - 1) / columns))
