"""Thresholds on evidence, and what may be said of them.

Nominal: ln(1/alpha), by Ville's inequality, if honest clients are as the null says. Calibrated(alpha, n, horizon): the
larger of that and the ceil((1 - alpha)(n + 1))-th smallest sup of ln e over n held-out honest clients, which needs
n >= 1/alpha - 1 and holds for whatever null if clients are exchangeable, up to the horizon of the calibration streams.
"""

from __future__ import annotations

from typing import NamedTuple

from guard.model.arrays import Floats


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
    """
    raise NotImplementedError
