"""Queries that walk along a line."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import Blind, Bound, Detector, Features, Past, Reference
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats

_COSINE = 0.9999
_STILL = 1e-9
"""A step this small beside the vectors is rounding."""


class LineWalk(Detector, frozen=True):
    """Measures whether a query goes on along, or back on, the line of the two before it: 1 or 0.

    A hit is |cos(d, d')| > .9999 for the steps d = x_t - x_{t-1} and d' = x_{t-1} - x_{t-2}, neither of them 0. Where
    the features' scale is not known, each feature is divided by the larger of its two steps first, so that a feature
    of large numbers does not hide the others.

    Moves it: binary searches towards a boundary (HopSkipJump, Lowd-Meek), sweeps of one feature, interpolation between
    two points. Cannot see: lines whose queries are asked in turn with others, steps rounded to a coarse grid, curved
    paths, vectors of one number, rows without vectors. Honest sweeps move it too.

    Source: the line searches of Brendel et al., ICLR 2018, and Chen et al., IEEE S&P 2020 (HopSkipJump), for what it
    answers.

    >>> bound = LineWalk().bind({}, 2, b"")
    >>> rows = Features(np.zeros((4, 9), dtype=np.uint32), np.array([[0.0, 0], [1, 2], [2, 4], [2, 5]]), True)
    >>> bound.measure(rows, np.zeros(4, dtype=bool), np.zeros((4, 0), dtype=bool), Past()).ravel()
    array([0., 0., 1., 0.])
    """

    tier: ClassVar[Tier] = "structure"
    names: ClassVar[tuple[str, ...]] = ("line_walk",)

    kind: Literal["line_walk"] = "line_walk"

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure; it needs nothing."""
        del reference, width, salt
        return _Line()


class _Line(Blind):
    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del seen, hits
        vectors = features.vectors
        if vectors is None or vectors.shape[1] < 2:
            return np.zeros((len(features.keys), 1))
        last = past.last
        if last is None or last.size != vectors.shape[1]:
            last = vectors[0]  # No step yet: 0.
        step = past.step
        if step is None or step.size != last.size:
            step = np.zeros(last.size)
        if len(vectors) == 1:
            return np.array(((_one(vectors[0] - last, step, vectors[0], features.scaled),),))
        steps = np.empty_like(vectors)
        steps[0] = vectors[0] - last
        np.subtract(vectors[1:], vectors[:-1], out=steps[1:])
        before = np.concatenate([step[None], steps[:-1]])
        still = _STILL**2 * _dots(vectors, vectors)
        moved = (_dots(steps, steps) > still) & (_dots(before, before) > still)
        if not features.scaled:
            most = np.maximum(np.abs(steps), np.abs(before))
            most[most == 0] = 1
            steps, before = steps / most, before / most
        cosine = _dots(steps, before) ** 2 > _COSINE**2 * _dots(steps, steps) * _dots(before, before)
        return (cosine & moved)[:, None].astype(float)


def _dots(left: Floats, right: Floats) -> Floats:
    return np.einsum("ij,ij->i", left, right)


def _one(step: Floats, before: Floats, vector: Floats, scaled: bool) -> float:
    """Return 1.0 for a hit; for one row, products of vectors cost a third of what they cost for a batch."""
    still = _STILL**2 * float(np.dot(vector, vector))
    if float(np.dot(step, step)) <= still or float(np.dot(before, before)) <= still:
        return 0.0
    if not scaled:
        most = np.maximum(np.abs(step), np.abs(before))
        most[most == 0] = 1
        step, before = step / most, before / most
    product = float(np.dot(step, before))
    return float(product * product > _COSINE**2 * float(np.dot(step, step)) * float(np.dot(before, before)))
