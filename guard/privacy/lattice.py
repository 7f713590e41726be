"""The grid that noise lives on, and how many of its steps noise must measure.

Noise of floating-point numbers gives the exact score away in its last bits (Mironov, 2012), so scores are rounded to
whole steps of a power of two, whole numbers are added, and what leaves is a whole number of steps: the same set of
possible answers whatever the score was.

Rounding moves each of k coordinates by at most half a step, so scores that differ by d differ by at most
d / grain + root(k) whole steps, with root(k) = k in L1, sqrt k in L2 and 1 in L-infinity. Scores are sums and quotients
of floating-point numbers themselves, each within 2^-40 of the domain's magnitude of what exact arithmetic gives (4,096
models or columns err by less). So noise of

    scale >= ratio * ((sensitivity + 2 * 2^-40 * magnitude * root(k)) / grain + root(k)) * (1 + 2^-40)

whole steps is at least `ratio` times what one training record can change; the last factor is room for the rounding of
this formula itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, frexp, ldexp, log2, sqrt

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.privacy.filters import FINE_STEPS
from guard.privacy.measurement import Norm
from guard.privacy.rejection import MOST_SCALE

_FLOAT_ROOM = 2.0**-40
_MARGIN = 1.0 + 2.0**-40
_SCORE_BITS = 50
"""Scores are below 2^50 steps and noise of at most `MOST_SCALE` steps, so their sums are whole numbers in float64."""
_SMALLEST, _GREATEST = 1e-200, 1e200


@dataclass(frozen=True, slots=True)
class Lattice:
    """A grid of scores, and noise on it.

    Args:
        grain: its step, a power of two, in the scores' unit.
        scale: standard deviation (Gaussian) or scale (Laplace) of the noise, in whole steps.
    """

    grain: float
    scale: int

    def __str__(self) -> str:
        return f"{self.width:.6g} on a grid of 2^{log2(self.grain):.0f}"

    @property
    def fine(self) -> bool:
        """The noise measures at least 2^32 steps."""
        return self.scale >= FINE_STEPS

    @property
    def width(self) -> float:
        """The noise's scale in the scores' unit."""
        return self.scale * self.grain

    def snap(self, scores: Floats) -> Ints:
        """Return scores as whole steps.

        >>> Lattice(0.25, 1).snap(np.array([[0.3, 0.7]]))
        array([[1, 3]])
        """
        return np.rint(scores / self.grain).astype(np.int64)

    def scores(self, steps: Ints) -> Floats:
        """Return whole steps as scores, exactly.

        >>> Lattice(0.25, 1).scores(np.array([[1, 3]]))
        array([[0.25, 0.75]])
        """
        return np.multiply(steps, self.grain, dtype=np.float64)


def lattice(
    ratio: float, sensitivity: float, norm: Norm, columns: int, magnitude: float, granularity: float | None = None
) -> Lattice:
    """Return the grid, and the least noise on it whose scale is at least `ratio` times the sensitivity.

    Args:
        ratio: scale of the noise divided by sensitivity.
        sensitivity: how far one training record can move the scores, in `norm`.
        norm: in which sensitivity is measured.
        columns: scores a row, at most.
        magnitude: the greatest absolute value of a score.
        granularity: the step, rounded down to a power of two; None: the greatest that leaves 2^32 steps a scale, or
            more where scores have too many digits for float64 otherwise.

    Raises:
        ValueError: sensitivity or noise is nothing, or out of float64's reach; a grid too fine for such scores.

    >>> lattice(8.0, 0.5, "l2", 4, 1.0).grain == 2.0**-30, lattice(8.0, 0.5, "l2", 4, 1.0, 0.3)
    (True, Lattice(grain=0.25, scale=33))
    """
    if not (_SMALLEST < ratio * sensitivity < _GREATEST and _SMALLEST < magnitude < _GREATEST):
        raise ValueError("outputs that differ by nothing, or by more than numbers hold, cannot be given noise")
    least = ldexp(1.0, frexp(magnitude)[1] - _SCORE_BITS)
    if granularity is None:
        grain = max(least, ldexp(1.0, frexp(ratio * sensitivity)[1] - 1) / FINE_STEPS)
    else:
        grain = ldexp(1.0, frexp(granularity)[1] - 1)
        if grain < least:
            raise ValueError(
                f"a granularity below {least:.3g} has no room in 64 bits beside scores up to {magnitude:g}"
            )
    root = spread(norm, columns)
    steps = (sensitivity + 2.0 * _FLOAT_ROOM * magnitude * root) / grain + root
    return Lattice(grain, ceil(ratio * steps * _MARGIN))


def sampled(lattice: Lattice) -> Lattice:
    """Return a lattice that the samplers can serve.

    Raises:
        ValueError: its noise has more steps than they count.
    """
    if lattice.scale > MOST_SCALE:
        raise ValueError(f"a granularity of {lattice.grain:.3g} is too fine for noise of {lattice.width:.3g}")
    return lattice


def spread(norm: Norm, columns: int) -> float:
    """Return the norm of a vector of ones.

    >>> spread("l1", 9), spread("l2", 9), spread("linf", 9)
    (9.0, 3.0, 1.0)
    """
    return {"l1": float(columns), "l2": sqrt(columns), "linf": 1.0}[norm]
