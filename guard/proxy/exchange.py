"""Everything one request has gathered on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

from guard.detectors.base import Features
from guard.engine.generation import Generation
from guard.engine.memo import Memo
from guard.engine.release import Report
from guard.errors import GuardError
from guard.model.client import Client
from guard.model.exchange import Call, Reply
from guard.model.ledger import Charge, Receipt
from guard.model.prediction import Answer
from guard.policy.detection import RungAction, Step
from guard.policy.plan import RoutePlan
from guard.ports import Stream, Trace, Upstreams
from guard.proxy.identity_certificate import Certificate
from guard.proxy.plans import Active
from guard.proxy.watched import Watched
from guard.telemetry.metrics import RouteMetrics
from guard.wire.base import Endpoint, Reading


class Events(Protocol):
    """The body of an answer in events, piece by piece."""

    def __aiter__(self) -> Self:
        """Return itself."""
        ...

    async def __anext__(self) -> bytes:
        """Return what leaves next, when it leaves."""
        ...

    def cut(self) -> bytes:
        """Return what ends the answer for a client that still listens when Guard shuts down."""
        ...

    async def aclose(self) -> None:
        """Settle budgets, let go of upstream and record the request.

        Whoever has been given the response calls it, however far the answer came; harmless twice.
        """
        ...


@dataclass(slots=True)
class Response:
    """What the client gets.

    Args:
        status: HTTP status.
        headers: names lower case, Content-Length included.
        body: the whole body; empty of an answer in events.
        events: the body of an answer in events; None for a whole one.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    events: Events | None = None


@dataclass(slots=True)
class Exchange:
    """One request on its way; each phase reads what the ones before left and adds its own.

    `id` names the request in logs, the audit log and `x-request-id`: the client's own where it sent a plain one.
    `certificate` is what the client's verified certificate says, for `identity: client_certificate`. `upstream` is who
    is asked in place of the handler's own (gRPC); `stream` is a reply in events, of which only the head is there.
    `beside` is what budgets in shadow were charged; `added_s` is what Guard took for a stream so far.
    """

    active: Active
    route: RoutePlan
    endpoint: Endpoint
    metrics: RouteMetrics
    call: Call
    method: bytes
    peer: str
    began_s: float
    now_s: float
    id: str = ""
    certificate: Certificate | None = None
    upstream: Upstreams | None = None
    stream: Stream | None = None
    generation: Generation | None = None
    trace: Trace | None = None
    client: Client | None = None
    reading: Reading | None = None
    body: bytes = b""
    floors: Mapping[str, int] = field(default_factory=dict[str, int])
    readings: Mapping[str, float] = field(default_factory=dict[str, float])
    charges: tuple[Charge, ...] = ()
    receipt: Receipt | None = None
    beside: tuple[tuple[Charge, ...], Receipt] | None = None
    labels_only: bool = False
    watched: Watched | None = None
    features: list[Features] = field(default_factory=list[Features])
    action: RungAction | None = None
    step: Step | None = None
    memo: Memo | None = None
    remembered: bool = False
    reply: Reply | None = None
    replies: tuple[Reply | None, ...] = ()
    answers: list[Answer | None] | None = None
    answer: Answer | None = None
    report: Report | None = None
    response: Response | None = None
    upstream_s: float = 0.0
    added_s: float = 0.0
    rows: int = 1
    error: GuardError | None = None
