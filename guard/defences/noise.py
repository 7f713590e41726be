"""Add noise that repeating a query does not average out."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, Reuse, drop, has_cells, has_classes, keep_top
from guard.errors import InvariantError, Problem
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs

_GRAIN = 13
"""Noisy scores are multiples of about scale / 2^12."""


class Noise(Defence, frozen=True):
    """Adds independent noise to every score: output perturbation, not differential privacy.

    Noisy scores are snapped to a lattice of about scale / 4096, without which the last bits of floating-point numbers
    would give the exact score away (Mironov, CCS 2012), above all where only few scores are possible, as the leaves of
    a forest. Probabilities are clipped to [0, 1]; whole distributions at 0, and renormalised; logprobs stay at most 0,
    and whole distributions sum to 1 again; other kinds are left as the noise leaves them. With `keep_argmax` the
    greatest noisy score changes places with the model's top.

    Costs: confidence and calibration. Gaussian .05 (mean L1 .293 on digits) moves scores more than label only does and
    is dominated by it; larger scales without `keep_argmax` cost labels. Does nothing against an attacker who fits a
    copy to many different queries: independent errors average out in the fit. `reuse: none` is averaged out by
    repeats, `query` (residual L1 on bc .053) by jitters above the inputs' step (.025), and `cell` (.042 throughout) is
    fitted jointly with the weights (digits: .003 at 3,250).
    Of generated tokens, each candidate's noise is keyed by prompt and text before it, so that repeats, choices and
    seeds are one draw. Scale .1 is off by .08 a number and .2% of a perplexity at most (4,000 tokens, perplexity 49),
    scale 1 by .75 and 4%. Prompts that a model answers alike are draws: 100 of them leave a tenth of the error, 10,000
    a hundredth. There `cell` is `query`: prompts in other case are other distributions, and the same noise would leave
    their difference exact.
    Source: Tramer et al., USENIX Security 2016, section 6.1; figures in `defences.md`. Differs: keyed, so that a
    repeat says nothing new.

    Args:
        mechanism: `gaussian` or `laplace`.
        scale: gaussian: standard deviation; laplace: mean absolute deviation b (standard deviation b * sqrt 2). In the
            scores' unit.
        reuse: `query`: same noise for the same client and snapped query; `cell`: for a coarse cell of queries; `none`:
            fresh.
        keep_argmax: false lets the label change, so `outputs.classes` must say how to rewrite labels.
        renormalise: whole distributions sum to 1 again.
    """

    suits: ClassVar[frozenset[Kind]] = frozenset(
        {"probabilities", "logits", "logprobs", "value", "embedding", "labels"}
    )
    random: ClassVar[bool] = True

    kind: Literal["noise"] = "noise"
    mechanism: Literal["gaussian", "laplace"] = "gaussian"
    scale: float = Field(ge=1e-9, le=1e9, examples=[0.02])
    reuse: Reuse = "query"
    keep_argmax: bool = True
    renormalise: bool = True

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the scores with noise, dropped ones still 0."""
        grain = math.ldexp(1.0, math.frexp(self.scale)[1] - _GRAIN)
        units = batch.scores * (1.0 / grain)
        words = rng.words(self.reuse, units.shape[1], salt)
        if len(words) != len(units):
            raise InvariantError("there are other rows in the answer than in the request")
        units += quantiles(self.mechanism, self.scale / grain)[words]
        np.rint(units, out=units)
        noisy, top = self._bound(units, batch, grain), batch.top
        if batch.kept is not None:
            noisy = drop(noisy, batch.kept, batch.kind)
        if has_classes(batch.kind):
            if self.keep_argmax:
                noisy = keep_top(noisy, top)
            else:
                top = noisy.argmax(axis=1)
        return Batch(noisy, top, batch.kind, batch.complete, batch.kept, batch.labels_only)

    def check(self, outputs: Outputs, inputs: Inputs | None) -> list[Problem]:
        """Add what changed labels and coarse cells need to know."""
        problems = super().check(outputs, inputs)
        if not self.keep_argmax and outputs.classes is None and has_classes(outputs.kind):
            hint = "outputs: {classes: [...]} in the columns' order, or keep_argmax: true"
            problems.append(
                Problem("labels may change, and nothing says what they are called", "keep_argmax", hint=hint)
            )
        if self.reuse == "cell" and not has_cells(inputs):
            hint = "inputs: {kind: vector, size: .., low: .., high: ..}, or reuse: query"
            problems.append(Problem("cells need the inputs' size and range", "reuse", hint=hint))
        return problems

    def _bound(self, units: Floats, batch: Batch, grain: float) -> Floats:
        """Turn whole units into scores of the batch's kind again; may reuse `units`."""
        whole = self.renormalise and batch.complete
        if batch.kind == "probabilities":
            bounded = np.maximum(units, 0.0)
            if not whole:
                np.minimum(bounded, 1.0 / grain, out=bounded)
                bounded *= grain
                return bounded
            total = np.add.reduce(bounded, axis=1, keepdims=True)
            if np.count_nonzero(total) != len(total):
                empty = np.flatnonzero(total == 0)
                bounded[empty, units[empty].argmax(axis=1)] = 1.0
                total[empty] = 1.0
            bounded /= total
            return bounded
        units *= grain
        if batch.kind == "logprobs":
            if whole:
                units -= units.max(axis=1, keepdims=True)
                units -= np.log(np.exp(units).sum(axis=1, keepdims=True))
            else:
                units -= np.maximum(units.max(axis=1, keepdims=True), 0.0)
            return np.minimum(units, 0.0)
        return units


@lru_cache(maxsize=16)
def quantiles(mechanism: Literal["gaussian", "laplace"], scale: float) -> NDArray[np.float32]:
    """Return the middle quantile of each of 2^16 equally likely intervals, ascending, shape (65536,).

    Inversion by table: one look-up a score instead of a logarithm, a root and a cosine. The step between quantiles is
    below the lattice's but in the tails, which end at 4.3 standard deviations (gaussian) or 11.1 times the scale.
    """
    upper = (np.arange(2**15, 2**16) + 0.5) / 2**16
    if mechanism == "gaussian":
        half = np.array([NormalDist().inv_cdf(p) for p in upper.tolist()])
    else:
        half = -np.log(2.0 * (1.0 - upper))
    return (np.concatenate((-half[::-1], half)) * scale).astype(np.float32)
