"""Members of a request besides the data: which are passed on, which are left out, which are refused.

A parameter may make a server answer something else than the policy was written for (other scores, a place in shared
memory, raw bytes), so under `fields: known` only those whose meaning is known go through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from guard.errors import ClientError
from guard.model.exchange import Call
from guard.wire.base import Fields
from guard.wire.body import decode_request, encode, forwardable

Json = dict[str, object]
_JSON_TYPES = frozenset({"", "application/json", "text/json", "text/plain", "application/x-www-form-urlencoded"})
"""What clients call JSON: nothing at all, or what curl sends by default, too."""
_REQUEST = frozenset({"id", "inputs", "outputs", "parameters"})
_INPUT = frozenset({"name", "shape", "datatype", "data", "parameters"})
_OUTPUT = frozenset({"name", "parameters"})
_CONTENT: Mapping[str, tuple[type, ...]] = {"content_type": (str,)}
_REQUEST_PARAMETERS: Mapping[str, tuple[type, ...]] = {
    **_CONTENT,
    "sequence_id": (int, str),
    "sequence_start": (bool,),
    "sequence_end": (bool,),
    "binary_data_output": (bool,),
}
_OUTPUT_PARAMETERS: Mapping[str, tuple[type, ...]] = {**_CONTENT, "classification": (int,), "binary_data": (bool,)}


def json_object(call: Call, body: bytes | None = None) -> Json:
    """Decode a request, or the part of it that is `body`, that must be a JSON object.

    Raises:
        ClientError: 400, or 415 when it is no JSON and does not say that it is.
    """
    try:
        document = decode_request(call.body if body is None else body)
    except ClientError as error:
        if error.code == "bad_json" and call.content_type not in _JSON_TYPES:
            raise ClientError("the request must be JSON", code="unsupported_media_type", status=415) from None
        raise
    if not isinstance(document, dict):
        raise ClientError("the request must be an object")
    return cast("Json", document)


def known_members(members: Json, known: frozenset[str], fields: Fields, place: str) -> Json:
    """Return the members that may go on: the known ones, under `fields: all` the others too.

    Raises:
        ClientError: 400, a member differs from a known one in case only.
    """
    if members.keys() <= known:
        return dict(members)
    clean: Json = {}
    for key, value in members.items():
        if key not in known:
            if fields == "known":
                continue
            if key.lower() in known:
                # Some servers match names whatever their case, and would read another query than the one charged.
                raise ClientError(f"{place} has a member whose name differs from a known one in case only")
        clean[key] = value
    return clean


def forwarded(body: bytes, document: Json, *, whole: bool) -> bytes:
    """Return the body to forward for a document of which all (`whole`) or some members are left."""
    if whole:
        return forwardable(body, document)
    return encode(document, bare_nan=b"NaN" in body or b"Infinity" in body)


class Members:
    """Goes through a request once.

    Args:
        fields: `known` leaves out what is not known, `all` passes it on.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields: Fields = fields
        self.dropped = False
        """Whether anything was left out, so that the client's bytes cannot be forwarded."""

    def request(self, document: Json) -> Json:
        """Return the request without the members that are left out; its tensors keep their data.

        Raises:
            ClientError: 400 or 415, see `guard.errors`.
        """
        clean = self._known(document, _REQUEST, "the request")
        if not isinstance(clean.get("id", ""), str):
            raise ClientError("id must be a text", path="id")
        self._parameters(clean, _REQUEST_PARAMETERS, "parameters")
        inputs = [self._tensor(item, _INPUT, _CONTENT, f"inputs[{i}]") for i, item in enumerate(_list(clean, "inputs"))]
        _distinct(inputs, "inputs")
        clean["inputs"] = inputs
        if "outputs" in clean:
            outputs = [
                self._tensor(item, _OUTPUT, _OUTPUT_PARAMETERS, f"outputs[{i}]")
                for i, item in enumerate(_list(clean, "outputs"))
            ]
            clean["outputs"] = outputs
            _distinct(outputs, "outputs")
        return clean

    def _tensor(
        self, item: object, known: frozenset[str], parameters: Mapping[str, tuple[type, ...]], place: str
    ) -> Json:
        if not isinstance(item, dict):
            raise ClientError(f"{place} must be an object", path=place)
        clean = self._known(cast("Json", item), known, place)
        if not isinstance(clean.get("name"), str):
            raise ClientError(f"{place}.name must be a text", path=f"{place}.name")
        self._parameters(clean, parameters, f"{place}.parameters")
        return clean

    def _known(self, members: Json, known: frozenset[str], place: str) -> Json:
        clean = known_members(members, known, self._fields, place)
        self.dropped = self.dropped or len(clean) < len(members)
        return clean

    def _parameters(self, owner: Json, known: Mapping[str, tuple[type, ...]], place: str) -> None:
        if "parameters" not in owner:
            return
        value = owner["parameters"]
        if value is None:
            del owner["parameters"]
            self.dropped = True
            return
        if not isinstance(value, dict):
            raise ClientError(f"{place} must be an object", path=place)
        clean: Json = {}
        for key, member in cast("Json", value).items():
            if key not in known:
                _refuse_elsewhere(key, place)
            if key in known and type(member) not in known[key]:
                raise ClientError(f"{place}.{key} is not of the type it must be", path=f"{place}.{key}")
            if key == "classification" and key in known and cast("int", member) < 1:
                raise ClientError(f"{place}.{key} must be at least 1", path=f"{place}.{key}")
            if key in known or self._fields == "all":
                clean[key] = member
            else:
                self.dropped = True
        owner["parameters"] = clean


def _refuse_elsewhere(key: str, place: str) -> None:
    """Refuse parameters that put tensors anywhere but into the body, or move them in it in a way that was not read."""
    lower = key.lower()
    if lower.startswith("shared_memory"):
        raise ClientError("shared memory is not let through", code="shared_memory", path=f"{place}.{key}")
    if lower.startswith("binary_data"):
        raise ClientError(f"{place}.{key} says nothing here", path=f"{place}.{key}")


def _list(members: Json, name: str) -> list[object]:
    value = members.get(name)
    if not isinstance(value, list) or (not value and name == "inputs"):
        raise ClientError(f"{name} must be a list of tensors", path=name)
    return cast("list[object]", value)


def _distinct(tensors: list[Json], name: str) -> None:
    if len({tensor["name"] for tensor in tensors}) != len(tensors):
        raise ClientError(f"two of {name} have the same name", path=name)


def weigh(value: object) -> int:
    """Count the brackets, braces, colons and quotes that JSON needs for a decoded value, closing brackets left out.

    >>> weigh({"a": ["b", 1]})  # { "" : [ ""
    7
    """
    if isinstance(value, str):
        return 2
    if isinstance(value, dict):
        return 1 + sum([3 + weigh(item) for item in cast("Json", value).values()])
    if isinstance(value, list):
        return 1 + sum([weigh(item) for item in cast("list[object]", value)])
    return 0
