"""Which clients serve for what: those that detectors learn from, that the null is of, and that are held out.

A client serves for one thing: a detector knows those that it learnt from too well, and a threshold holds for clients
that had no part in what it is a threshold on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FEWEST = 20
"""Clients below which there is no profile."""
MANY = 2000
"""Clients from which 1,000 and more are held out, so that a level of 1e-3 is calibrated."""
_FIT_MOST = 500
_SHARED = 60


class Parts(NamedTuple):
    """Numbers of clients.

    Args:
        fit: detectors learn from these.
        null: the null is of these; with fewer than 60 clients the same as `fit`.
        held: held out for thresholds, pools and the meter's queries.
    """

    fit: list[int]
    null: list[int]
    held: list[int]


def split(clients: int, rng: np.random.Generator) -> Parts:
    """Part clients at random: half are held out from 2,000 on, 100 from 200 on, else a third.

    >>> [tuple(map(len, split(n, np.random.default_rng(0)))) for n in (30, 120, 300, 2000)]
    [(20, 20, 10), (26, 54, 40), (66, 134, 100), (333, 667, 1000)]
    """
    order = rng.permutation(clients).tolist()
    held = clients // 2 if clients >= MANY else max(min(100, clients // 2), clients // 3)
    if clients < 200:
        held = clients // 3
    rest = order[held:]
    if clients < _SHARED:
        return Parts(rest, rest, order[:held])
    fit = min(_FIT_MOST, len(rest) // 3)
    return Parts(rest[:fit], rest[fit:], order[:held])
