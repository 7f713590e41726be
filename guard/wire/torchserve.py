"""TorchServe: any body in, an object of label -> probability out, with no Content-Type.

What a body means is known to the model's handler alone. JSON is one row, unless it is a list of lists (or of objects or
texts), or has `instances` or `data` that are: that is as many rows, and the answer may not have more. Any other body is
one row known by its bytes. Multipart and form bodies are refused (415): their boundaries and escapes are the client's
choice, so that one query would have any number of spellings, each with noise of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import decode_reply, decode_request, encode, forwardable, require_utf8
from guard.wire.json_answers import JsonAnswer, read_json
from guard.wire.problem import envelope
from guard.wire.row_lists import Batch, JsonRows, read_json_rows

_FORMS = ("multipart/", "application/x-www-form-urlencoded")
_MEMBERS: dict[str, Batch] = {"instances": "always", "data": "by_form", "instance": "never"}
_TYPES = {
    400: "BadRequestException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    413: "RequestEntityTooLargeException",
    415: "BadRequestException",
    422: "BadRequestException",
    429: "TooManyRequestsException",
    503: "ServiceUnavailableException",
}


@dataclass(frozen=True)
class Torchserve:
    """TorchServe's inference API.

    Args:
        reader: the route's outputs and fields.
    """

    name: ClassVar[str] = "torchserve"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = (
        Endpoint("POST", "/predictions/{model}"),
        Endpoint("POST", "/predictions/{model}/{version}"),
        Endpoint("PUT", "/predictions/{model}"),
        Endpoint("PUT", "/predictions/{model}/{version}"),
        Endpoint("GET", "/ping", "status"),
        Endpoint("POST", "/explanations/{model}", "closed"),
        Endpoint("POST", "/explanations/{model}/{version}", "closed"),
        Endpoint("GET", "/api-description", "closed"),
        Endpoint("GET", "/metrics", "closed"),
        Endpoint("GET", "/models", "closed"),
        Endpoint("POST", "/models", "closed"),
        Endpoint("GET", "/models/{model}", "closed"),
        Endpoint("PUT", "/models/{model}", "closed"),
        Endpoint("DELETE", "/models/{model}", "closed"),
    )

    def read(self, call: Call) -> Reading:
        """Decode JSON; take anything else as one row of bytes."""
        if call.content_type.startswith(_FORMS):
            raise ClientError("send the query itself, not a form", code="unsupported_media_type", status=415)
        content_type = call.content_type.encode("latin-1", "replace")
        declared = call.content_type == "application/json"
        if declared:
            require_utf8(call)
        # Tried whatever the type says: handlers look at the body, and a partial query must not hide behind a type.
        try:
            body: object = decode_request(call.body)
        except ClientError as error:
            if declared or error.code != "bad_json":
                raise
            if _hidden_json(call.body):
                raise ClientError("JSON must be in UTF-8", code="unsupported_charset", status=415) from None
            return Reading(Queries(1, None, opaque=call.body), call.body, content_type)
        rows = _read(body)
        return Reading(rows.queries, forwardable(call.body, body), content_type, rows)

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Put snapped numbers back in the form that the client chose."""
        return encode(cast("JsonRows", reading.document).written(snapped))

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode an object of label -> score, a list of them, of vectors or of numbers; no Content-Type is needed."""
        value, bare_nan = decode_reply(reply.body)
        answer = Answer(0, None)
        read_json(value, self.reader, answer, reading.queries.rows, bare_nan=bare_nan)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer as JSON."""
        return b"application/json", cast("JsonAnswer", answer.document).encode()

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return TorchServe's `code`, `type` and `message`."""
        kind = _TYPES.get(error.status, "InternalServerException")
        return envelope({"code": error.status, "type": kind, "message": error.message})


def _hidden_json(body: bytes) -> bool:
    """Say whether Python's decoder, which most handlers use, reads JSON that Guard does not: in UTF-16, say."""
    try:
        json.loads(body)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _read(body: object) -> JsonRows:
    record = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    member = next(iter(record), "")
    if len(record) == 1 and member in _MEMBERS:
        return read_json_rows(record, member, _MEMBERS[member])
    return read_json_rows(cast("object", body))
