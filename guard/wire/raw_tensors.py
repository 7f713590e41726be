"""Raw tensors: little-endian bytes, row-major, without padding, as Triton's binary extension and gRPC carry them.

Sizes are checked against the shape before anything is allocated, and shapes are Python's whole numbers, whose products
do not overflow. Who reads says what a wrong tensor is: a client's mistake, or an answer that cannot be let out.

What is written keeps the order. Rounding to a smaller datatype never turns two numbers round, but makes equal what was
not, and of equal scores the first is the label: so whoever was below the greatest stays below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from struct import Struct
from typing import cast

import numpy as np
from numpy.typing import NDArray

from guard.errors import GuardError
from guard.model.arrays import Bools, Floats

Buffer = bytes | memoryview
Numbers = NDArray[np.generic]
Fail = Callable[[str], GuardError]
"""Makes the error for a clause such as "does not have as many members as its shape says"."""

DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "BOOL": np.dtype("<u1"),
}
"""How one member of a datatype stands; BF16, which numpy does not know, is the upper half of FP32."""
FLOATING: frozenset[str] = frozenset({"FP16", "BF16", "FP32", "FP64"})
_GREATEST: Mapping[str, float] = {
    "FP16": 65504.0,
    "BF16": 2.0**128 - 2.0**120,
    "FP32": 2.0**128 - 2.0**104,
    "FP64": float(np.finfo(np.float64).max),
}
_LENGTH = Struct("<I")


def is_raw(data: object) -> bool:
    """Say whether a tensor's data are bytes; nothing in decoded JSON is."""
    return isinstance(data, memoryview | bytes)


def unpack(data: Buffer, datatype: str, shape: Sequence[int], fail: Fail) -> Numbers:
    """Return the members of a numeric tensor, flat, read-only and where they can be without a copy.

    Args:
        data: the tensor's bytes, all of them.
        datatype: a key of `DTYPES`.
        shape: dimensions, each at least 0.
        fail: makes the error.

    Returns:
        Shape (product of `shape`,), in the datatype's own kind: BF16 as float32, BOOL as bool.

    Raises:
        GuardError: what `fail` makes: another size than the shape says, or a truth value that is neither 0 nor 1.

    >>> unpack(bytes([0, 0, 128, 63]), "FP32", [1, 1], ValueError)
    array([1.], dtype=float32)
    """
    dtype = DTYPES[datatype]
    if len(data) != prod(shape) * dtype.itemsize:
        raise fail("does not have as many bytes as its shape says")
    found = np.frombuffer(data, dtype)
    if datatype == "BF16":
        return (found.astype("<u4") << 16).view("<f4")
    if datatype == "BOOL":
        if found.size and int(cast("int", found.max())) > 1:
            raise fail("must hold 0 and 1 only")
        return found.view(np.bool_)
    return found


def unpack_bytes(data: Buffer, shape: Sequence[int], fail: Fail) -> list[bytes]:
    r"""Return the members of a BYTES tensor, each of which stands behind its length.

    Raises:
        GuardError: what `fail` makes: fewer members than the shape says, more, or one that runs over the end.

    >>> unpack_bytes(b"\1\0\0\0a\0\0\0\0", [2], ValueError)
    [b'a', b'']
    """
    count, size = prod(shape), len(data)
    if count * _LENGTH.size > size:
        raise fail("does not have as many members as its shape says")
    found: list[bytes] = []
    whole, at, read = bytes(data), 0, _LENGTH.unpack_from
    for _ in range(count):
        start = at + 4
        if start > size:
            raise fail("does not have as many members as its shape says")
        at = start + read(whole, start - 4)[0]
        if at > size:
            raise fail("holds a member that is longer than the tensor")
        found.append(whole[start:at])
    if at != size:
        raise fail("does not have as many members as its shape says")
    return found


def matrix(members: Numbers, rows: int) -> Floats:
    """Return members as rows of numbers, shape (rows, d), float64, the same for every spelling of a number.

    >>> matrix(np.array([-0.0, 1.0], dtype=np.float32), 2)
    array([[0.],
           [1.]])
    """
    found = members.reshape(rows, -1)
    # argmax is a quick way to NaN, whose many spellings would be as many queries to all that keys on bytes.
    if members.size and (top := cast("float", members.item(members.argmax()))) != top:
        with np.errstate(invalid="ignore"):  # a signalling NaN is one like any other
            found = found.astype(np.float64)
            found[np.isnan(found)] = np.nan
    else:
        found = found.astype(np.float64)
    found += 0.0
    return found


def cast_numbers(numbers: Floats, datatype: str) -> Numbers:
    """Return numbers in a datatype: the nearest that it has, ties to even; BF16 as its bits.

    >>> cast_numbers(np.array([0.4, 300.0, -1.0]), "UINT8"), cast_numbers(np.array([1.0]), "BF16")
    (array([  0, 255,   0], dtype=uint8), array([16256], dtype=uint16))
    """
    dtype = DTYPES[datatype]
    if datatype == "BF16":
        return (_nearest_bf16(numbers).view("<u4") >> 16).astype(dtype)
    if datatype in FLOATING:
        most = _GREATEST[datatype]
        if not numbers.size or (numbers.item(numbers.argmin()) >= -most and numbers.item(numbers.argmax()) <= most):
            return numbers.astype(dtype)
        return np.where(np.isfinite(numbers), numbers.clip(-most, most), numbers).astype(dtype)
    rounded = np.rint(np.nan_to_num(numbers, nan=0.0))
    if datatype == "BOOL":
        return (rounded > 0.0).astype(dtype)
    limits = np.iinfo(cast("np.dtype[np.int64]", dtype).type)
    # The greatest float below 2**63 or 2**64, where the limit itself is none.
    most = float(limits.max) if limits.bits < 64 else np.nextafter(float(limits.max), 0.0)
    return rounded.clip(float(limits.min), most).astype(dtype)


def _nearest_bf16(numbers: Floats) -> NDArray[np.float32]:
    """Round to 8 significant bits at once: rounding to FP32 first would round some numbers twice."""
    _, exponents = np.frexp(numbers)
    steps = np.ldexp(1.0, np.maximum(exponents, -125) - 8)
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.rint(numbers / steps) * steps
    most = _GREATEST["BF16"]
    return np.where(np.isfinite(numbers), found.clip(-most, most), numbers).astype("<f4")


def cast_scores(scores: Floats, datatype: str) -> Numbers:
    """Return released scores, shape (n, k), in a datatype: rounded, and the label of every row still its label.

    Of one score a row, which may be the second of two classes', whoever was below a half stays below.

    >>> cast_scores(np.array([[0.3, 0.3 + 1e-12]]), "FP32")
    array([[0.29999998, 0.3       ]], dtype=float32)
    """
    found = cast_numbers(scores, datatype)
    if datatype == "FP64" or not found.size:
        return found
    written = found if datatype in ("FP16", "FP32") else _values(found, datatype)
    if scores.shape[1] == 1:
        level = (written == 0.5) & (scores < 0.5)
        return _below(found, _values(found, datatype), level) if level.any() else found
    if written.argmax(axis=1).tolist() == scores.argmax(axis=1).tolist():
        return found
    written = _values(found, datatype)
    top, highest = np.fmax.reduce(scores, 1, keepdims=True), np.fmax.reduce(written, 1, keepdims=True)
    first, level = scores == top, (written == highest) & (scores < top)
    moved = level.any(axis=1, keepdims=True)
    if datatype not in FLOATING:
        # Whole numbers: the greatest goes up, or the others down where there is nothing above.
        full = moved & (written >= _most_whole(written, datatype))
        return (found + (moved & first & ~full) - (level & full)).astype(found.dtype)
    # Probabilities do not go below 0: there the greatest goes up.
    up = moved & (highest == 0.0) & (top > 0.0)
    found = _below(found, written, level & ~up)
    _bits(found)[up & first] = 1
    return found


def _values(found: Numbers, datatype: str) -> Floats:
    return matrix((found.astype("<u4") << 16).view("<f4") if datatype == "BF16" else found, len(found))


def _bits(found: Numbers) -> NDArray[np.uint32]:
    return cast("NDArray[np.uint32]", found.view(f"<u{found.dtype.itemsize}"))


def _below(found: Numbers, written: Floats, where: Bools) -> Numbers:
    """Return floating numbers with those at `where` one step lower."""
    found = found.copy()
    bits = _bits(found)
    sign = 1 << (8 * bits.itemsize - 1)
    bits[where] = np.where(written > 0, bits - 1, np.where(written < 0, bits + 1, sign | 1))[where]
    return found


def _most_whole(written: Floats, datatype: str) -> float:
    """Return the greatest number that stays what it is: 1 among truth values and in what may be one."""
    if datatype == "BOOL" or (written.min() >= 0 and written.max() == 1):
        return 1.0
    return float(np.iinfo(cast("np.dtype[np.int64]", DTYPES[datatype]).type).max)


def pack_bytes(members: Iterable[bytes]) -> bytes:
    r"""Return a BYTES tensor.

    >>> pack_bytes([b"a", b""])
    b'\x01\x00\x00\x00a\x00\x00\x00\x00'
    """
    return b"".join([_LENGTH.pack(len(member)) + member for member in members])
