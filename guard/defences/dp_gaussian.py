"""Gaussian noise with a differential privacy guarantee."""

from __future__ import annotations

from typing import ClassVar, Literal

from guard.defences.base import Batch, Randomness
from guard.defences.calibrated import Calibrated, Granularity, with_noise
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy import discrete
from guard.privacy.events import Event, Gaussian
from guard.privacy.lattice import Lattice
from guard.privacy.measurement import Norm


class DpGaussian(Calibrated, frozen=True):
    """Adds Gaussian noise that is calibrated to what one training record can change: differential privacy.

    One record may turn a model's answer into any other, so the noise is measured by the diameter of what `outputs`
    allows (probabilities: sqrt 2; values: high - low; embeddings: twice their norm), over the quorum of an ensemble.
    Its standard deviation is noise_multiplier times that, and every answer drawn anew costs 1 / noise_multiplier^2 of
    the budget's mu^2, exactly. Scores are rounded to a grid and get whole steps of discrete Gaussian noise from the
    operating system's cryptographic source, so that the last bits of floating-point numbers give nothing away. What
    comes out is moved to the nearest point of the domain: probabilities sum to 1 again, values lie within low and high,
    embeddings within their norm. Labels follow the noisy scores, so `outputs.classes` must name them.

    Costs: for one model, everything: epsilon 8 at delta 1e-6 buys 100 answers at a standard deviation of 9.2, under
    which 12% of digits' labels are right, by chance. An ensemble's noise shrinks with its quorum: with 100 models on
    disjoint shards of digits (90.8% right without noise) the same budget buys 100 answers with 86% right labels and an
    L1 error of .45 if the models vote, 61% and .58 if their scores are averaged; 1,000 answers: 49% and 24%. Where a
    label is enough, `noisy_max` is as private, no less right, and gives a thief less. `guard budget plan` says what
    yours would be.
    Does nothing against whoever copies the model from many answers but limit how many there are, and for records beside
    the claim's unit (all records of a person, under training_record). Without a privacy budget nothing adds up what
    repeated answers give away.
    Source: Dwork, Kenthapadi, McSherry, Mironov and Naor, EUROCRYPT 2006; discrete: Canonne, Kamath and Steinke,
    NeurIPS 2020; the attack on floating-point noise: Mironov, CCS 2012; projection: Duchi et al., ICML 2008. Differs:
    the noise is a little larger (10 probabilities, noise_multiplier 20: by 1e-8), for what rounding to the grid adds to
    the sensitivity.

    Args:
        noise_multiplier: standard deviation divided by L2 sensitivity; this, or `epsilon`, `delta` and `answers`.
        granularity: the grid's step in the scores' unit, rounded down to a power of two; `auto`: the greatest that
            leaves 2^32 steps a standard deviation. Fewer steps are accounted by Renyi DP, which buys fewer answers.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities", "value", "embedding"})
    norm: ClassVar[Norm] = "l2"

    kind: Literal["dp_gaussian"] = "dp_gaussian"
    granularity: Literal["auto"] | Granularity = "auto"

    @property
    def step(self) -> float | None:
        """The grid's step, where the policy gives it."""
        return None if self.granularity == "auto" else self.granularity

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        """Return the scores with noise, moved into their domain again."""
        return with_noise(self, scores, discrete.gaussian(self.grid.scale, scores.size, rng.fresh), batch)

    def event_at(self, ratio: float, grid: Lattice) -> Event:
        """Return what one row costs: Gaussian DP exactly, or by Renyi DP where the grid is coarse."""
        return Gaussian(ratio, fine=grid.fine)

    def noise(self) -> str:
        """Return the noise in words."""
        return f"Gaussian noise of standard deviation {self.grid}"
