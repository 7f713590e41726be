"""Hugging Face inference: text and image classification, zero-shot classification and embeddings.

`parameters` may ask for other scores than the policy was written for (`function_to_apply: none` answers logits,
`raw_scores` of the text-embeddings server too). Under `fields: known` only those go through that choose how many labels
come back or how the text is cut; labels to choose from are part of the query.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from guard.wire.row_lists import JsonRows, read_json_rows

_MEMBERS = frozenset({"inputs", "parameters", "options", "truncate", "truncation_direction"})
_HARMLESS = frozenset({"top_k", "return_all_scores", "padding"})
_CUTS = frozenset({"truncation", "truncate", "truncation_direction", "max_length"})
"""How a text is cut: every cut is another query, or else all beginnings of a text would cost one graded answer."""
_PART_OF_QUERY = _CUTS | {"candidate_labels", "hypothesis_template", "multi_label"}
_OPTIONS = frozenset({"use_cache", "wait_for_model", "use_gpu"})
_MEDIA = ("image/", "audio/")
_CLOSED = ("/info", "/metrics", "/docs", "/openapi.json", "/api-doc/openapi.json", "/v1/models")
_CLOSED_POST = (
    "/embed",
    "/embed_all",
    "/embed_sparse",
    "/rerank",
    "/similarity",
    "/tokenize",
    "/decode",
    "/v1/embeddings",
)
Record = dict[str, object]


@dataclass(frozen=True)
class Huggingface:
    """Hugging Face Inference API, inference toolkit and text-embeddings-inference `/predict`.

    Args:
        reader: the route's outputs and fields.
    """

    name: ClassVar[str] = "huggingface"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = (
        Endpoint("POST", "/"),
        Endpoint("POST", "/predict"),
        Endpoint("POST", "/models/{model}"),
        Endpoint("POST", "/models/{owner}/{model}"),
        Endpoint("POST", "/pipeline/{task}/{model}"),
        Endpoint("POST", "/pipeline/{task}/{owner}/{model}"),
        Endpoint("GET", "/health", "status"),
        *(Endpoint("GET", path, "closed") for path in _CLOSED),
        *(Endpoint("POST", path, "closed") for path in _CLOSED_POST),
    )

    def read(self, call: Call) -> Reading:
        """Decode `inputs`: a text, an object, or a list with one of them a row; an image or a sound is one row."""
        if call.content_type.startswith(_MEDIA):
            return Reading(Queries(1, None, opaque=call.body), call.body, call.content_type.encode("latin-1"))
        require_utf8(call)
        if call.content_type not in ("", "application/json"):
            raise ClientError("this API takes application/json", code="unsupported_media_type", status=415)
        body: object = decode_request(call.body)
        if not isinstance(body, dict) or "inputs" not in body:
            raise ClientError("the request must be a JSON object with inputs", code="bad_request", path="inputs")
        document = cast("Record", body)
        rows = read_json_rows(document, "inputs")
        if document["inputs"] is None:
            raise ClientError("inputs is empty", code="no_rows", path="inputs")
        queries = _with_context(rows.queries, self._context(document))
        return Reading(queries, forwardable(call.body, document), document=rows)

    def _context(self, document: Record) -> Record:
        """Return the parameters that are part of the query; refuse those that may reveal more."""
        parameters = _object(document, "parameters")
        options = _object(document, "options")
        if self.reader.fields == "known":
            for member in document.keys() - _MEMBERS:
                raise ClientError(f"{_shown(member)} is not let through", code="unsupported_parameter", path=member)
            for name in parameters.keys() - _HARMLESS - _PART_OF_QUERY:
                raise ClientError(
                    f"{_shown(name)} is not let through",
                    code="unsupported_parameter",
                    path=f"parameters.{_shown(name)}",
                )
            for name in options.keys() - _OPTIONS:
                raise ClientError(
                    f"{_shown(name)} is not let through", code="unsupported_parameter", path=f"options.{_shown(name)}"
                )
        chosen = {**{name: document[name] for name in document.keys() & _CUTS}, **parameters}
        return {name: chosen[name] for name in sorted(chosen.keys() - _HARMLESS) if chosen[name] is not None}

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Put snapped numbers back into `inputs`."""
        return encode(cast("JsonRows", reading.document).written(snapped))

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode lists of label and score, a zero-shot answer, or numbers."""
        value, bare_nan = decode_reply(reply.body)
        answer = Answer(0, None)
        read_json(value, self.reader, answer, reading.queries.rows, bare_nan=bare_nan)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer as JSON."""
        return b"application/json", cast("JsonAnswer", answer.document).encode()

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": message}`."""
        return envelope({"error": error.message})


def _shown(name: str) -> str:
    """Return a client's own member name, if it is short enough to repeat."""
    return name if name.isidentifier() and len(name) <= 40 else "a parameter"


def _object(document: Record, member: str) -> Record:
    value = document.get(member)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ClientError(f"{member} must be an object", code="bad_request", path=member)
    return cast("Record", value)


def _with_context(queries: Queries, context: Mapping[str, object]) -> Queries:
    """Make the parameters that decide the answer as much as the text does a part of every row."""
    if not context:
        return queries
    values: list[object] = [{"inputs": value, "parameters": context} for value in queries.values or ()]
    return Queries(queries.rows, values, place=lambda row, _: queries.place(row, -1))
