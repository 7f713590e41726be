"""Evidence pooled over the accounts of a group, or over everybody: many accounts that each say little.

V = mean over f in (.01, .03, .1, .3, .9) of prod over accounts of (1 - f + f e~), e~ = min(e, 100)/nu. An account
that first reaches e = 100 is frozen there. nu >= 1 is the held-out mean of min(e, 100). Unclipped, one odd client would
alarm the pool. A pool begins anew with each UTC day, so its levels are per pool and day.
"""

from __future__ import annotations

import math

CLIP = 100.0
SHARES = (0.01, 0.03, 0.1, 0.3, 0.9)
"""f: what share of the accounts may be the attacker's."""
_FROZEN = math.log(CLIP)
_LEAST = -700.0
"""Less evidence than this changes nothing, and its exponential is still a number."""
_UNIT = 1e-9


class Pool:
    """The evidence of many accounts together; its size does not grow with their number.

    Contributions are kept as whole multiples of 1e-9 nats, so that taking one back leaves nothing behind.

    Args:
        nu: what clipped e-values are divided by, at least 1.
    """

    __slots__ = ("_accounts", "_log_nu", "_sums")

    def __init__(self, nu: float) -> None:
        self._log_nu = math.log(max(nu, 1.0))
        self._sums = [0] * len(SHARES)
        self._accounts = 0

    def change(self, before: float | None, after: float) -> float:
        """Replace an account's contribution.

        Args:
            before: what `change` returned for this account, or None for one that is new to the pool.
            after: the account's ln e now; not a number counts as 0.

        Returns:
            What to give as `before` the next time: ln of the clipped e-value, frozen once it is ln 100.
        """
        if before is not None and before >= _FROZEN:
            return before
        now = 0.0 if math.isnan(after) else max(_LEAST, min(after, _FROZEN))
        if before is None:
            self._accounts += 1
        elif before == now:
            return now
        else:
            self._move(before, -1)
        self._move(now, 1)
        return now

    def _move(self, log_e: float, sign: int) -> None:
        e = math.exp(log_e - self._log_nu)
        for i, f in enumerate(SHARES):
            self._sums[i] += sign * round(math.log1p(f * (e - 1.0)) / _UNIT)

    @property
    def log_evidence(self) -> float:
        """Ln V; 0 for an empty pool."""
        top = max(self._sums)
        return top * _UNIT + math.log(sum(math.exp((each - top) * _UNIT) for each in self._sums) / len(SHARES))

    @property
    def accounts(self) -> int:
        """How many accounts it holds."""
        return self._accounts
