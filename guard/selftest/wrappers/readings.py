"""Wrappers that ask as before and read answers otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from guard.selftest.api import is_label
from guard.selftest.attacks.fit import completed
from guard.selftest.base import Refused, Rows, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers.wrapped import Wrapped, everywhere

LEAST, MOST = 1e-6, 0.02
"""Bounds of what a dropped score reads as."""


class LabelsOnly(Wrapped):
    """Reads labels and nothing else: the fallback where scores mislead, and the floor of what labels alone give."""

    def ask(self, x: Rows) -> Floats:
        """Return one-hot labels."""
        try:
            return _one_hot(self.inner.ask(x))
        except Refused as error:
            raise _read(error, _one_hot) from error

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return the label alone."""
        scores = self.ask(x)
        return {"label": scores.argmax(axis=1)[:, None].astype(np.float64) if scores.shape[1] > 1 else scores}


class Clipped(Wrapped):
    """Reads a score that was dropped or rounded to 0 as a small one, so that every answer has a logarithm.

    What a row lacks to 1 is shared out among the scores that read 0; none reads less than half the least score seen.
    """

    def ask(self, x: Rows) -> Floats:
        """Return scores above 0 that sum to 1."""
        try:
            return _clipped(self.inner.ask(x))
        except Refused as error:
            raise _read(error, _clipped) from error


def labels(world: World) -> World:
    """Fall back to labels."""
    return everywhere(world, LabelsOnly)


def clip_logits(world: World) -> World:
    """Read truncated scores as small ones."""
    return everywhere(world, Clipped)


def _read(error: Refused, reading: Callable[[Floats], Floats]) -> Refused:
    return Refused(error.status, str(error), None if error.answers is None else reading(error.answers))


def _one_hot(scores: Floats) -> Floats:
    return np.eye(scores.shape[1])[scores.argmax(axis=1)] if scores.shape[1] > 1 and len(scores) else scores


def _clipped(scores: Floats) -> Floats:
    if scores.shape[1] < 2 or not len(scores):
        return scores
    graded = scores[~is_label(scores)]
    seen = graded[graded > 0]
    floor = float(np.clip(seen.min() / 2, LEAST, MOST)) if len(seen) else MOST
    raised = np.maximum(completed(scores), floor)
    return raised / raised.sum(axis=1, keepdims=True)
