"""Triton's binary tensor data extension: raw tensors behind the JSON of a request or an answer.

`Inference-Header-Content-Length: N` says that the first N bytes of the body are JSON. Every tensor in it that has
`parameters.binary_data_size` instead of `data` has that many bytes behind the JSON, in the tensors' order, and nothing
else stands there. Once read, such a tensor has its bytes as `data`, as a tensor of JSON has its list, so that all that
comes after knows one place; `packed` takes them out again. What is forwarded is always written anew: JSON of which
all was read, and sizes that are true.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import cast

from guard.wire.body import encode
from guard.wire.raw_tensors import DTYPES, Buffer, Fail, is_raw, unpack, unpack_bytes
from guard.wire.tensors import dimensions

Json = dict[str, object]
Headers = Sequence[tuple[bytes, bytes]]
HEADER = b"inference-header-content-length"
CONTENT_TYPE = b"application/octet-stream"
SIZE = "binary_data_size"
_MAX_DIGITS = 12
_RAW_TENSOR = frozenset({"name", "shape", "datatype", "parameters"})


def parted(headers: Headers, body: bytes, fail: Fail) -> tuple[bytes, memoryview]:
    """Return (the JSON, the tensors behind it) of a body whose headers say where the JSON ends.

    Raises:
        GuardError: what `fail` makes: the header is there twice, is no number, or is 0 or beyond the body.
    """
    lengths = [value.strip() for name, value in headers if name == HEADER]
    digits = lengths[0] if len(lengths) == 1 else b""
    end = int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else 0
    if not 0 < end <= len(body):
        raise fail("Inference-Header-Content-Length does not say where the JSON ends")
    return body[:end], memoryview(body)[end:]


def only_tensor(document: Json, rest: memoryview) -> Json | None:
    """Return a request's tensor, bytes attached, when it is the only one and the request says nothing unusual.

    The quick way of the plainest request there is: None sends any other the slow way.
    """
    inputs, more = document.get("inputs"), len(document) - 1
    if type(inputs) is not list or len(cast("list[object]", inputs)) != 1:
        return None
    if more and type(document.get("id")) is str:
        more -= 1
    parameters = document.get("parameters")
    if more and type(parameters) is dict and len(cast("Json", parameters)) == 1:
        more -= type(cast("Json", parameters).get("binary_data_output")) is bool
    tensor = cast("list[object]", inputs)[0]
    if more or type(tensor) is not dict or cast("Json", tensor).keys() != _RAW_TENSOR:
        return None
    found = cast("Json", tensor)
    sizes = found["parameters"]
    if sizes != {SIZE: len(rest)} or type(cast("Json", sizes)[SIZE]) is not int or type(found["name"]) is not str:
        return None
    return {**found, "data": rest}


def attach(tensors: object, rest: memoryview, fail: Fail) -> bool:
    """Put the bytes behind the JSON into the tensors that they belong to, in place; says whether any does.

    Args:
        tensors: the decoded member `inputs` or `outputs`; what is no tensor in it is left to whoever reads it.
        rest: all bytes behind the JSON.
        fail: makes the error.

    Raises:
        GuardError: what `fail` makes: a size that is none, too few bytes, or bytes that belong to no tensor.
    """
    at, found = 0, False
    for i, item in enumerate(cast("list[object]", tensors) if isinstance(tensors, list) else ()):
        parameters = cast("Json", item).get("parameters") if isinstance(item, dict) else None
        if not isinstance(parameters, dict) or SIZE not in parameters:
            continue
        tensor, size = cast("Json", item), cast("Json", parameters).pop(SIZE)
        if type(size) is not int or not 0 <= size <= len(rest) - at:
            raise fail(f"the {SIZE} of tensor {i} is not the size of what stands behind the JSON")
        if "data" in tensor:
            raise fail(f"tensor {i} has both data and {SIZE}")
        tensor["data"] = rest[at : at + size]
        at, found = at + size, True
    if at != len(rest):
        raise fail("bytes behind the JSON belong to no tensor")
    return found


def as_asked(asked: Json, outputs: list[object], fail: Fail) -> None:
    """Make JSON, in place, of tensors that came as bytes although the request did not ask for bytes.

    A remembered release may have been asked for in another form.

    Args:
        asked: the request.
        outputs: the answer's tensors.
        fail: makes the error.

    Raises:
        GuardError: what `fail` makes: a tensor is not what it says.
    """
    every = _parameters(asked).get("binary_data_output")
    if every and "outputs" not in asked:
        return
    named = {output["name"]: _parameters(output) for output in cast("list[Json]", asked.get("outputs", []))}
    for output in [cast("Json", output) for output in outputs if isinstance(output, dict)]:
        data, datatype, shape = output.get("data"), output.get("datatype"), dimensions(output.get("shape"), 0)
        if not is_raw(data) or shape is None or not isinstance(datatype, str):
            continue
        name = output.get("name")
        if (named.get(name, {}) if isinstance(name, str) else {}).get("binary_data", every):
            continue
        if datatype == "BYTES":
            with contextlib.suppress(UnicodeDecodeError):
                output["data"] = [text.decode() for text in unpack_bytes(cast("Buffer", data), shape, fail)]
        elif datatype in DTYPES:
            output["data"] = unpack(cast("Buffer", data), datatype, shape, fail).tolist()


def _parameters(owner: Json) -> Json:
    return cast("Json", owner.get("parameters") or {})


def packed(document: Json, name: str, *, bare_nan: bool = False) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return (body, the header that it needs) of a document whose tensors `name` may hold bytes; no header for none.

    >>> packed({"inputs": [{"name": "x", "data": b"ab"}]}, "inputs")[0]
    b'{"inputs":[{"name":"x","parameters":{"binary_data_size":2}}]}ab'
    """
    payloads: list[Buffer] = []
    tensors: list[Json] = []
    for tensor in cast("list[Json]", document[name]):
        data = tensor.get("data")
        if not is_raw(data):
            tensors.append(tensor)
            continue
        payloads.append(cast("Buffer", data))
        rest = {**tensor, "parameters": {**_parameters(tensor), SIZE: len(payloads[-1])}}
        del rest["data"]
        tensors.append(rest)
    head = encode({**document, name: tensors}, bare_nan=bare_nan)
    if not payloads:
        return head, ()
    return b"".join([head, *payloads]), ((HEADER, b"%d" % len(head)),)
