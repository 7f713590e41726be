"""Input tensors of the Open Inference protocol: shapes, data nested, flat or raw, in the client's own form."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from typing import cast

import numpy as np

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.model.nested import flatten
from guard.model.queries import Queries
from guard.wire.raw_tensors import FLOATING, Buffer, Numbers, cast_numbers, is_raw, matrix, unpack, unpack_bytes

__all__ = ["FLOATING"]
Json = dict[str, object]
INTEGRAL: frozenset[str] = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
NUMERIC: frozenset[str] = FLOATING | INTEGRAL | {"BOOL"}
COUNTED: frozenset[str] = FLOATING | INTEGRAL
"""Datatypes whose data are numbers in JSON."""
MAX_RANK = 16
"""Most dimensions of a tensor; numpy itself stops at 64."""
NUMBERS: frozenset[type] = frozenset({int, float, bool, type(None)})
"""Types of decoded JSON that a numeric tensor may hold; null is a missing value."""


@dataclass(slots=True)
class Tensor:
    """One input tensor of a request.

    Args:
        name: its name.
        datatype: one of the protocol's.
        shape: dimensions, the batch first; each at least 1.
        items: rows * width members in row-major order, or one member (a scalar or nested lists) per row.
        width: members a row when `items` is flat, otherwise 0.
        nested: the client wrote nested lists.
        place: path of the tensor in the request.
        raw: the members in row-major order, of numbers that came as bytes; `items` is empty then.
    """

    name: str
    datatype: str
    shape: list[int]
    items: Sequence[object]
    width: int
    nested: bool
    place: str
    raw: Numbers | None = None

    def size(self) -> int:
        """Return how many features of a row stand in this tensor."""
        return prod(self.shape[1:])

    def at(self, row: int, feature: int) -> str:
        """Return the path of a feature, or of a whole row with feature -1."""
        if not self.nested:
            return f"{self.place}.data" + (f"[{row * prod(self.shape[1:]) + feature}]" if feature >= 0 else "")
        index = np.unravel_index(feature, self.shape[1:]) if feature >= 0 and len(self.shape) > 1 else ()
        return f"{self.place}.data[{row}]" + "".join(f"[{i}]" for i in index)

    def table(self) -> Floats | None:
        """Return the rows as numbers, shape (rows, d); None when they are not complete numbers."""
        if self.raw is not None:
            return matrix(self.raw, self.shape[0])
        return Queries(self.shape[0], self.items, self.width).matrix() if self.datatype in NUMERIC else None

    def queries(self) -> Queries:
        """Return the rows of a request that has no other tensor."""
        if self.raw is None:
            return Queries(self.shape[0], self.items, self.width, place=self.at)
        queries = Queries(self.shape[0], None, place=self.at)
        queries.replace(matrix(self.raw, self.shape[0]))
        return queries

    def rows(self) -> Sequence[object]:
        """Return one member per row."""
        if self.raw is not None:
            numbers = self.raw.view(np.uint8) if self.raw.dtype == np.bool_ else self.raw
            return cast("list[object]", numbers.reshape(self.shape[0], -1).tolist())
        return Queries(self.shape[0], self.items, self.width).row_values()

    def written(self, snapped: Floats) -> object:
        """Return snapped rows, shape (rows, d), as `data` in the form and datatype that the client used."""
        if self.raw is not None:
            return cast_numbers(snapped, self.datatype).tobytes()
        return as_data(snapped, self.datatype, self.shape if self.nested else [-1])


def as_data(numbers: Floats, datatype: str, shape: Sequence[int]) -> object:
    """Return numbers as a tensor's `data`: an array of the datatype's own kind that the JSON encoder writes.

    >>> as_data(np.array([[1.0, 2.0]]), "INT64", [-1])
    array([1, 2])
    """
    if datatype in FLOATING:
        return np.ascontiguousarray(numbers).reshape(shape)
    rounded = np.rint(np.nan_to_num(numbers, nan=0.0))
    if datatype == "BOOL":
        return (rounded != 0.0).reshape(shape).tolist()
    if datatype == "UINT64":
        return np.clip(rounded, 0.0, 2.0**64 - 2048).astype(np.uint64).reshape(shape)
    return np.clip(rounded, -(2.0**63), 2.0**63 - 1024).astype(np.int64).reshape(shape)


def dimensions(shape: object, least: int) -> list[int] | None:
    """Return a shape when it is a list of whole numbers, each at least `least`; otherwise None.

    >>> dimensions([2, 3], 1), dimensions([], 1), dimensions([2, True], 1), dimensions([0], 1)
    ([2, 3], None, None, None)
    """
    if type(shape) is not list:
        return None
    numbers = cast("list[object]", shape)
    if not 0 < len(numbers) <= MAX_RANK:
        return None
    for dimension in numbers:
        if type(dimension) is not int or dimension < least:
            return None
    return cast("list[int]", numbers)


def lists_in(data: list[object], shape: list[int]) -> int:
    """Return how many lists `data` holds when it is nested exactly as `shape` says; 0 when it is not.

    >>> lists_in([[1, 2], [3, 4]], [2, 2]), lists_in([[1, 2], [3]], [2, 2])
    (3, 0)
    """
    if len(data) != shape[0]:
        return 0
    count, level = 1, data
    for depth, dimension in enumerate(shape[1:], 2):
        if set(map(type, level)) != {list}:
            return 0
        rows = cast("list[list[object]]", level)
        if set(map(len, rows)) != {dimension}:
            return 0
        count += len(rows)
        if depth < len(shape):
            level = [item for row in rows for item in row]
    return count


def read_shape(tensor: Json, place: str) -> list[int]:
    """Return the shape of an input tensor, whose datatype and data must be the protocol's.

    Raises:
        ClientError: 400.
    """
    shape = dimensions(tensor.get("shape"), 1)
    if shape is None:
        raise ClientError(f"{place}.shape must be a list of whole numbers, each at least 1", path=f"{place}.shape")
    datatype = tensor.get("datatype")
    if type(datatype) is not str or (datatype != "BYTES" and datatype not in NUMERIC):
        raise ClientError(f"{place}.datatype is not one of the protocol's", path=f"{place}.datatype")
    if not isinstance(tensor.get("data"), list) and not is_raw(tensor.get("data")):
        raise ClientError(f"{place}.data must be a list", path=f"{place}.data")
    return shape


def lists_of(tensor: Json, shape: list[int]) -> int:
    """Return how many lists hold the data, flat or nested as the shape says; 0 when they may not be numbers."""
    data = cast("list[object]", tensor["data"])
    if type(data) is not list or not data or tensor["datatype"] not in COUNTED:
        return 0
    count, first = 1, data[0]
    if isinstance(first, list):
        count = lists_in(data, shape)
    elif len(data) != prod(shape):
        count = 0
    while count and isinstance(first, list):
        first = cast("list[object]", first)[0]
    if count and (tensor["datatype"] == "FP16" or (tensor["datatype"] in INTEGRAL and not _all_int(data))):
        return 0
    kind = type(cast("object", first))
    # Numbers that are all true or false would be read as another query than the same ones written 1 or 0.
    return count if kind is float or kind is int else 0


def counted_tensor(tensor: Json, shape: list[int], place: str) -> Tensor:
    """Return a tensor of numbers that `lists_of` and a count of the body's structure have vouched for."""
    data = cast("list[object]", tensor["data"])
    nested = type(data[0]) is list
    width = 0 if nested else prod(shape[1:])
    return Tensor(cast("str", tensor["name"]), cast("str", tensor["datatype"]), shape, data, width, nested, place)


def read_tensor(tensor: Json, shape: list[int], place: str) -> Tensor:
    """Read a tensor whose data may hold anything.

    Raises:
        ClientError: 400, the data is ragged, of another kind than the datatype or of another size than the shape.
    """
    name, datatype = cast("str", tensor["name"]), cast("str", tensor["datatype"])
    if is_raw(tensor["data"]):
        return _read_raw(tensor, shape, place)
    data = cast("list[object]", tensor["data"])
    found = flatten(data)
    if found is None:
        raise _bad(place, "is ragged or empty")
    items, nested, width = found[0], len(found[1]) > 1, prod(shape[1:])
    if len(items) != prod(shape):
        raise _bad(place, "does not have as many members as its shape says")
    kinds = set(map(type, items))
    if datatype == "BYTES":
        if kinds != {str}:
            raise _bad(place, "must hold strings only")
        return Tensor(name, datatype, shape, _texts(tensor, items, width, place), 0, nested, place)
    if not kinds <= NUMBERS:
        raise _bad(place, "must hold numbers only")
    if bool in kinds:
        # One spelling for a query: true is 1, or else it would be another query to everything that keys on it.
        items = [int(item) if item is True or item is False else item for item in items]
    items = _as_read(items, datatype, place)
    return Tensor(name, datatype, shape, items, width, nested, place)


def _read_raw(tensor: Json, shape: list[int], place: str) -> Tensor:
    """Read a tensor that came as bytes: the same numbers and texts as in JSON are the same query."""
    name, datatype = cast("str", tensor["name"]), cast("str", tensor["datatype"])
    data, fail = cast("Buffer", tensor["data"]), partial(_bad, place)
    if datatype == "BYTES":
        members = [_text(member) for member in unpack_bytes(data, shape, fail)]
        return Tensor(name, datatype, shape, _texts(tensor, members, prod(shape[1:]), place), 0, False, place)
    return Tensor(name, datatype, shape, (), 0, False, place, unpack(data, datatype, shape, fail))


def _text(member: bytes) -> object:
    """Return a text; what is none as something that no text can be."""
    try:
        return member.decode()
    except UnicodeDecodeError:
        return {"bytes": member.decode("latin-1")}


def _texts(tensor: Json, members: Sequence[object], width: int, place: str) -> Sequence[object]:
    """Return rows of the members of a BYTES tensor."""
    if cast("Json", tensor.get("parameters", {})).get("content_type") == "base64":
        members = [decoded(member if isinstance(member, str) else "!", place) for member in members]
    return members if width == 1 else [members[i : i + width] for i in range(0, len(members), width)]


def _all_int(data: list[object]) -> bool:
    found = flatten(data)
    return found is not None and set(map(type, found[0])) == {int}


def _as_read(items: Sequence[object], datatype: str, place: str) -> Sequence[object]:
    """Return numbers as a server reads them into the datatype: what it would cut off must not make another query.

    Raises:
        ClientError: 400, a number that no server can mean: a fraction among whole numbers, 2 for a truth value.
    """
    if datatype == "FP16":
        with np.errstate(over="ignore"):
            return [item if item is None else float(np.float16(cast("float", item))) for item in items]
    if datatype in INTEGRAL or datatype == "BOOL":
        given = (item for item in cast("Sequence[float | None]", items) if item is not None and isfinite(item))
        # What is not finite or missing is left to the domain check, which names its place.
        if any(item % 1 or (datatype == "BOOL" and item not in (0, 1)) for item in given):
            raise _bad(place, f"must hold {datatype} only")
    return items


def decoded(text: str, place: str) -> str:
    """Return the bytes of a base64 text, one character a byte: many spellings of base64 decode to the same bytes.

    Raises:
        ClientError: 400, not base64.

    >>> decoded("QQ==", "x") == decoded("QR==", "x")
    True
    """
    try:
        return b64decode(text, validate=True).decode("latin-1")
    except ValueError:
        raise _bad(place, "is not base64") from None


def _bad(place: str, what: str) -> ClientError:
    return ClientError(f"{place}.data {what}", path=f"{place}.data")
