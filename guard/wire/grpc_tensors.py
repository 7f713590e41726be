"""Between the messages of Open Inference over gRPC and the documents that its JSON decodes to, tensors as raw bytes.

A tensor's members stand raw behind all tensors, or typed inside its own message. Both become the bytes that Triton's
binary extension has in their place, so that one reader of tensors serves all three forms, and the same numbers are the
same query however they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np

from guard.wire.raw_tensors import DTYPES, Buffer, Fail, pack_bytes, unpack, unpack_bytes

if TYPE_CHECKING:
    from guard.wire.open_inference_messages import InferParameter, InferTensorContents, Parameters, Repeated, Tensor

Json = dict[str, object]

_FIELDS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where typed members of a datatype stand; FP16 and BF16 are never typed."""
_WIDE: Mapping[str, str] = {"int_contents": "<i8", "uint_contents": "<i8"}
_INT64 = 2**63
_EMPTY = b""


def documents(tensors: Iterable[Tensor], raw: Repeated[bytes], place: str, fail: Fail) -> list[Json]:
    """Return tensors as documents, each with its name, datatype, shape, parameters if there are any, and bytes.

    Args:
        tensors: the message's.
        raw: what stands behind them: as many as there are tensors, or none.
        place: what the tensors are called, for messages.
        fail: makes the error.

    Raises:
        GuardError: what `fail` makes: members stand in both forms, in another field than the datatype's, or are not as
            many as the shape says.
    """
    made: list[Json] = []
    behind = list(raw)
    for i, tensor in enumerate(tensors):
        made.append({"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)})
        if len(tensor.parameters):
            made[-1]["parameters"] = values(tensor.parameters)
        if not behind:
            made[-1]["data"] = _typed(tensor, f"{place}[{i}]", fail)
        elif tensor.HasField("contents") and tensor.contents.ListFields():
            raise fail(f"{place}[{i}] has contents beside raw contents")
    if not behind:
        return made
    if len(behind) != len(made):
        raise fail(f"raw contents are not as many as {place}")
    for document, data in zip(made, behind, strict=True):
        document["data"] = data
    return made


def values(parameters: Parameters) -> Json:
    """Return parameters by name; None for one without a value."""
    return {name: _value(parameters[name]) for name in parameters}


def _value(parameter: InferParameter) -> object:
    kind = parameter.WhichOneof("parameter_choice")
    return None if kind is None else cast("object", getattr(parameter, kind))


def put(parameter: InferParameter, value: object) -> None:
    """Set a parameter to a value that `values` has returned."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and -_INT64 <= value < _INT64:
        parameter.int64_param = value
    elif isinstance(value, int):
        parameter.uint64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, str):
        parameter.string_param = value


def _typed(tensor: Tensor, place: str, fail: Fail) -> bytes:
    """Return typed members as bytes."""
    datatype = tensor.datatype
    name = _FIELDS.get(datatype)
    found = tensor.contents.ListFields() if tensor.HasField("contents") else []
    if not found or (name is None and datatype not in DTYPES):
        return _EMPTY  # of an unknown datatype: whoever reads the tensor says so
    if name is None or len(found) != 1 or found[0][0].name != name:
        raise fail(f"{place} has contents of another kind than its datatype")
    members = cast("Repeated[float]", found[0][1])
    if len(members) != prod(tensor.shape):
        raise fail(f"{place} does not have as many members as its shape says")
    if datatype == "BYTES":
        return pack_bytes(cast("Iterable[bytes]", members))
    numbers = np.fromiter(members, _WIDE.get(name, DTYPES[datatype]), len(members))
    if name in _WIDE:
        limits = np.iinfo(cast("np.dtype[np.int64]", DTYPES[datatype]).type)
        # What a server would cut off must not be another query than the one that was read.
        if numbers.size and (int(numbers.min()) < limits.min or int(numbers.max()) > limits.max):
            raise fail(f"{place} must hold {datatype} only")
    return numbers.astype(DTYPES[datatype]).tobytes()


def put_typed(contents: InferTensorContents, data: Buffer, datatype: str, shape: list[int], fail: Fail) -> None:
    """Put members, given as bytes, into a tensor's message, in place of what is there.

    Args:
        contents: of the message.
        data: the members.
        datatype: one that can be typed.
        shape: the tensor's.
        fail: makes the error of a tensor whose bytes are not as many as its shape says.
    """
    contents.ClearField(_FIELDS[datatype])
    field = cast("Repeated[object]", getattr(contents, _FIELDS[datatype]))
    if datatype == "BYTES":
        field.extend(unpack_bytes(data, shape, fail))
    else:
        field.extend(cast("list[object]", unpack(data, datatype, shape, fail).tolist()))
