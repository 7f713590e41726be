"""Evidence pooled over the accounts of a group, or over everybody: many accounts that each say little.

V = mean over f in (.01, .03, .1, .3, .9) of prod over accounts of (1 - f + f e~), e~ = min(e, 100)/nu. An account
that first reaches e = 100 is frozen there. nu >= 1 is the held-out mean of min(e, 100). Unclipped, one odd client would
alarm the pool. A pool begins anew with each UTC day, so its levels are per pool and day.
"""

from __future__ import annotations

CLIP = 100.0


class Pool:
    """The evidence of many accounts together; its size does not grow with their number.

    Contributions are kept as whole multiples of 1e-9 nats, so that taking one back leaves nothing behind.

    Args:
        nu: what clipped e-values are divided by, at least 1.
    """

    __slots__ = ()

    def __init__(self, nu: float) -> None:
        raise NotImplementedError

    def change(self, before: float | None, after: float) -> float:
        """Replace an account's contribution.

        Args:
            before: what `change` returned for this account, or None for one that is new to the pool.
            after: the account's ln e now.

        Returns:
            What to give as `before` the next time: ln of the clipped e-value, frozen once it is ln 100.
        """
        raise NotImplementedError

    @property
    def log_evidence(self) -> float:
        """Ln V; 0 for an empty pool."""
        raise NotImplementedError

    @property
    def accounts(self) -> int:
        """How many accounts it holds."""
        raise NotImplementedError
