"""Arrays and nulls as JSON values, and back, trusting nothing: what profiles and the shipped null are written in.

An array is `{"dtype": "<f8", "shape": [2, 3], "data": base64 of little-endian bytes}`. No pickles, no objects.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy import typing as npt

from guard.evidence.fit import PROTOTYPES
from guard.evidence.null import Null
from guard.evidence.values import BINS, MOST_SIGNALS, Signal
from guard.model.arrays import Floats, Ints

Array = npt.NDArray[Any]  # Any: arrays of whatever type a detector keeps
DTYPES = ("<f8", "<f4", "<i8", "<i4", "<i2", "<u8", "<u4", "<u2", "|u1", "|b1")
MAX_DIMENSIONS = 4
MAX_ITEMS = 2**32
MAX_BETS = 64


class Damaged(ValueError):
    """A value that is not what was written; the message says where."""


def pack(array: Array) -> dict[str, object]:
    """Return an array as a JSON value.

    >>> pack(np.array([1.5]))
    {'dtype': '<f8', 'shape': [1], 'data': 'AAAAAAAA+D8='}
    """
    # A scalar has no bytes of its own order, hence the copy in C order.
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if little.dtype.str not in DTYPES:
        raise ValueError(f"arrays of type {array.dtype} are not kept")
    data = b64encode(little.tobytes()).decode("ascii")
    return {"dtype": little.dtype.str, "shape": list(array.shape), "data": data}


def unpack(value: object, path: str) -> Array:
    """Read an array; it has no NaN in it.

    Args:
        value: what `pack` returned.
        path: of the value, for messages.

    Raises:
        Damaged: it is not an array, or its bytes do not fit its shape.
    """
    found = mapping(value, path)
    dtype, shape, text = found.get("dtype"), found.get("shape"), found.get("data")
    if dtype not in DTYPES or not isinstance(shape, list) or not isinstance(text, str):
        raise Damaged(f"{path} is not an array")
    sizes = cast("list[object]", shape)
    if len(sizes) > MAX_DIMENSIONS or not all(type(size) is int and 0 <= size < 2**31 for size in sizes):
        raise Damaged(f"{path} has no shape")
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        raise Damaged(f"{path} is not base64") from error
    kind = np.dtype(cast("str", dtype))
    expected = math.prod(cast("list[int]", sizes), start=kind.itemsize)
    # An empty array's other sizes are nobody's memory, but numpy cannot count beyond 2**63.
    if expected != len(data) or math.prod(max(1, size) for size in cast("list[int]", sizes)) > MAX_ITEMS:
        raise Damaged(f"{path} has {len(data)} bytes for {expected}")
    if kind.kind == "b" and data.strip(b"\x00\x01"):
        raise Damaged(f"{path} holds no truth values")
    array = np.frombuffer(data, dtype=kind).reshape(cast("list[int]", sizes)).astype(kind.newbyteorder("="))
    if kind.kind == "f" and np.isnan(array).any():
        raise Damaged(f"{path} holds a NaN")
    return array


def mapping(value: object, path: str) -> Mapping[str, object]:
    """Return a JSON object.

    Raises:
        Damaged: it is something else.
    """
    if not isinstance(value, dict):
        raise Damaged(f"{path} is missing")
    return cast("dict[str, object]", value)


def floats(value: object, path: str, *shape: int | None, finite: bool = True) -> Floats:
    """Read an array of floats of a shape; None stands for any size.

    Raises:
        Damaged: it is something else.
    """
    array = _shaped(value, path, shape)
    if array.dtype.kind != "f":
        raise Damaged(f"{path} holds no floats")
    if finite and not np.isfinite(array).all():
        raise Damaged(f"{path} holds an infinite number")
    return array.astype(np.float64)


def ints(value: object, path: str, *shape: int | None) -> Ints:
    """Read an array of whole numbers, at least 0, of a shape; None stands for any size.

    Raises:
        Damaged: it is something else.
    """
    array = _shaped(value, path, shape)
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >= 2**31)):
        raise Damaged(f"{path} holds no whole numbers")
    return array.astype(np.int64)


def _shaped(value: object, path: str, shape: tuple[int | None, ...]) -> Array:
    array = unpack(value, path)
    if array.ndim != len(shape) or any(w is not None and w != h for w, h in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise Damaged(f"{path} has shape {list(array.shape)} for [{wanted}]")
    return array


def pack_null(null: Null, dtype: str = "<f8") -> Mapping[str, object]:
    """Return a null as a JSON value; numbers are kept as `dtype`."""
    arrays = {
        "edges": null.edges,
        "prototypes": null.prototypes,
        "log_weights": null.log_weights,
        "log_bets": null.log_bets,
        "mean": null.mean,
    }
    return {"signals": [list(signal) for signal in null.signals]} | {
        name: pack(array.astype(dtype)) for name, array in arrays.items()
    }


def unpack_null(value: object) -> Null:
    """Read a null.

    Raises:
        Damaged: it is not one.
    """
    found = mapping(value, "null")
    signals = tuple(_signals(found.get("signals")))
    s = len(signals)
    prototypes = floats(found.get("prototypes"), "null.prototypes", s, None, BINS)
    count = prototypes.shape[1]
    edges = floats(found.get("edges"), "null.edges", s, BINS - 1, finite=False)
    weights = floats(found.get("log_weights"), "null.log_weights", s, count, finite=False)
    bets = floats(found.get("log_bets"), "null.log_bets", s, None, BINS, finite=False)
    mean = floats(found.get("mean"), "null.mean", s, BINS)
    if not 1 <= count <= PROTOTYPES or not 1 <= bets.shape[1] <= MAX_BETS:
        raise Damaged("null has too many or no prototypes or bets")
    if not (prototypes > 0).all() or prototypes.max(initial=1.0) > 1e9:
        raise Damaged("null.prototypes holds a count that is none")
    # inf - inf is NaN, so neighbours are compared and not subtracted.
    if (edges[:, 1:] < edges[:, :-1]).any() or np.isneginf(edges).any():
        raise Damaged("null.edges do not ascend")
    if weights.max(initial=-np.inf) > 1e-6 or bets.max(initial=-np.inf) > 1e-6:
        raise Damaged("null holds a logarithm of a share above 1")
    if not np.allclose(np.exp(weights).sum(axis=1), 1.0, atol=1e-3):
        raise Damaged("null.log_weights do not sum to 1")
    if (mean < 0).any() or not np.allclose(mean.sum(axis=1), 1.0, atol=1e-3):
        raise Damaged("null.mean is no distribution")
    try:
        return Null(signals, edges, prototypes, weights, bets, mean)
    except ValueError as error:
        raise Damaged(str(error)) from error


def _signals(value: object) -> list[Signal]:
    if not isinstance(value, list) or not 1 <= len(cast("list[object]", value)) <= MOST_SIGNALS:
        raise Damaged("null.signals are missing or too many")
    found: list[Signal] = []
    for item in cast("list[object]", value):
        words = cast("list[object]", item) if isinstance(item, list) else []
        if len(words) != 3 or not all(isinstance(word, str) and 0 < len(word) <= 64 for word in words):
            raise Damaged("null.signals holds something else")
        name, detector, tier = cast("list[str]", words)
        if tier not in ("structure", "distribution"):
            raise Damaged(f"null.signals has the tier {tier}")
        found.append(Signal(name, detector, tier))
    if len({signal.name for signal in found}) < len(found):
        raise Damaged("null.signals has a name twice")
    return found
