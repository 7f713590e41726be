"""What honest clients look like to each signal: the client-hierarchical null, and the bets against it.

`Null` is a plain value: `guard.evidence.fit` makes one from calibration clients, a profile carries one, and one for the
structure tier is shipped. All arrays are stacked over the signals in their order, padded to `BINS` bins and to the same
number of prototypes and bets.

For signal s with prototypes c of weight w_c (summing to 1) and pseudo-counts a_cj, A_c = sum_j a_cj <= 40:

    m0(N) = sum_c w_c Gamma(A_c)/Gamma(A_c + n) prod_j Gamma(a_cj + N_j)/Gamma(a_cj)      n = sum_j N_j
    m1(N) = mean over bets h of prod_j h_j^N_j
    e(N)  = m1(N) / m0(N)
"""

from __future__ import annotations

from dataclasses import dataclass

from guard.evidence.values import Signal
from guard.model.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Null:
    """The null and the bets of a set of signals.

    Args:
        signals: S of them, in the order of all arrays.
        edges: shape (S, BINS - 1), ascending; bin of x = number of edges <= x. Unused ones are +inf.
        prototypes: pseudo-counts, shape (S, C, BINS), above 0 in used bins; unused bins hold 1 and are never counted.
        log_weights: shape (S, C), natural logarithm of the prototypes' weights; -inf for none.
        log_bets: shape (S, H, BINS), natural logarithm of each bet's distribution.
        mean: shape (S, BINS), the benign distribution over bins, clients weighted alike: what drift is measured from.
    """

    signals: tuple[Signal, ...]
    edges: Floats
    prototypes: Floats
    log_weights: Floats
    log_bets: Floats
    mean: Floats
