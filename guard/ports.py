"""What the shell must provide to the core: a state, an upstream and a clock.

Adapters live in `state/` and `upstream/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.model.exchange import Reply
    from guard.model.ledger import Charge, Receipt, Spend

Headers = list[tuple[bytes, bytes]]


class Clock(Protocol):
    """Where time comes from: the engine reads none by itself."""

    def wall_s(self) -> float:
        """Seconds since the epoch, UTC: budgets' windows align to it."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: latencies and deadlines."""
        ...


class State(Protocol):
    """Ledgers that outlive a request: charging is atomic over all scopes of one ledger, or does not happen at all.

    Every method raises `StateError` when the state is out of reach. Semantics of a charge: `guard.model.ledger`.
    """

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        """Charge all of `charges` in one atomic step, or none of them.

        Args:
            ledger: the name under which spends are kept; never holds a policy's digest.
            charges: one per budget and scope.
            now_s: wall clock; chooses the windows.
        """
        ...

    async def refund(self, ledger: str, charges: Sequence[Charge], receipt: Receipt, now_s: float) -> None:
        """Give back what `receipt` charged at `now_s`: only for requests that upstream certainly never saw."""
        ...

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        """Say what has been spent on `charge`'s budget and scope in the window of `now_s`. Charges nothing."""
        ...

    async def ping(self) -> None:
        """Return when the state can be written; raise `StateError` when it cannot."""
        ...

    async def aclose(self) -> None:
        """Write what is pending and let go of files and connections."""
        ...


class Upstream(Protocol):
    """The model server that is being guarded."""

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        """Send one request and return the whole reply.

        Args:
            method: `b"POST"` and the like.
            target: origin form, percent-encoded, such as `b"/v2/models/m/infer"`.
            headers: end-to-end headers; the adapter adds `host`, `content-length` and `accept-encoding: identity`.
            body: at most the policy's bound.
            timeout_s: for everything from taking a connection to the reply's last byte.

        Raises:
            UpstreamError: 502 or 504; `reached` is False only if upstream certainly saw nothing of the request.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
