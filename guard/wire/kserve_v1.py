"""KServe's V1 protocol: rows in `instances`, answers in `predictions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import encode
from guard.wire.instances import Instances, may_hold_base64, read_instances
from guard.wire.listed_answers import Document, read_document, read_listed
from guard.wire.request_members import forwarded, json_object, known_members

Json = dict[str, object]
_ROWS = ("instances", "inputs")

ENDPOINTS = (
    Endpoint("POST", "/v1/models/{model}:predict"),
    Endpoint("GET", "/v1/models/{model}", "status"),
    Endpoint("GET", "/", "closed"),
    Endpoint("GET", "/v1/models", "closed"),
    Endpoint("POST", "/v1/models/{model}:explain", "closed"),
    Endpoint("GET", "/metrics", "closed"),
    Endpoint("GET", "/docs", "closed"),
    Endpoint("GET", "/openapi.json", "closed"),
)


@dataclass(slots=True)
class _Request:
    document: Json
    member: str
    instances: Instances


@dataclass(frozen=True)
class KServeV1:
    """Codec of KServe's V1 protocol; explanations are closed.

    Args:
        reader: what the route lets out.
    """

    name: ClassVar[str] = "kserve_v1"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = field(default=ENDPOINTS, repr=False)

    def read(self, call: Call) -> Reading:
        """Decode a request: a row is an item of `instances`, or of `inputs`, which KServe's servers prefer."""
        decoded = json_object(call)
        document = known_members(decoded, frozenset(_ROWS), self.reader.fields, "the request")
        present = [name for name in _ROWS if name in document]
        if len(present) != 1:
            raise ClientError("the request must have instances", path="instances")
        instances = read_instances(document[present[0]], present[0], base64=may_hold_base64(call.body))
        body = forwarded(call.body, document, whole=len(document) == len(decoded))
        return Reading(instances.queries, body, document=_Request(document, present[0], instances))

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the request with snapped numbers, each row in the form that it had."""
        request = cast("_Request", reading.document)
        return encode({**request.document, request.member: request.instances.written(snapped)})

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode `predictions`: numbers, lists of numbers, or objects."""
        document = read_document(reply, {"predictions"}, self.reader)
        answer = Answer(reading.queries.rows, document, dropped=document.dropped)
        read_listed("predictions", self.reader, answer)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer; NaN stays bare where the upstream wrote it bare."""
        document = cast("Document", answer.document)
        return b"application/json", encode(document.members, bare_nan=document.bare_nan)

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": "..."}`, as KServe answers."""
        return b"application/json", encode({"error": error.message})
