"""Add noise that repeating a query does not average out."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, Reuse, has_classes, keep_top
from guard.errors import InvariantError, Problem
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs

_TURN = np.float32(2.0 * np.pi)
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
        units += self._draw(batch.scores.shape, rng, salt, self.scale / grain)
        np.rint(units, out=units)
        noisy, top = self._bound(units, batch, grain), batch.top
        if batch.kept is not None:
            noisy *= batch.kept
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
        if self.reuse == "cell" and not _has_cells(inputs):
            hint = "inputs: {kind: vector, size: .., low: .., high: ..}, or reuse: query"
            problems.append(Problem("cells need the inputs' size and range", "reuse", hint=hint))
        return problems

    def _draw(self, shape: tuple[int, ...], rng: Randomness, salt: bytes, scale: float) -> NDArray[np.floating]:
        """Draw noise, shape (n, k), in single precision where that is far below the lattice."""
        n, k = shape
        half = (k + 1) // 2
        u = rng.uniform(self.reuse, 2 * half if self.mechanism == "gaussian" else k, salt)
        if len(u) != n:
            raise InvariantError("there are other rows in the answer than in the request")
        if self.mechanism == "laplace":
            u = u - 0.5
            return np.copysign(np.log1p(np.abs(u) * -2.0) * scale, u)
        # Box and Muller (1958). Pairs stand side by side, so that a client who asks for fewer classes (Triton's
        # classification, top_k) gets the same noise for those, and no second draw to average with the first.
        single = u.astype(np.float32).reshape(n, half, 2)
        radius, angle = np.log(single[:, :, 0]), single[:, :, 1] * _TURN
        radius *= -2.0 * scale * scale
        np.sqrt(radius, out=radius)
        normal = np.empty_like(single)
        np.cos(angle, out=normal[:, :, 0])
        np.sin(angle, out=normal[:, :, 1])
        normal *= radius[:, :, None]
        return normal.reshape(n, 2 * half)[:, :k]

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


def _has_cells(inputs: Inputs | None) -> bool:
    if inputs is None:
        return False
    return inputs.kind == "text" or not (inputs.size is None or inputs.low is None or inputs.high is None)
