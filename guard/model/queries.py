"""What a client asks: rows of features or texts, decoded lazily because many policies never look at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import orjson

from guard.model.arrays import Floats
from guard.model.nested import flatten, floats

_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
_EXACT = 2**53
"""Whole numbers up to here are exact as floats."""


def _plain(value: object) -> object:
    """Write whole numbers as floats, so that 1 and 1.0 give the same bytes."""
    match value:
        case bool():
            return value
        case int():
            return float(value) if -_EXACT <= value <= _EXACT else value
        case float():
            return value + 0.0
        case dict():
            return {key: _plain(item) for key, item in cast("dict[object, object]", value).items()}
        case list() | tuple():
            return [_plain(item) for item in cast("Sequence[object]", value)]
        case _:
            return value


def _bytes_of(value: object) -> bytes:
    """Return canonical bytes of one row: of its numbers, if they are nothing else, as they stand in a matrix."""
    flat = flatten([value])
    # A truth value first among numbers would pass for something else than numbers.
    members = None if flat is None else floats([item + 0 if isinstance(item, bool) else item for item in flat[0]])
    if members is not None:
        return (members + 0.0).tobytes()
    return orjson.dumps(_plain(value), option=_CANONICAL)


def _no_place(row: int, feature: int) -> str:
    return f"row {row}, feature {feature}" if feature >= 0 else f"row {row}"


@dataclass(slots=True)
class Queries:
    """The queries of one request.

    Args:
        rows: how many, at least 1.
        values: the rows as decoded: nested lists of numbers, lists of mappings, texts, or for a flat tensor one list of
            rows * width numbers. None when the body is opaque.
        width: for a flat tensor, numbers per row; 0 when `values` holds one item per row.
        opaque: canonical bytes that stand for the whole body when it has no decoded values.
        names: feature names in order, when the API names them.
        context: canonical bytes of what else the model may look at. The same rows in another context are other queries
            to a budget, but draw the same noise, or members that the model ignores would average it away.
        place: (row, feature) -> path of that member in the request, for messages; feature -1 means the row.
    """

    rows: int
    values: Sequence[object] | None
    width: int = 0
    opaque: bytes = b""
    names: tuple[str, ...] | None = None
    context: bytes = b""
    place: Callable[[int, int], str] = _no_place
    _matrix: Floats | None = field(default=None, repr=False)
    _tried: bool = field(default=False, repr=False)

    def matrix(self) -> Floats | None:
        """Return the rows as numbers, shape (rows, d), float64, nested features flattened.

        None when they are not numbers.

        Missing features (null) are not numbers. Booleans and numeric strings are not numbers either.

        >>> Queries(2, [1, 2, 3, 4], width=2).matrix()
        array([[1., 2.],
               [3., 4.]])
        >>> Queries(1, [["a"]]).matrix() is None
        True
        """
        if not self._tried:
            self._tried = True
            self._matrix = self._to_matrix()
        return self._matrix

    def _to_matrix(self) -> Floats | None:
        if self.values is None:
            return None
        flat = flatten(self.values)
        array = None if flat is None else floats(flat[0])
        if array is None or array.size == 0 or array.size % self.rows:
            return None
        # Adding 0.0 turns -0.0 into 0.0, which compare equal but differ in bytes.
        return array.reshape(self.rows, -1).astype(np.float64) + 0.0

    def replace(self, snapped: Floats) -> None:
        """Take snapped rows, shape (rows, d), in place of what was read.

        Noise, budgets and detectors see only these.
        """
        self._matrix, self._tried = snapped, True

    def part(self, first: int, last: int) -> Queries:
        """Return the rows from `first` up to `last`, not included; an opaque body has no parts.

        >>> Queries(3, [1, 2, 3, 4, 5, 6], width=2).part(1, 3).matrix()
        array([[3., 4.],
               [5., 6.]])
        """
        rows = last - first
        matrix = self.matrix()
        if matrix is not None:
            part = Queries(rows, None, names=self.names, context=self.context)
            part.replace(matrix[first:last])
            return part
        if self.values is None:
            return Queries(rows, None, opaque=self.opaque, names=self.names, context=self.context)
        width = self.width or 1
        return Queries(
            rows, self.values[first * width : last * width], self.width, names=self.names, context=self.context
        )

    def answered_by(self, rows: int) -> Queries:
        """Return the queries behind an answer of `rows` rows: these, or when their number differs, the body as a whole.

        A server may answer several rows with one (an image sent as a list of its lines); each row of such an answer
        depends on all that was sent.

        >>> two = Queries(2, [[1, 2], [3, 4]])
        >>> two.answered_by(2) is two, two.answered_by(1).rows
        (True, 1)
        """
        if rows == self.rows:
            return self
        return Queries(
            rows, None, opaque=b"".join([b"%d:%b" % (len(row), row) for row in self.row_bytes()]), context=self.context
        )

    def row_bytes(self) -> list[bytes]:
        """Return canonical bytes for each row.

        The same for queries that decode to the same values, whatever their spelling.

        Numeric rows give their float64 values (1, 1.0 and true agree); other rows their JSON with sorted keys and
        numbers as floats. No row's bytes depend on the rows beside it, unless the body is opaque.

        >>> Queries(2, [1, None, 1.0, None], width=2).row_bytes()
        [b'[1.0,null]', b'[1.0,null]']
        """
        matrix = self.matrix()
        if matrix is not None:
            data, size = matrix.tobytes(), matrix.shape[1] * 8
            return [data[i : i + size] for i in range(0, len(data), size)]
        if self.values is not None and len(self.values) == self.rows * (self.width or 1):
            return [_bytes_of(value) for value in self.row_values()]
        whole = self.opaque or orjson.dumps(self.values, option=orjson.OPT_SORT_KEYS)
        return [b"%d:%b" % (i, whole) for i in range(self.rows)]

    def row_values(self) -> Sequence[object]:
        """Return one item per row; none when the body is opaque."""
        values = () if self.values is None else self.values
        if not self.width:
            return values
        return [values[i : i + self.width] for i in range(0, len(values), self.width)]
