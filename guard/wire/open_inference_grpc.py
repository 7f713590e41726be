"""Open Inference protocol (V2) over gRPC: MLServer, KServe, Triton.

A message is translated to the document that the same request has over HTTP, tensors as bytes, and read by that codec;
what is forwarded and what is answered are messages again, in the form (typed or raw) that they had. They are always
written anew: what no field stands for, in a message or in one inside it, goes to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError, InvariantError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import unreadable
from guard.wire.grpc_tensors import documents, put, put_typed, values
from guard.wire.open_inference import ENDPOINTS, OpenInference
from guard.wire.open_inference_messages import (
    ModelInferRequest,
    Parameters,
    Tensor,
    infer_request,
    infer_response,
    new_response,
)
from guard.wire.raw_tensors import Buffer

Json = dict[str, object]
_STREAMED = "triton_enable_empty_final_response"
_MOST_TENSORS = 1024
"""Of a request or an answer: an empty one takes two bytes on the way and a hundred in memory."""


@dataclass(slots=True)
class GrpcCall(Call):
    """A call whose message was read already, to see which model it asks.

    Args:
        message: the request; None for bytes that are none.
    """

    message: ModelInferRequest | None = None


@dataclass(slots=True)
class _Request:
    message: ModelInferRequest
    raw: bool
    reading: Reading


@dataclass(slots=True)
class _Reply:
    document: Json
    raw: bool


@dataclass(frozen=True)
class OpenInferenceGrpc:
    """Codec of the Open Inference protocol over gRPC; shared memory is refused.

    Args:
        reader: what the route lets out.
    """

    name: ClassVar[str] = "open_inference_grpc"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = field(default=ENDPOINTS, repr=False)

    @cached_property
    def _documents(self) -> OpenInference:
        return OpenInference(self.reader)

    def read(self, call: Call) -> Reading:
        """Decode a request: rows are the first dimension, on which all inputs must agree."""
        message = call.message if isinstance(call, GrpcCall) else infer_request(call.body)
        if message is None:
            raise ClientError("the request is no ModelInferRequest", code="bad_message")
        if max(len(message.inputs), len(message.outputs)) > _MOST_TENSORS:
            raise ClientError("the request has too many tensors", code="too_many_tensors", status=413)
        message.DiscardUnknownFields()
        document: Json = {
            "id": message.id,
            "inputs": documents(message.inputs, message.raw_input_contents, "inputs", ClientError),
        }
        if len(message.parameters):
            document["parameters"] = values(message.parameters)
        if len(message.outputs):
            document["outputs"] = [
                {"name": output.name, "parameters": values(output.parameters)} for output in message.outputs
            ]
        reading = self._documents.read_document(call, document)
        raw = len(message.raw_input_contents) > 0
        _prune(message, self._documents.asked(reading), raw=raw)
        queries = reading.queries
        return Reading(queries, message.SerializeToString(), b"", document=_Request(message, raw, reading))

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the request with snapped numbers, each tensor in the form and datatype that it had."""
        request = _request_of(reading)
        message = request.message
        moved = self._documents.moved(request.reading, snapped)
        if request.raw:
            message.ClearField("raw_input_contents")
            message.raw_input_contents.extend(cast("list[bytes]", [tensor["data"] for tensor in moved]))
        else:
            for written, tensor in zip(message.inputs, moved, strict=True):
                _put_data(written, tensor)
        return message.SerializeToString()

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode an answer: tensors become columns by name, classification strings become sparse predictions."""
        message = infer_response(reply.body)
        if message is None:
            raise unreadable("it is no ModelInferResponse")
        if not 0 < len(message.outputs) <= _MOST_TENSORS:
            raise unreadable("it holds no outputs, or too many")
        document: Json = {
            "model_name": message.model_name,
            "model_version": message.model_version,
            "id": message.id,
            "outputs": documents(message.outputs, message.raw_output_contents, "outputs", unreadable),
        }
        if len(message.parameters):
            document["parameters"] = values(message.parameters)
        answer = self._documents.answer_document(document, _request_of(reading).reading)
        answer.document = _Reply(document, len(message.raw_output_contents) > 0)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Write the answer in the form that it had."""
        reply = cast("_Reply", answer.document)
        message = new_response()
        document = reply.document
        message.model_name = cast("str", document["model_name"])
        message.model_version = cast("str", document["model_version"])
        message.id = cast("str", document["id"])
        _put_all(message.parameters, document)
        for tensor in cast("list[Json]", document["outputs"]):
            written = message.outputs.add()
            written.name, written.datatype = cast("str", tensor["name"]), cast("str", tensor["datatype"])
            written.shape.extend(cast("list[int]", tensor["shape"]))
            _put_all(written.parameters, tensor)
            if reply.raw:
                message.raw_output_contents.append(bytes(cast("Buffer", tensor["data"])))
            else:
                _put_data(written, tensor)
        return b"", message.SerializeToString()

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return nothing: an error is a status and a message, which stand in no body."""
        del error
        return b"", b""


def _request_of(reading: Reading) -> _Request:
    if not isinstance(reading.document, _Request):
        raise InvariantError("this was not read from a message")
    return reading.document


def _prune(message: ModelInferRequest, clean: Json, *, raw: bool) -> None:
    """Leave out the parameters that go to no model, and contents that stand empty beside raw ones."""
    _keep(message.parameters, clean)
    for tensor, kept in zip(message.inputs, cast("list[Json]", clean["inputs"]), strict=True):
        _keep(tensor.parameters, kept)
        if raw:
            tensor.ClearField("contents")
    for output, kept in zip(message.outputs, cast("list[Json]", clean.get("outputs", [])), strict=True):
        _keep(output.parameters, kept)


def _keep(parameters: Parameters, clean: Json) -> None:
    if not len(parameters):
        return
    kept = cast("Json", clean.get("parameters", {}))
    for name in list(parameters):
        # Bytes are this protocol's own form, and the model is asked without a stream: neither says anything to it.
        if name not in kept or name.startswith("binary_data") or name == _STREAMED:
            del parameters[name]


def _put_all(parameters: Parameters, document: Json) -> None:
    for name, value in cast("Json", document.get("parameters", {})).items():
        put(parameters[name], value)


def _put_data(written: Tensor, tensor: Json) -> None:
    datatype, shape = cast("str", tensor["datatype"]), cast("list[int]", tensor["shape"])
    put_typed(written.contents, cast("Buffer", tensor["data"]), datatype, shape, InvariantError)
