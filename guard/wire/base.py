"""What a codec is: the one file that knows an API.

A codec brings the API's endpoints, reads queries from a request, reads predictions from an answer, writes releases
back in the API's own shape, and speaks its error envelope. It does no I/O and knows no policy but the route's
`Outputs` and `fields`.

Theory of operation. `read` decodes a request once and returns a `Reading`: the queries, and the body to forward. What
is forwarded must be what was read: a body with duplicate members would let the model see another query than the one
that was charged, so `forwardable` re-encodes any body whose members cannot all be accounted for. `answer` decodes the
reply into a document, leaves out what the policy does not let out, and returns the places of scores and labels in it;
the engine writes releases through those places, and `render` encodes the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from guard.errors import GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.parameters import Parameter
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.model.text import Most

Fields = Literal["known", "all"]
Access = Literal["scoring", "status", "closed"]
Framing = Literal["sse", "ndjson"]
"""How events stand in a stream: server-sent events, or one JSON document a line."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of an API.

    Args:
        method: upper case.
        template: path with `{name}` for one segment, such as `/v2/models/{model}/infer`. Matched against the raw path.
        access: `scoring` is guarded, `status` (health, readiness) is forwarded with a clean answer, `closed` is 404 and
            listed only so that docs and messages can name it.
    """

    method: str
    template: str
    access: Access = "scoring"


@dataclass(slots=True)
class Reading:
    """A request, decoded.

    Args:
        queries: what is asked.
        body: what to forward when nothing is snapped: the client's bytes, or a canonical re-encoding of them.
        content_type: Content-Type to forward; empty to forward none.
        document: the codec's own decoded form, for `rewrite` and `answer`.
        headers: request headers to forward beside Content-Type (Inference-Header-Content-Length).
        most: what an answer of generated text may hold; None on an endpoint that answers something else.
        stream: how the answer is asked for in events; None for one whole answer.
    """

    queries: Queries
    body: bytes
    content_type: bytes = b"application/json"
    document: object = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    most: Most | None = None
    stream: Framing | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """What a codec needs to know of the route to read an answer.

    Args:
        outputs: the declared kind of scores.
        fields: `known` lets out only what the API defines and the declared scores; `all` keeps unknown members and
            refuses a floating tensor that is not of the declared kind.
        select: RFC 9535 paths for `api: json`, by name (`queries`, `scores`, `labels`).
        parameters: what happens to a request's parameters, by name.
    """

    outputs: Outputs
    fields: Fields = "known"
    select: Mapping[str, str] = field(default_factory=dict[str, str])
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])


class Codec(Protocol):
    """One API. Frozen: an instance serves all requests of a route."""

    name: ClassVar[str]
    """YAML `api: NAME`."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Everything the API is known to have; what is not listed is closed."""
        ...

    def read(self, call: Call) -> Reading:
        """Decode a request on a scoring endpoint.

        Raises:
            ClientError: 400 when it cannot be read, 415 for a content type or extension that Guard does not guard.
        """
        ...

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the body with the queries replaced by `snapped`, shape (rows, d), everything else as read."""
        ...

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode a 200 reply of a scoring endpoint and leave out what the policy does not let out.

        Raises:
            UpstreamError: code `unreadable_answer`, when it cannot be read or nothing is left to let out.
        """
        ...

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Return (Content-Type or empty, body) of the answer after releases were written into it."""
        ...

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return (Content-Type, body) of the API's own error envelope."""
        ...


class Event(NamedTuple):
    """One event of a stream, as `guard.wire.events` splits it.

    Args:
        data: what it says: the data lines of a server-sent event joined by line feeds, or a line of NDJSON.
        name: the `event:` field of a server-sent event; empty when there is none.
    """

    data: bytes
    name: bytes = b""


@runtime_checkable
class Streams(Protocol):
    """What a codec can do that knows answers in events; every method is called in the events' order.

    A reply belongs to one request, so a codec may keep what it must remember between events in `reading.document`.
    """

    def event(self, event: Event, reading: Reading) -> list[Answer]:
        """Decode one event and leave out what the policy does not let out.

        Args:
            event: of a 200 reply to a request whose reading names a framing.
            reading: the request's.

        Returns:
            What leaves: mostly one answer with pieces, none for an event that is dropped, several where text that waits
            needs an event of its own before this one.

        Raises:
            UpstreamError: code `unreadable_answer`.
        """
        ...

    def write_event(self, answer: Answer) -> bytes:
        """Return the event in the API's own shape, framing included, after releases were put into it.

        Empty when there is nothing left to say.
        """
        ...

    def end(self, reading: Reading, error: GuardError | None) -> bytes:
        """Return what ends the stream the way the API's clients understand, framing included.

        Args:
            reading: the request's.
            error: why it ends before upstream has ended it; None when a filter has ended the answer, whose last event,
                marked by `Piece.filtered`, is out. Not called for a stream that upstream ends by itself.
        """
        ...
