"""What the shell must provide to the core: a state, an upstream, a clock, an audit log and traces.

Adapters live in `state/`, `upstream/` and `telemetry/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guard.model.evidence import Delta, Record
    from guard.model.exchange import Reply
    from guard.model.ledger import Account, Charge, Receipt, Spend

Headers = list[tuple[bytes, bytes]]
Heard = TypeVar("Heard")
"""What becomes of one model's reply."""
EVIDENCE_KEPT_S = 30 * 86400
"""How long a client's evidence outlives its last query."""


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

    async def recall(self, ledger: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return memoised releases; None for those that were never kept or that others have displaced.

        Args:
            ledger: as for `charge`.
            keys: 16-byte keyed digests.
        """
        ...

    async def remember(self, ledger: str, releases: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep releases, each in the one slot that its key names, displacing what is there; bounded for each ledger.

        Args:
            ledger: as for `charge`.
            releases: (key, release) pairs; a release longer than `guard.state.memo.MOST_BYTES` is not kept.
        """
        ...

    async def merge(self, space: str, deltas: Sequence[Delta], now_s: float) -> list[Record]:
        """Merge what this replica has counted into what all have, and return it: one record for each delta, in order.

        A record is forgotten `EVIDENCE_KEPT_S` after its last merge that added something. Of its counts, those of the
        newest `guard.evidence.values.KEPT` buckets are kept. Each record is merged atomically; different ones need not
        be merged together.

        Args:
            space: whose clients these are, such as `evidence/LEDGER/FINGERPRINT` or `marks/LEDGER`.
            deltas: different clients; an empty one only reads.
            now_s: wall clock, for forgetting.
        """
        ...

    async def terms(self, ledger: str) -> bytes | None:
        """Return the terms that the ledger's privacy budgets are kept under; None for a ledger without any."""
        ...

    async def agree(self, ledger: str, terms: bytes) -> bytes:
        """Put terms down where there are none yet, and return those in force."""
        ...

    async def durability(self) -> str:
        """Return why what was charged may be lost, in words; empty when a crash or a power cut loses nothing."""
        ...

    async def ping(self) -> None:
        """Return when the state can be written; raise `StateError` when it cannot."""
        ...

    async def aclose(self) -> None:
        """Write what is pending and let go of files and connections."""
        ...


class Books(Protocol):
    """A ledger in an operator's hands: `guard budget` and `guard audit`. Semantics: `guard.state.books`."""

    async def ledgers(self) -> list[str]:
        """Return the names of all ledgers, sorted."""
        ...

    async def accounts(self, ledger: str) -> list[Account]:
        """Return every counter of a ledger, consistent with each other."""
        ...

    async def terms(self, ledger: str) -> bytes | None:
        """As `State.terms`."""
        ...

    async def rewrite(self, ledger: str, old: bytes | None, new: bytes | None, accounts: Sequence[Account]) -> bool:
        """Replace the terms and the given accounts, in one step, if `old` is still in force; False when it is not.

        False, too, when an account is no longer as `accounts` returned it. No new terms leave those in force. An
        account's entries replace its checkpoint, and its journal begins anew.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and connections."""
        ...


class Stream(Protocol):
    """A reply of which only the head has arrived.

    Args:
        status: HTTP status, 200 to 599.
        headers: names lower case, in order.
    """

    status: int
    headers: Headers

    async def read(self) -> bytes:
        """Return what has arrived, waiting for it if need be; empty at the reply's end.

        Upstream is read no faster than this is called: what has arrived and was not asked for is bounded.

        Raises:
            UpstreamError: `upstream_timeout` (nothing came in time), `upstream_broken`, `upstream_malformed`,
                `upstream_too_large`.
        """
        ...

    def close(self) -> None:
        """Let go: upstream sees a disconnect, unless the reply was read to its end. Harmless twice."""
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

    async def open(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Stream:
        """Send one request and return its reply as soon as its head is there.

        Args:
            method: as for `send`, and so are the next three.
            target: same.
            headers: same.
            body: same.
            timeout_s: for the head, and again for whatever comes next.

        Raises:
            UpstreamError: as for `send`.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Upstreams(Upstream, Protocol):
    """One model server, or several whose answers a route puts together."""

    async def send_all(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        *,
        quorum: int,
        wait_s: float,
        read: Callable[[Reply], Heard],
    ) -> list[Heard | None]:
        """Ask all models at once; return what `read` made of each one's reply, in their order.

        None stands for a model that failed or was late.

        Args:
            method: as for `send`, and so are the next four.
            target: same.
            headers: same.
            body: same.
            timeout_s: same.
            quorum: least number of models that must be heard.
            wait_s: how long to wait for the others once `quorum` are.
            read: called with every reply of status 200 as soon as it is there; raises `UpstreamError` for a model that
                has failed.

        Raises:
            UpstreamError: code `no_quorum`; `reached` is False only if certainly no model saw the request.
        """
        ...


class AuditSink(Protocol):
    """Where decisions and events are put down, one JSON line each.

    `room` and `add` are called on the event loop, return at once and never raise.
    """

    def room(self) -> bool:
        """Return False when what is decided now could not be put down: the buffer is full, or the disk is."""
        ...

    def add(self, entry: Mapping[str, object]) -> None:
        """Take one entry; one that finds no room is counted as dropped.

        Args:
            entry: JSON values, `kind` first; never an input, a score or a credential.
        """
        ...

    def close(self) -> None:
        """Write what is waiting, sign the end, and let go. Blocks for a few seconds at most."""
        ...


class Trace(Protocol):
    """The spans of one request: one for all of it, one a phase. No method raises or waits."""

    def enter(self, phase: str) -> None:
        """End the span of the phase before, and begin this one's."""
        ...

    def fail(self, code: str) -> None:
        """Mark the span that is open as failed, with the error's stable code."""
        ...

    def headers(self) -> Headers:
        """Return what carries the trace to the model: `traceparent`, and `tracestate` where there is one."""
        ...

    def end(self, outcome: str, attributes: Mapping[str, str | int | float | bool]) -> None:
        """End every span.

        Args:
            outcome: `ok`, or an error's code.
            attributes: of the whole request; never a client, an input or a score.
        """
        ...


class Tracer(Protocol):
    """Begins traces."""

    def begin(self, headers: Headers, route: str, method: str, template: str) -> Trace:
        """Return the trace of one request; what its headers carry counts as far as the operator trusts clients.

        Args:
            headers: the client's.
            route: the policy's name for it.
            method: HTTP method.
            template: the endpoint's path with `{name}` for what varies; empty when no endpoint matches.
        """
        ...

    def close(self) -> None:
        """Send what is waiting. Blocks for a few seconds at most."""
        ...
