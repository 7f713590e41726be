"""TensorFlow Serving's REST API: predict by rows or by columns, classify, regress."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import encode, unreadable
from guard.wire.columnar_answers import read_columnar
from guard.wire.features import Column, join, split
from guard.wire.instances import Instances, canonical, may_hold_base64, read_instances
from guard.wire.listed_answers import Document, read_document, read_listed, read_ranked
from guard.wire.request_members import forwarded, json_object, known_members

Json = dict[str, object]
Verb = Literal["predict", "classify", "regress"]
_MEMBERS: dict[Verb, frozenset[str]] = {
    "predict": frozenset({"signature_name", "instances", "inputs"}),
    "classify": frozenset({"signature_name", "context", "examples"}),
    "regress": frozenset({"signature_name", "context", "examples"}),
}
_SIGNATURES: dict[Verb, frozenset[str]] = {
    "predict": frozenset({"serving_default"}),
    "classify": frozenset({"serving_default", "tensorflow/serving/classify", "classify", "classification"}),
    "regress": frozenset({"serving_default", "tensorflow/serving/regress", "regress", "regression"}),
}
"""Signatures that a client may choose under `fields: known`; another may answer logits or a hidden layer."""
_RESULTS = ("result", "results")
"""The documentation says one, the server writes the other."""
_PLACES = ("", "/versions/{version}", "/labels/{label}")

ENDPOINTS = (
    *(Endpoint("POST", f"/v1/models/{{model}}{place}:{verb}") for place in _PLACES for verb in _MEMBERS),
    *(Endpoint("GET", f"/v1/models/{{model}}{place}", "status") for place in _PLACES),
    *(Endpoint("GET", f"/v1/models/{{model}}{place}/metadata", "closed") for place in _PLACES),
    Endpoint("GET", "/monitoring/prometheus/metrics", "closed"),
)


@dataclass(slots=True)
class _Request:
    verb: Verb
    document: Json
    member: str
    instances: Instances


@dataclass(frozen=True)
class TensorFlowServing:
    """Codec of TensorFlow Serving's REST API.

    Args:
        reader: what the route lets out.
    """

    name: ClassVar[str] = "tensorflow_serving"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = field(default=ENDPOINTS, repr=False)

    def read(self, call: Call) -> Reading:
        """Decode a request: a row is an instance, an example, or one step along the first dimension of all inputs."""
        verb = _verb(call.path)
        decoded = json_object(call)
        document = known_members(decoded, _MEMBERS[verb], self.reader.fields, "the request")
        signature = document.get("signature_name", "serving_default")
        if not isinstance(signature, str) or (self.reader.fields == "known" and signature not in _SIGNATURES[verb]):
            raise ClientError("signature_name is not one that is open", code="signature_closed", path="signature_name")
        body = forwarded(call.body, document, whole=len(document) == len(decoded))
        request = _read_predict(document, call.body) if verb == "predict" else _read_examples(verb, document, call.body)
        return Reading(request.instances.queries, body, document=request)

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the request with snapped numbers, in the form that they had; a context moves into its examples."""
        request = cast("_Request", reading.document)
        instances = request.instances
        document = {key: value for key, value in request.document.items() if key != "context"}
        if request.member != "inputs":
            return encode({**document, request.member: instances.written(snapped)})
        shares = split(instances.columns, snapped)
        written = {column.name: column.written(shares[column.name]) for column in instances.columns}
        return encode({**document, "inputs": written if instances.named else written["inputs"]})

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode an answer of the verb that was asked."""
        request = cast("_Request", reading.document)
        known = {"predictions"} if request.member == "instances" else {"outputs"}
        document = read_document(reply, known if request.verb == "predict" else set(_RESULTS), self.reader)
        answer = Answer(reading.queries.rows, document, dropped=document.dropped)
        if request.verb == "predict":
            if request.member == "instances":
                read_listed("predictions", self.reader, answer)
            else:
                read_columnar("outputs", self.reader, answer)
            return answer
        present = [name for name in _RESULTS if name in document.members]
        if len(present) != 1:
            raise unreadable("it holds no result")
        (read_ranked if request.verb == "classify" else read_listed)(present[0], self.reader, answer)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer; NaN stays bare where the upstream wrote it bare."""
        document = cast("Document", answer.document)
        return b"application/json", encode(document.members, bare_nan=document.bare_nan)

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": "..."}`, as TensorFlow Serving answers."""
        return b"application/json", encode({"error": error.message})


def _verb(path: str) -> Verb:
    verb = path.rpartition(":")[2]
    return verb if verb in ("classify", "regress") else "predict"


def _read_predict(document: Json, body: bytes) -> _Request:
    if ("instances" in document) == ("inputs" in document):
        raise ClientError("the request must have either instances or inputs", path="instances")
    base64 = may_hold_base64(body)
    if "instances" in document:
        return _Request(
            "predict", document, "instances", read_instances(document["instances"], "instances", base64=base64)
        )
    value = canonical(document["inputs"], "inputs") if base64 else document["inputs"]
    named = isinstance(value, dict)
    members = cast("Json", value) if named else {"inputs": value}
    columns: list[Column] = []
    for name, column in members.items():
        place = f"inputs.{name}" if named else "inputs"
        if not isinstance(column, list) or not column:
            raise ClientError(f"{place} must be a list of rows", path=place)
        columns.append(Column(name, cast("list[object]", column), partial(_place, place)))
    if len({len(column.members) for column in columns}) != 1:
        raise ClientError("the inputs do not agree on the number of rows", path="inputs")
    rows = len(columns[0].members)
    queries = join(columns, rows, "inputs") if named else Queries(rows, columns[0].members, place=columns[0].at)
    return _Request("predict", document, "inputs", Instances(queries, columns, named))


def _read_examples(verb: Verb, document: Json, body: bytes) -> _Request:
    """Read examples: objects of features, each a scalar or a list; those of the context belong to every example."""
    context, examples = document.get("context", {}), document.get("examples")
    if not isinstance(context, dict):
        raise ClientError("context must be an object", path="context")
    if not isinstance(examples, list):
        raise ClientError("examples must be a list of rows", path="examples")
    shared = cast("Json", context)
    rows: list[Json] = []
    for i, example in enumerate(cast("list[object]", examples)):
        if not isinstance(example, dict) or not shared.keys().isdisjoint(cast("Json", example)):
            raise ClientError(f"examples[{i}] must be an object of features", path=f"examples[{i}]")
        # A feature of one value may be written with or without brackets.
        rows.append({key: _bare(value) for key, value in {**shared, **cast("Json", example)}.items()})
    return _Request(verb, document, "examples", read_instances(rows, "examples", base64=may_hold_base64(body)))


def _bare(value: object) -> object:
    if isinstance(value, list):
        members = cast("list[object]", value)
        return members[0] if len(members) == 1 else members
    return value


def _place(member: str, row: int) -> str:
    return f"{member}[{row}]"
