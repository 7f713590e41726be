"""Answers close to the model's decision boundary."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import Blind, Bound, Detector, Margins, Reference, Sample, Side
from guard.detectors.reference import Surprisal, balanced, quantiles, take
from guard.evidence.values import Tier
from guard.model.arrays import Floats


class LowMargin(Detector, frozen=True):
    """Measures how surprisingly close the two greatest scores of an answer are.

    v = -(top score less the second), of what the model said, whatever is released. `low_margin` is the surprisal of v
    among honest answers; `low_margin.extreme` says whether only one in 200 is as close.

    Moves it: searches along the decision boundary (HopSkipJump, Lowd-Meek), uncertainty sampling (Knockoff with active
    learning), evasion while it succeeds. Cannot see: attacks that keep off the boundary; models that only say labels.
    Honest clients with hard cases move it too.

    Source: margin sampling, Scheffer et al., IDA 2001, here the other way round.

    >>> detector = LowMargin()
    >>> honest = np.linspace(0.01, 1, 300)
    >>> bound = detector.bind(detector.learn(Sample([], [honest] * 40, 0)), 0, b"")
    >>> bound.measure_answers(Margins(np.array([0.9, 0.001])))[:, 1]
    array([0., 1.])
    """

    tier: ClassVar[Tier] = "distribution"
    names: ClassVar[tuple[str, ...]] = ("low_margin", "low_margin.extreme")
    side: ClassVar[Side] = "answer"
    profiled: ClassVar[bool] = True

    kind: Literal["low_margin"] = "low_margin"

    def learn(self, sample: Sample) -> Reference:
        """Keep honest margins, clients weighted alike."""
        known = [margins for margins in sample.margins if margins is not None and len(margins)]
        if not known:
            raise ValueError("no client has answers with scores to learn from")
        return {"values": quantiles(-balanced(known, sample.seed))}

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure."""
        del width, salt
        return _Margin(take(reference, "values", -1))


class _Margin(Blind):
    def __init__(self, values: Floats) -> None:
        self._surprisal = Surprisal(values)

    def measure_answers(self, margins: Margins) -> Floats:
        # What is no number says nothing.
        return self._surprisal.signals(-np.where(np.isnan(margins.margin), np.inf, margins.margin))
