"""What stands in for the outside in a replay: the clock, the model, who asks, the audit log, and the ledgers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from guard.errors import UpstreamError
from guard.model.client import Client
from guard.model.exchange import Reply
from guard.model.ledger import Charge, Receipt
from guard.ports import Headers, Heard
from guard.proxy.identity import Identity
from guard.state.memory import MemoryState

_MOST_COUNTERS, _MOST_DIGESTS = 10**7, 10**8


class RecordedClock:
    """Follows the recorded times; latencies are this machine's."""

    monotonic_s = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_s(self) -> float:
        """Return when the request at hand was recorded."""
        return self.now_s


class RecordedStream:
    """A recorded reply, all of which is there. Implements `guard.ports.Stream`."""

    def __init__(self, reply: Reply) -> None:
        self.status = reply.status
        self.headers: Headers = reply.headers
        self._body = reply.body

    async def read(self) -> bytes:
        """Return the whole body, then nothing."""
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """Do nothing."""


class RecordedModel:
    """Says again what was said; `said` is the answers to the request at hand."""

    def __init__(self) -> None:
        self.said: tuple[Reply | None, ...] = ()

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        """Return what the model said; see `guard.ports.Upstream`."""
        del method, target, headers, body, timeout_s
        found = next((reply for reply in self.said if reply is not None), None)
        if found is None:
            raise UpstreamError("no model answered", code="upstream_failed", status=502)
        return found

    async def open(
        self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float
    ) -> RecordedStream:
        """Return what the model said; see `guard.ports.Upstream`."""
        return RecordedStream(await self.send(method, target, headers, body, timeout_s))

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
        """Return what `read` makes of what each model said; see `guard.ports.Upstreams`."""
        del method, target, headers, body, timeout_s, wait_s
        heard: list[Heard | None] = []
        for reply in self.said:
            try:
                heard.append(None if reply is None or reply.status != 200 else read(reply))
            except UpstreamError:
                heard.append(None)
        if sum(one is not None for one in heard) < quorum:
            raise UpstreamError("too few models answered", code="no_quorum", status=502)
        return heard

    async def aclose(self) -> None:
        """Do nothing."""


class RecordedIdentity(Identity):
    """Names whoever the recording names, whatever the policy asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Client("", "", "address")

    def identify(self, headers: Headers, peer: str, certificate: object = None) -> Client:
        """Return the recorded client."""
        del headers, peer, certificate
        return self.client

    def by_address(self, headers: Headers, peer: str) -> Client:
        """Return the recorded client."""
        del headers, peer
        return self.client


class Sink:
    """Takes what an audit log would get, and keeps the ladder's events."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, object]] = []

    def room(self) -> bool:
        """Return True."""
        return True

    def add(self, entry: Mapping[str, object]) -> None:
        """Keep an event."""
        if entry.get("event") == "ladder":
            self.events.append(entry)

    def close(self) -> None:
        """Do nothing."""


class ReplayState(MemoryState):
    """Ledgers in memory, taken for durable: nothing of them is meant to last. Keeps what a request was charged."""

    def __init__(self) -> None:
        super().__init__(max_counters=_MOST_COUNTERS, max_digests=_MOST_DIGESTS)
        self.made: list[tuple[str, Sequence[Charge], Receipt]] = []

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        """Charge, and keep what came of it; see `guard.ports.State`."""
        receipt = await super().charge(ledger, charges, now_s)
        self.made.append((ledger, charges, receipt))
        return receipt

    async def durability(self) -> str:
        """Return that nothing is lost that anybody would look for."""
        return ""
