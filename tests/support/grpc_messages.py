"""Messages of Open Inference over gRPC for tests: requests and answers, typed and raw, and what stands in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from guard.errors import GuardError
from guard.wire import open_inference_messages as messages
from guard.wire.grpc_tensors import put, put_typed
from guard.wire.raw_tensors import cast_numbers, pack_bytes, unpack, unpack_bytes


def data_of(values: object, datatype: str) -> bytes:
    """Return members, numbers or texts, as the protocol's bytes."""
    if datatype == "BYTES":
        found = [item if isinstance(item, bytes) else str(item).encode() for item in np.array(values, object).ravel()]
        return pack_bytes(found)
    return cast_numbers(np.array(values, np.float64), datatype).tobytes()


def request(
    *inputs: tuple[str, str, object],
    raw: bool = True,
    model: str = "m",
    version: str = "",
    id_: str = "",
    outputs: dict[str, dict[str, object]] | None = None,
    parameters: dict[str, object] | None = None,
) -> bytes:
    """Return a serialised request.

    Args:
        inputs: (name, datatype, nested lists of members).
        raw: members stand behind the tensors; otherwise typed in them.
        model: its name.
        version: its version.
        id_: of the request.
        outputs: parameters of the outputs asked for, by name.
        parameters: of the request.
    """
    made: Any = messages.infer_request(b"")
    made.model_name, made.model_version, made.id = model, version, id_
    _put(made, inputs, made.inputs, made.raw_input_contents, raw)
    for name, asked in (outputs or {}).items():
        output = made.outputs.add()
        output.name = name
        for key, value in asked.items():
            put(output.parameters[key], value)
    for key, value in (parameters or {}).items():
        put(made.parameters[key], value)
    return made.SerializeToString()


def answer(*outputs: tuple[str, str, object], raw: bool = True, id_: str = "") -> bytes:
    """Return a serialised answer; arguments as for `request`."""
    made: Any = messages.new_response()
    made.model_name, made.model_version, made.id = "m", "1", id_
    _put(made, outputs, made.outputs, made.raw_output_contents, raw)
    return made.SerializeToString()


def _put(made: Any, tensors: tuple[tuple[str, str, object], ...], places: Any, behind: Any, raw: bool) -> None:
    for name, datatype, values in tensors:
        tensor = places.add()
        tensor.name, tensor.datatype = name, datatype
        tensor.shape.extend(np.array(values, object).shape)
        if raw:
            behind.append(data_of(values, datatype))
        else:
            put_typed(tensor.contents, data_of(values, datatype), datatype, list(tensor.shape), GuardError)


def asked(body: bytes) -> Any:  # Any: the library's message
    """Return a request, read."""
    made = messages.infer_request(body)
    assert made is not None
    return made


def told(body: bytes) -> Any:  # Any: the library's message
    """Return an answer, read."""
    made = messages.infer_response(body)
    assert made is not None
    return made


def output(body: bytes, name: str) -> list[object]:
    """Return the members of an answer's tensor, flat."""
    message = told(body)
    index = [one.name for one in message.outputs].index(name)
    tensor = message.outputs[index]
    if not len(message.raw_output_contents):
        return [item for _, field in tensor.contents.ListFields() for item in field]
    data = message.raw_output_contents[index]
    if tensor.datatype == "BYTES":
        return list[object](unpack_bytes(data, list(tensor.shape), GuardError))
    return unpack(data, tensor.datatype, list(tensor.shape), GuardError).tolist()
