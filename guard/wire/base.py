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
from typing import ClassVar, Literal, Protocol

from guard.errors import GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.model.queries import Queries

Fields = Literal["known", "all"]
Access = Literal["scoring", "status", "closed"]


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
    """

    queries: Queries
    body: bytes
    content_type: bytes = b"application/json"
    document: object = None


@dataclass(frozen=True, slots=True)
class Reader:
    """What a codec needs to know of the route to read an answer.

    Args:
        outputs: the declared kind of scores.
        fields: `known` lets out only what the API defines and the declared scores; `all` keeps unknown members and
            refuses a floating tensor that is not of the declared kind.
        select: RFC 9535 paths for `api: json`, by name (`queries`, `scores`, `labels`).
    """

    outputs: Outputs
    fields: Fields = "known"
    select: Mapping[str, str] = field(default_factory=dict[str, str])


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
