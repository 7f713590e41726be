"""Whether traffic has drifted from a profile: a stale profile takes honest clients for strangers. Pure.

What it cannot see: drift that leaves the distribution signals' windows in their bins (a feature that no detector
weighs, two changes that cancel out), drift within the structure tier, a few new clients among many old ones, and
anything before some clients have windows. A crowd of thieves looks like drift, too: look at who is new before
calibrating again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guard.evidence.values import BINS, Signal
from guard.model.arrays import Floats, Ints

STALE = 0.25
"""Population stability index above which a profile counts as stale, by the custom of credit scoring."""
LEAST_CLIENTS = 20
"""With fewer clients nothing is said."""
_PRIOR_WINDOWS = 4.0
_LEAST_SHARE = 1e-3


def drift(signals: Sequence[Signal], mean: Floats, counts: Sequence[Ints]) -> float:
    """Return how far recent clients are from a profile.

    Per signal: PSI = sum over bins of (q - p) ln(q / p), where p is the profile's share of the bin and q the mean over
    clients of theirs; a client of few windows is drawn towards p by four windows' worth, or a bin that few clients
    happened to visit would count.

    Args:
        signals: S of them.
        mean: the null's, shape (S, BINS).
        counts: each recent client's windows by signal and bin, shape (S, BINS).

    Returns:
        The greatest index of the distribution tier's signals; 0 when fewer than 20 clients have windows of one.

    Source: Siddiqi (2006), Credit Risk Scorecards: below .1 no change, above .25 a great one. Differs: clients weigh
    alike, and each is smoothed.

    >>> signal = Signal("mahalanobis", "mahalanobis", "distribution")
    >>> usual = np.array([[0.5, 0.3, 0.2, 0, 0, 0, 0, 0]])
    >>> drift([signal], usual, [np.array([[5, 3, 2, 0, 0, 0, 0, 0]])] * 20)
    0.0
    >>> drift([signal], usual, [np.array([[2, 3, 5, 0, 0, 0, 0, 0]])] * 20) > 0.1
    True
    """
    worst = 0.0
    if not len(counts):
        return worst
    stacked = np.asarray(counts, dtype=np.float64).reshape(len(counts), len(signals), BINS)
    for number, signal in enumerate(signals):
        seen = stacked[:, number]
        seen = seen[seen.sum(axis=1) > 0]
        if signal.tier == "distribution" and len(seen) >= LEAST_CLIENTS:
            worst = max(worst, _index(mean[number], seen))
    return worst


def _index(mean: Floats, seen: Floats) -> float:
    used = mean > 0
    usual = np.maximum(mean[used], _LEAST_SHARE)
    usual /= usual.sum()
    drawn = seen[:, used] + _PRIOR_WINDOWS * usual
    now = (drawn / drawn.sum(axis=1, keepdims=True)).mean(axis=0)
    return max(0.0, round(float(((now - usual) * np.log(now / usual)).sum()), 9))
