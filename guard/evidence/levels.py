"""Thresholds on evidence, and what may be said of them.

Nominal: ln(1/alpha), by Ville's inequality, if honest clients are as the null says; never below what any held-out
client has reached. Calibrated(alpha, n, horizon): the larger of ln(1/alpha) and the ceil((1 - alpha)(n + 1))-th
smallest sup of ln e over n held-out honest clients, which needs n >= 1/alpha - 1 and holds for whatever null if clients
are exchangeable, up to the horizon of the calibration streams.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from guard.model.arrays import Floats

_SLACK = 1e-9
"""So that 0.01 * 300 is 3."""


class Level(NamedTuple):
    """A threshold and what stands behind it.

    Args:
        alpha: bound on the chance that an honest client ever reaches it.
        threshold: on ln e.
        clients: held-out clients behind it; 0 for a nominal one.
        horizon: queries up to which it was calibrated; 0 for a nominal one.
        why: for a nominal one: what is missing, in words.
    """

    alpha: float
    threshold: float
    clients: int = 0
    horizon: int = 0
    why: str = ""

    def __str__(self) -> str:
        """Write it as it is published.

        >>> str(Level(0.01, 4.7, 2000, 900)), str(Level(0.01, 4.6, why="no profile"))
        ('calibrated(0.01, 2000 clients, 900 queries)', 'nominal(0.01): no profile')
        """
        if self.clients:
            return f"calibrated({self.alpha:g}, {self.clients} clients, {self.horizon} queries)"
        return f"nominal({self.alpha:g}): {self.why}"


def level(alpha: float, sups: Floats, horizon: int, *, why: str = "") -> Level:
    """Return the threshold of a level.

    Args:
        alpha: the level, in (0, 1).
        sups: greatest ln e of each held-out honest client, any order; empty without a profile.
        horizon: queries that these streams reach to.
        why: why it is nominal whatever `sups` says (other detectors than the profile's); empty otherwise.

    Raises:
        ValueError: alpha is not in (0, 1).

    Source: Vovk, Gammerman and Shafer (2005), ch. 2 (the rank of an exchangeable newcomer is uniform).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"a level is between 0 and 1, not {alpha}")
    nominal = -math.log(alpha)
    n = len(sups)
    above = math.floor(alpha * (n + 1) + _SLACK)  # of n + 1 exchangeable clients, this many may lie above
    if why or not n:
        return Level(alpha, nominal, why=why or "no profile")
    if above < 1:
        # Too few to calibrate, but what honest clients reached is known: a stricter level is never easier to reach.
        most = math.nextafter(float(np.where(np.isnan(sups), np.inf, sups).max()), math.inf)
        why = f"{n} held-out clients, {math.ceil(1 / alpha - _SLACK) - 1} are needed"
        return Level(alpha, max(nominal, most), why=why)
    order = float(np.sort(np.where(np.isnan(sups), np.inf, sups))[n - above])
    # Evidence is of counts, so clients tie: reaching the level must mean passing the order statistic, not equalling it.
    return Level(alpha, max(nominal, math.nextafter(order, math.inf)), n, horizon)
