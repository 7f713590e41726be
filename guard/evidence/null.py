"""What honest clients look like to each signal: the client-hierarchical null, and the bets against it.

`Null` is a plain value: `guard.evidence.fit` makes one from calibration clients, a profile carries one, and one for the
structure tier is shipped. All arrays are stacked over the signals in their order, padded to `BINS` bins and to the same
number of prototypes and bets.

For signal s with prototypes c of weight w_c (summing to 1) and pseudo-counts a_cj, A_c = sum_j a_cj <= 40:

    m0(N) = sum_c w_c Gamma(A_c)/Gamma(A_c + n) prod_j Gamma(a_cj + N_j)/Gamma(a_cj)      n = sum_j N_j
    m1(N) = mean over bets h of prod_j h_j^N_j
    e(N)  = m1(N) / m0(N)

Bins that a signal does not use take no part in any of these sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from guard.evidence.gamma import Terms, terms
from guard.evidence.values import BINS, Signal
from guard.model.arrays import Floats


@dataclass(frozen=True, eq=False)
class Null:
    """The null and the bets of a set of signals.

    Making one works out its table of terms: some 0.15 s and 15 MB for 13 signals, so not on the request path.

    Args:
        signals: S of them, in the order of all arrays.
        edges: shape (S, BINS - 1), ascending; bin of x = number of edges <= x. Unused ones are +inf.
        prototypes: pseudo-counts, shape (S, C, BINS), above 0 in used bins; unused bins hold 1 and are never counted.
        log_weights: shape (S, C), natural logarithm of the prototypes' weights; -inf for none.
        log_bets: shape (S, H, BINS), natural logarithm of each bet's distribution.
        mean: shape (S, BINS), the benign distribution over bins, clients weighted alike: what drift is measured from.

    Raises:
        ValueError: the arrays do not fit each other.
    """

    signals: tuple[Signal, ...]
    edges: Floats
    prototypes: Floats
    log_weights: Floats
    log_bets: Floats
    mean: Floats

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other; work out the terms before the first request needs them."""
        s = len(self.signals)
        size = self.log_weights.shape[-1]
        shapes = (
            self.edges.shape == (s, BINS - 1),
            self.prototypes.shape == (s, size, BINS),
            self.log_weights.shape == (s, size),
            self.log_bets.shape[::2] == (s, BINS),
            self.mean.shape == (s, BINS),
        )
        if not all(shapes):
            raise ValueError("the arrays of a null do not fit each other")
        _ = self.terms

    @cached_property
    def terms(self) -> Terms:
        """What evidence looks up."""
        return terms(self.edges, self.prototypes, self.log_weights, self.log_bets)

    @cached_property
    def structure(self) -> frozenset[int]:
        """Numbers of the signals of the structure tier."""
        return frozenset(s for s, signal in enumerate(self.signals) if signal.tier == "structure")
