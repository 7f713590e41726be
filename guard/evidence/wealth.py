"""Evidence of one client, kept up to date window by window: the incremental form of `guard.evidence.null`.

For the suffix that starts at bucket b, e_b is the mean over a tier's signals of m1(N_b)/m0(N_b), where N_b are the
counts from bucket b on. A client's e-value is sum over b of e_b / ((b + 1)(b + 2)), plus 1/(B + 2) for the starts after
the newest bucket B: the weights sum to 1, so it is an e-process if each e_b is one. Starts are thinned to at most
`MOST_STARTS`: bucket b is kept while its age a = B - b has b divisible by 2**floor(log2(max(a, 1))); leaving starts out
only makes the sum smaller.
"""

from __future__ import annotations

from collections.abc import Mapping

from guard.evidence.null import Null
from guard.evidence.values import Strength
from guard.model.arrays import Floats, Ints

MOST_STARTS = 8


def log_evidence(null: Null, counts: Ints) -> Floats:
    """Return ln e(N) of every signal: the exact form that `Wealth` is compared with.

    Args:
        null: the null.
        counts: shape (..., S, BINS).

    Returns:
        Shape (..., S).
    """
    raise NotImplementedError


class Wealth:
    """The evidence of one client: at most some 27 KB (8 starts x 13 signals x 64 prototypes x 4 bytes) and its counts.

    Args:
        null: shared by all clients.
    """

    __slots__ = ()

    def __init__(self, null: Null) -> None:
        raise NotImplementedError

    @property
    def bucket(self) -> int:
        """The newest bucket, in which windows are counted; it is full at `BUCKET` windows of query signals."""
        raise NotImplementedError

    def add(self, first: int, bins: Ints) -> list[int]:
        """Count windows, each in turn, and let the bucket end where it is full.

        Args:
            first: number of the first signal.
            bins: shape (w, s): the bins of w windows of the s signals from `first` on.

        Returns:
            The fields that were counted, one a window and signal: what goes to the other replicas.
        """
        raise NotImplementedError

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add what others counted, by field; a newer bucket than ours becomes the newest, what is too old is dropped."""
        raise NotImplementedError

    def strength(self, skip: frozenset[int] = frozenset()) -> Strength:
        """Return the evidence as it stands, without the signals of an exception."""
        raise NotImplementedError

    def spoke(self, most: int = 3) -> list[tuple[int, float]]:
        """Return the signals that say most, with ln e of their best start, largest first; only those above 0."""
        raise NotImplementedError

    def counts(self) -> Mapping[int, int]:
        """Return all counts that are kept, by field."""
        raise NotImplementedError
