"""Triton's binary tensor data extension, written a second time: plainly, for tests to compare with."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
HEADER = "inference-header-content-length"
_FORMATS = {
    **{"FP16": "e", "FP32": "f", "FP64": "d", "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q"},
    **{"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"},
}


def raw(datatype: str, members: Iterable[Any]) -> bytes:
    """Return the bytes of a tensor."""
    if datatype == "BYTES":
        texts = [member if isinstance(member, bytes) else member.encode() for member in members]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return b"".join(struct.pack(f"<{_FORMATS[datatype]}", member) for member in members)


def members_of(datatype: str, data: bytes) -> list[Any]:
    """Return the members of a tensor, texts decoded."""
    if datatype != "BYTES":
        return list(struct.unpack(f"<{len(data) // struct.calcsize(_FORMATS[datatype])}{_FORMATS[datatype]}", data))
    found: list[str] = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + size].decode())
        assert len(data) >= 4 + size
        data = data[4 + size :]
    return found


def binary(document: Json, member: str = "inputs", *, only: Iterable[str] | None = None) -> tuple[bytes, str]:
    """Return (body, header) of a JSON request or answer whose tensors, or those named in `only`, become raw."""
    tensors: list[Json] = []
    tail = b""
    for tensor in document[member]:
        if only is not None and tensor["name"] not in only:
            tensors.append(tensor)
            continue
        data = raw(tensor["datatype"], np.ravel(np.array(tensor["data"], dtype=object)).tolist())
        rest = {key: value for key, value in tensor.items() if key != "data"}
        tensors.append({**rest, "parameters": {**rest.get("parameters", {}), "binary_data_size": len(data)}})
        tail += data
    head = json.dumps({**document, member: tensors}).encode()
    return head + tail, str(len(head))


def readable(headers: Mapping[str, str], body: bytes, member: str = "outputs") -> bytes:
    """Return a body as JSON alone: raw tensors become lists, and every byte must belong to one."""
    if HEADER not in headers:
        return body
    end = int(headers[HEADER])
    document, rest = json.loads(body[:end]), body[end:]
    for tensor in document[member]:
        size = tensor.get("parameters", {}).pop("binary_data_size", None)
        if size is None:
            continue
        assert "data" not in tensor
        tensor["data"] = members_of(tensor["datatype"], rest[:size])
        assert len(tensor["data"]) == np.prod(tensor["shape"])
        assert tensor.pop("parameters") == {}
        assert size <= len(rest)
        rest = rest[size:]
    assert not rest
    return json.dumps(document).encode()
