"""Open Inference protocol (V2) over REST, tensors of JSON and binary ones: MLServer, KServe, Triton, OpenVINO.

The hot path: a request with one numeric tensor, and an answer with one, cost a few microseconds and touch no element.
What makes that safe is a count: in a body of plain numbers every opening bracket, brace, colon and quote belongs to a
member that was read. If there are more, something else stands in it (a duplicate member, a string among the numbers),
and the slow path looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, cast

import orjson

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer, Prediction, Release
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.binary_tensors import CONTENT_TYPE, HEADER, as_asked, attach, only_tensor, packed, parted
from guard.wire.body import MAX_DEPTH, decode_reply, encode, too_many_rows, unreadable
from guard.wire.columns import holds_floats
from guard.wire.features import join, split
from guard.wire.output_tensors import read_output, read_outputs, simple_scores
from guard.wire.raw_tensors import cast_scores, is_raw
from guard.wire.request_members import Members, forwarded, json_object, weigh
from guard.wire.tensors import COUNTED, Tensor, as_data, counted_tensor, dimensions, lists_of, read_shape, read_tensor

Json = dict[str, object]
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[{:"'))
_TEXTS = ("model_name", "model_version", "id")
_ANSWER_MEMBERS = frozenset({*_TEXTS, "outputs"})
_TENSOR_MEMBERS = frozenset({"name", "shape", "datatype", "data"})
_PLAIN_REQUEST = frozenset({"id", "inputs"})
_FLAT = (-1,)
_PLAIN_WEIGHT = 24
"""Weight of a request with one tensor of flat data and no other member."""
_ID_WEIGHT = 5

ENDPOINTS = (
    Endpoint("POST", "/v2/models/{model}/infer"),
    Endpoint("POST", "/v2/models/{model}/versions/{version}/infer"),
    Endpoint("GET", "/v2/health/live", "status"),
    Endpoint("GET", "/v2/health/ready", "status"),
    Endpoint("GET", "/v2/models/{model}/ready", "status"),
    Endpoint("GET", "/v2/models/{model}/versions/{version}/ready", "status"),
    Endpoint("GET", "/v2", "closed"),
    Endpoint("GET", "/v2/models/{model}", "closed"),
    Endpoint("GET", "/v2/models/{model}/versions/{version}", "closed"),
    Endpoint("POST", "/v2/models/{model}/infer_stream", "closed"),
    Endpoint("POST", "/v2/models/{model}/generate", "closed"),
    Endpoint("POST", "/v2/models/{model}/generate_stream", "closed"),
    Endpoint("POST", "/v2/models/{model}/explain", "closed"),
    Endpoint("GET", "/v2/models/{model}/config", "closed"),
    Endpoint("GET", "/v2/models/{model}/stats", "closed"),
    Endpoint("GET", "/v2/models/stats", "closed"),
    Endpoint("GET", "/v2/models/{model}/trace/setting", "closed"),
    Endpoint("POST", "/v2/models/{model}/trace/setting", "closed"),
    Endpoint("GET", "/v2/trace/setting", "closed"),
    Endpoint("POST", "/v2/trace/setting", "closed"),
    Endpoint("GET", "/v2/logging", "closed"),
    Endpoint("POST", "/v2/logging", "closed"),
    Endpoint("POST", "/v2/repository/index", "closed"),
    Endpoint("POST", "/v2/repository/models/{model}/load", "closed"),
    Endpoint("POST", "/v2/repository/models/{model}/unload", "closed"),
    Endpoint("GET", "/v2/systemsharedmemory/status", "closed"),
    Endpoint("POST", "/v2/systemsharedmemory/region/{region}/register", "closed"),
    Endpoint("POST", "/v2/systemsharedmemory/region/{region}/unregister", "closed"),
    Endpoint("GET", "/v2/cudasharedmemory/status", "closed"),
    Endpoint("POST", "/v2/cudasharedmemory/region/{region}/register", "closed"),
    Endpoint("POST", "/v2/cudasharedmemory/region/{region}/unregister", "closed"),
    Endpoint("GET", "/metrics", "closed"),
    Endpoint("GET", "/v2/docs", "closed"),
)


@dataclass(slots=True)
class _Request:
    document: Json
    tensors: list[Tensor]


@dataclass(slots=True)
class _Reply:
    document: Json
    bare_nan: bool
    binary: bool


@dataclass(frozen=True)
class OpenInference:
    """Codec of the Open Inference protocol; shared memory is refused.

    Args:
        reader: what the route lets out.
    """

    name: ClassVar[str] = "open_inference"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = field(default=ENDPOINTS, repr=False)

    def read(self, call: Call) -> Reading:
        """Decode a request: rows are the first dimension, on which all inputs must agree."""
        if call.header(HEADER) is not None:
            return self._read_binary(call)
        body = call.body
        skeleton = body.translate(None, _NOT_STRUCTURE)
        members = _decode(call, skeleton)
        tensor = _plain_tensor(members, len(skeleton))
        if tensor is None:
            return self._read_any(call, body, members, len(skeleton))
        queries = Queries(tensor.shape[0], tensor.items, tensor.width, place=tensor.at)
        return Reading(queries, body, document=_Request(members, [tensor]))

    def _read_binary(self, call: Call) -> Reading:
        head, rest = parted(call.headers, call.body, ClientError)
        document = json_object(call, head)
        only = only_tensor(document, rest)
        if only is not None:
            shape = read_shape(only, "inputs[0]")
            if shape[0] > call.max_rows:
                raise too_many_rows()
            tensor = read_tensor(only, shape, "inputs[0]")
            text = encode(document)
            body = call.body if text == head else text + rest
            request = _Request(document, [tensor])
            return Reading(tensor.queries(), body, CONTENT_TYPE, request, ((HEADER, b"%d" % len(text)),))
        if not attach(document.get("inputs"), rest, ClientError):
            return self._read_any(call, head, document, -1)
        reading = self._read_any(call, b"", document, -1)
        request = cast("_Request", reading.document)
        bare_nan = b"NaN" in head or b"Infinity" in head
        reading.body, reading.headers = packed(request.document, "inputs", bare_nan=bare_nan)
        reading.content_type = CONTENT_TYPE
        return reading

    def read_document(self, call: Call, document: Json) -> Reading:
        """Decode a request that is a document already, whose tensors may hold bytes; the body is left to the caller.

        Raises:
            ClientError: as `read` does.
        """
        inputs = cast("list[Json]", document["inputs"])
        if document.keys() != _PLAIN_REQUEST or len(inputs) != 1 or inputs[0].keys() != _TENSOR_MEMBERS:
            return self._read_any(call, b"", document, -1)
        shape = read_shape(inputs[0], "inputs[0]")
        if shape[0] > call.max_rows:
            raise too_many_rows()
        tensor = read_tensor(inputs[0], shape, "inputs[0]")
        return Reading(tensor.queries(), b"", document=_Request(document, [tensor]))

    def asked(self, reading: Reading) -> Json:
        """Return a request's document: what is forwarded."""
        return cast("_Request", reading.document).document

    def _read_any(self, call: Call, body: bytes, document: Json, weight: int) -> Reading:
        members = Members(self.reader.fields)
        document = members.request(document)
        inputs = cast("list[Json]", document["inputs"])
        shapes = [read_shape(tensor, f"inputs[{i}]") for i, tensor in enumerate(inputs)]
        if len({shape[0] for shape in shapes}) > 1:
            raise ClientError("the inputs do not agree on the number of rows", path="inputs")
        if shapes[0][0] > call.max_rows and not body:
            raise too_many_rows()
        lists = [lists_of(tensor, shape) for tensor, shape in zip(inputs, shapes, strict=True)]
        plain = False
        if not members.dropped and all(lists):
            rest = {**document, "inputs": [{**tensor, "data": None} for tensor in inputs]}
            plain = weight == weigh(rest) + sum(lists)
        tensors = [
            (counted_tensor if plain else read_tensor)(tensor, shape, f"inputs[{i}]")
            for i, (tensor, shape) in enumerate(zip(inputs, shapes, strict=True))
        ]
        if not plain and body:
            body = forwarded(body, document, whole=not members.dropped)
        only = tensors[0]
        queries = only.queries() if len(tensors) == 1 else join(tensors, only.shape[0], "inputs")
        return Reading(queries, body, document=_Request(document, tensors))

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the request with snapped numbers, each tensor in the form and datatype that it had."""
        body, reading.headers = packed({**self.asked(reading), "inputs": self.moved(reading, snapped)}, "inputs")
        return body

    def moved(self, reading: Reading, snapped: Floats) -> list[Json]:
        """Return the input tensors with snapped numbers, each in the form and datatype that it had."""
        request = cast("_Request", reading.document)
        shares = split(request.tensors, snapped)
        inputs = cast("list[Json]", request.document["inputs"])
        return [
            {**raw, "data": tensor.written(shares[tensor.name])}
            for raw, tensor in zip(inputs, request.tensors, strict=True)
        ]

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode an answer: tensors become columns by name, classification strings become sparse predictions."""
        body, rest = reply.body, None
        for key, value in reply.headers:
            if key == HEADER or (key == b"content-type" and b"octet-stream" in value.lower()):
                body, rest = parted(reply.headers, body, unreadable)
                break
        decoded, bare_nan = decode_reply(body)
        outputs = cast("Json", decoded).get("outputs") if type(decoded) is dict else None
        if type(outputs) is not list or not outputs:
            raise unreadable("it holds no outputs")
        binary = rest is not None and attach(cast("object", outputs), rest, unreadable)
        if binary and isinstance(reading.document, _Request):
            as_asked(reading.document.document, cast("list[object]", outputs), unreadable)
        upstream = cast("Json", decoded)
        answer = self.answer_document(upstream, reading)
        answer.document = _Reply(upstream, bare_nan, binary)
        return answer

    def answer_document(self, upstream: Json, reading: Reading) -> Answer:
        """Decode an answer that is a document already, whose tensors may hold bytes; writes change it.

        Raises:
            UpstreamError: as `answer` does.
        """
        members = cast("list[object]", upstream["outputs"])
        answer = Answer(reading.queries.rows, None)
        if len(members) > 1 or not self._read_simple(members[0], answer):
            tensors = [read_output(member, f"outputs[{i}]") for i, member in enumerate(members)]
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise unreadable("two of its tensors have the same name")
            members = cast("list[object]", read_outputs(tensors, self.reader, answer))
        for member in members:
            self._clean(cast("Json", member), _TENSOR_MEMBERS, answer)
        upstream["outputs"] = members
        self._clean(upstream, _ANSWER_MEMBERS, answer)
        for key in _TEXTS:
            if not isinstance(upstream.get(key), str | None):
                del upstream[key]
        asked = reading.document.document.get("id") if isinstance(reading.document, _Request) else None
        if isinstance(asked, str):
            upstream["id"] = asked  # a remembered answer was another request's
        answer.around = partial(_around, upstream, members)
        return answer

    def _read_simple(self, member: object, answer: Answer) -> bool:
        """Read the plainest answer there is as `read_outputs` would, only quicker; False when it is another."""
        outputs = self.reader.outputs
        found = simple_scores(member, answer.rows, outputs.kind)
        if found is None:
            return False
        name, scores = found
        named = outputs.tensors is not None and name in outputs.tensors
        if outputs.tensors is not None and not named:
            return False
        if not outputs.accepts(scores, complete=True, named=named):
            return False
        raw = cast("Json", member)

        def write(release: Release) -> None:
            if is_raw(raw["data"]):
                raw["data"] = cast_scores(release.scores, cast("str", raw["datatype"])).tobytes()
            else:
                raw["data"] = as_data(release.scores, "FP64", _FLAT)

        answer.predictions.append(Prediction(name, scores, write))
        return True

    def _clean(self, members: Json, known: frozenset[str], answer: Answer) -> None:
        """Leave out what the API does not define, in place; under `all` only what holds floats, which may be scores."""
        if members.keys() <= known:
            return
        for key in [key for key in members if key not in known]:
            value = members[key]
            if self.reader.fields == "all" and not holds_floats(value):
                if isinstance(value, dict) and any(name.startswith("binary_data") for name in cast("Json", value)):
                    raise unreadable("it holds binary tensors")
                continue
            del members[key]
            content_type = cast("Json", value).get("content_type") if isinstance(value, dict) else None
            if key == "parameters" and isinstance(content_type, str):
                members[key] = {"content_type": content_type}
            elif value:
                answer.dropped.append(key)

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer; NaN stays bare where the upstream wrote it bare."""
        reply = cast("_Reply", answer.document)
        if not reply.binary:
            return b"application/json", encode(reply.document, bare_nan=reply.bare_nan)
        body, headers = packed(reply.document, "outputs", bare_nan=reply.bare_nan)
        answer.headers = [*headers]
        return CONTENT_TYPE if headers else b"application/json", body

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": "..."}`, as MLServer, KServe and Triton answer."""
        return b"application/json", encode({"error": error.message})


def _decode(call: Call, skeleton: bytes) -> Json:
    if len(skeleton) <= MAX_DEPTH or skeleton.count(b"[") + skeleton.count(b"{") <= MAX_DEPTH:
        try:
            document = orjson.loads(call.body)
        except orjson.JSONDecodeError:
            return json_object(call)
        if type(document) is dict:
            return cast("Json", document)
    return json_object(call)


def _around(upstream: Json, members: list[object]) -> bytes:
    return encode({**upstream, "outputs": [{**cast("Json", member), "data": None} for member in members]})


def _plain_tensor(document: Json, weight: int) -> Tensor | None:
    """Return the only tensor of a request that holds nothing but numbers; None when anything else stands in it."""
    expected = _PLAIN_WEIGHT
    if len(document) > 1:
        if len(document) > 2 or type(document.get("id")) is not str:
            return None
        expected += _ID_WEIGHT
    inputs = document.get("inputs")
    if type(inputs) is not list or len(cast("list[object]", inputs)) != 1:
        return None
    raw = cast("list[object]", inputs)[0]
    if type(raw) is not dict or len(cast("Json", raw)) != len(_TENSOR_MEMBERS):
        return None
    tensor = cast("Json", raw)
    name, datatype, data = tensor.get("name"), tensor.get("datatype"), tensor.get("data")
    shape = dimensions(tensor.get("shape"), 1)
    if shape is None or type(data) is not list or type(name) is not str:
        return None
    if type(datatype) is not str or datatype not in COUNTED:
        return None
    lists = lists_of(tensor, shape)
    if not lists or weight != expected + lists - 1:
        return None
    return counted_tensor(tensor, shape, "inputs[0]")
