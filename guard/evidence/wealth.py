"""Evidence of one client: `guard.evidence.null` at every start, worked out from counts alone.

For the suffix that starts at bucket b, e_b is the mean over a tier's signals of m1(N_b)/m0(N_b), where N_b are the
counts from bucket b on; a signal without counts there has 1. A client's e-value is sum over b of e_b/((b + 1)(b + 2)),
plus 1/(B + 2) for the starts after the newest bucket B: the weights sum to 1, so its mean is at most 1 where that of
each e_b is. Starts are thinned to at most `MOST_STARTS`: bucket b is kept while its age a = B - b has b divisible by
2**floor(log2(max(a, 1))); leaving starts out only makes the sum smaller. One that is left out never comes back.

Counts are all that is kept, in whatever order they came, so evidence is a function of their sum: replicas that have
merged agree to the last bit, and nothing drifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy import typing as npt

from guard.evidence.gamma import evidence, log_gamma, log_sum_exp
from guard.evidence.null import Null
from guard.evidence.values import BINS, BUCKET, KEPT, MOST_SIGNALS, Strength
from guard.model.arrays import Floats, Ints

MOST_STARTS = 6
"""The newest bucket, and one with an age in [p, 2p) for p of 1, 2, 4, 8 and 16: with `KEPT` there are no more."""
MOST_COUNT = 2**16 - 1
"""A count stays there: some 4,000 replicas would have to fill a bucket at once."""
MOST_BUCKETS = 2**31
CEILING = 600.0
"""Ln e of a signal counts as at most this, so that sums are of plain numbers; no level is anywhere near."""
_STEPS = (1, 2, 4, 8, 16)


def starts(newest: int) -> list[int]:
    """Return the buckets at which the test starts anew, newest first.

    >>> starts(0), starts(5), starts(37)
    ([0], [5, 4, 2, 0], [37, 36, 34, 32, 24, 16])
    """
    return [newest, *((newest - p) // p * p for p in _STEPS if p <= newest)]


def log_evidence(null: Null, counts: Ints) -> Floats:
    """Return ln e(N) of every signal in float64, straight from its formula: what `Wealth` is compared with.

    Args:
        null: the null.
        counts: shape (..., S, BINS); those in unused bins are not looked at. About 2 KB a client are needed meanwhile.

    Returns:
        Shape (..., S).
    """
    known = null.terms
    flat = counts.reshape(-1, *counts.shape[-2:])
    value = np.zeros(flat.shape[:2])
    for s in range(flat.shape[1]):
        used = int(known.used[s])
        seen = flat[:, s, :used]
        logs = np.tile(null.log_weights[s], (len(flat), 1))
        for j in [*range(used), BINS]:
            # There are far fewer different counts than clients.
            values, which = np.unique(seen.sum(axis=1) if j == BINS else seen[:, j], return_inverse=True)
            pseudo = known.pseudo[s, j]
            term = log_gamma(pseudo + values[:, None]) - log_gamma(pseudo)
            logs += (-term if j == BINS else term)[which]
        bets = log_sum_exp(seen @ null.log_bets[s, :, :used].T) - math.log(null.log_bets.shape[1])
        value[:, s] = bets - log_sum_exp(logs)
    return value.reshape(counts.shape[:-1])


class Wealth:
    """The evidence of one client: 2 * BINS bytes a signal and kept bucket, 6.7 KB for 13 signals.

    Args:
        null: shared by all clients.
    """

    __slots__ = ("_counts", "_logs", "_null", "_strength", "bucket")

    def __init__(self, null: Null) -> None:
        self._null = null
        self.bucket: int = 0
        """The newest bucket, in which windows are counted; it is full at `BUCKET` windows of signal 0."""
        self._counts: npt.NDArray[np.uint16] = np.zeros((1, len(null.signals), BINS), dtype=np.uint16)
        """Of the kept buckets, the newest last."""
        self._logs: Floats | None = None
        """Ln e by start and signal; None when counts have changed."""
        self._strength: Strength | None = Strength()

    def add(self, first: int, bins: Ints) -> list[int]:
        """Count windows, each in turn; one of the query signals opens a bucket where the newest is full.

        Args:
            first: number of the first signal; 0 for query signals.
            bins: shape (w, s): the bins of w windows of the s signals from `first` on.

        Returns:
            The fields that were counted, one a window and signal: what goes to the other replicas.
        """
        columns = np.arange(first, first + bins.shape[1], dtype=np.int64)
        fields: list[int] = []
        for window in bins:
            if not first and int(self._counts[-1, 0].sum()) >= BUCKET and self.bucket < MOST_BUCKETS - 1:
                self._open(self.bucket + 1)
            newest = self._counts[-1]
            before = newest[columns, window]
            newest[columns, window] = before + (before < MOST_COUNT)
            fields += ((columns + self.bucket * MOST_SIGNALS) * BINS + window).tolist()
        self._changed()
        return fields

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add what others counted, by field.

        A newer bucket than ours becomes the newest. What is too old, or is no field of this null, is dropped.
        """
        limit = MOST_BUCKETS * MOST_SIGNALS * BINS
        kept = [(number, min(many, MOST_COUNT)) for number, many in counts.items() if 0 <= number < limit and many > 0]
        if not kept:
            return
        pairs = np.array(kept, dtype=np.int64)
        rest, bins = np.divmod(pairs[:, 0], BINS)
        buckets, signals = np.divmod(rest, MOST_SIGNALS)
        ours = signals < len(self._null.signals)
        ours[ours] = bins[ours] < self._null.terms.used[signals[ours]]
        if not ours.any():
            return
        newest = int(buckets[ours].max())
        if newest > self.bucket:
            self._open(newest)
        rows = buckets - self.bucket + len(self._counts) - 1
        ours &= rows >= 0
        place = rows[ours], signals[ours], bins[ours]
        total = self._counts[place] + pairs[ours, 1]
        self._counts[place] = np.minimum(total, MOST_COUNT)
        self._changed()

    def strength(self, skip: frozenset[int] = frozenset()) -> Strength:
        """Return the evidence as it stands, without the signals of an exception."""
        if not skip and self._strength is not None:
            return self._strength
        shares, rest = _shares(self.bucket)
        by_signal: list[float] = (shares @ np.exp(np.minimum(self._by_start(), CEILING))).tolist()
        structure = self._null.structure
        known = [(e, s in structure) for s, e in enumerate(by_signal) if s not in skip]
        value = Strength(_mixed([e for e, _ in known], rest), _mixed([e for e, ours in known if ours], rest))
        if not skip:
            self._strength = value
        return value

    def spoke(self, most: int = 3) -> list[tuple[int, float]]:
        """Return the signals that say most, with ln e of their best start, largest first; only those above 0."""
        best = self._by_start().max(axis=0, initial=0.0)
        order = np.argsort(-best, kind="stable")[:most]
        return [(int(s), float(best[s])) for s in order if best[s] > 0]

    def counts(self) -> Mapping[int, int]:
        """Return all counts that are kept, by field."""
        rows, signals, bins = np.nonzero(self._counts)
        buckets = rows + (self.bucket - len(self._counts) + 1)
        fields = (buckets * MOST_SIGNALS + signals) * BINS + bins
        return dict(zip(fields.tolist(), self._counts[rows, signals, bins].tolist(), strict=True))

    def _open(self, newest: int) -> None:
        """Make a later bucket the newest."""
        size = min(newest + 1, KEPT)
        grown = np.zeros((size, *self._counts.shape[1:]), dtype=np.uint16)
        stay = min(len(self._counts), size - (newest - self.bucket))
        if stay > 0:
            end = size - (newest - self.bucket)
            grown[end - stay : end] = self._counts[-stay:]
        self._counts = grown
        self.bucket = newest

    def _changed(self) -> None:
        self._logs = self._strength = None

    def _by_start(self) -> Floats:
        """Return ln e by start, newest first, and signal."""
        if self._logs is None:
            oldest = self.bucket - len(self._counts) + 1
            rows = [b - oldest for b in starts(self.bucket)][::-1]
            parts = np.add.reduceat(self._counts, rows, axis=0, dtype=np.int64)
            self._logs = evidence(self._null.terms, parts[::-1].cumsum(axis=0))
        return self._logs


@lru_cache(maxsize=4096)
def _shares(newest: int) -> tuple[Floats, float]:
    """Return the weight of each start, newest first, and that of the starts still to come."""
    return np.array([1.0 / ((b + 1.0) * (b + 2.0)) for b in starts(newest)]), 1.0 / (newest + 2.0)


def _mixed(by_signal: list[float], rest: float) -> float:
    """Return ln of the mean over signals of their e-values, weighted over starts; 0 for no signals."""
    return math.log(sum(by_signal) / len(by_signal) + rest) if by_signal else 0.0
