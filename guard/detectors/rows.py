"""What the rows of queries are: numbers, texts, tokens, members of other kinds, or nothing that can be read."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple, cast
from zlib import crc32

import numpy as np
from numpy import typing as npt

from guard.detectors.keys import MOST_MEMBERS
from guard.model.arrays import Floats
from guard.model.nested import floats
from guard.model.queries import Queries

_MOST_WORDS = 2048
Tokens = npt.NDArray[np.uint64]


class Rows(NamedTuple):
    """Rows as read; one of these is set, or none when nothing can be read.

    Args:
        matrix: numbers, shape (n, d).
        texts: UTF-8.
        tokens: whole numbers, shape (length,) each.
        members: rows of categories, truth values, numbers and whatever else; at least one each.
    """

    matrix: Floats | None = None
    texts: list[bytes] | None = None
    tokens: list[Tokens] | None = None
    members: list[list[object]] | None = None


_NONE = Rows()


def read(queries: Queries, *, tokens: bool = False) -> Rows:
    """Read the rows of queries.

    Args:
        queries: whatever a client sent.
        tokens: rows of whole numbers are tokens, even when they all have the same length.

    >>> read(Queries(1, [{"b": 1, "a": 2}])).matrix, read(Queries(1, ["hello"])).texts
    (array([[2., 1.]]), [b'hello'])
    """
    matrix = queries.matrix()
    if matrix is not None:
        return _whole(matrix) if tokens else Rows(matrix)
    values = queries.row_values()
    if len(values) != queries.rows or not queries.rows:
        return _NONE
    values = [_only(value) for value in values]
    if all(isinstance(value, str) for value in values):
        return Rows(texts=[cast("str", value).encode("utf-8", "surrogatepass") for value in values])
    rows = [_members(value) for value in values]
    if any(row is None or not 0 < len(row) <= MOST_MEMBERS for row in rows):
        return _NONE
    return _of_members(cast("list[list[object]]", rows), named=isinstance(values[0], dict))


def _whole(matrix: Floats) -> Rows:
    if not np.isfinite(matrix).all() or (np.abs(matrix) > 2**53).any() or (matrix != np.rint(matrix)).any():
        return Rows(matrix)
    return Rows(tokens=list(matrix.astype(np.int64).view(np.uint64)))


def _only(value: object) -> object:
    """Unwrap a text that stands alone in its row, as a one-column tensor or a single named text does."""
    if isinstance(value, list | dict) and len(cast("Sequence[object]", value)) == 1:
        inner = _members(cast("object", value))
        if inner is not None and isinstance(inner[0], str):
            return inner[0]
    return cast("object", value)


def _members(value: object) -> list[object] | None:
    """Return a row's members, named ones in the order of their names."""
    if isinstance(value, list):
        return cast("list[object]", value)
    if isinstance(value, dict):
        record = cast("dict[object, object]", value)
        try:
            return [record[name] for name in sorted(cast("dict[str, object]", record))]
        except TypeError:
            return None
    return None if value is None else [value]


def _of_members(rows: list[list[object]], *, named: bool) -> Rows:
    width = len(rows[0])
    if named and all(len(row) == width for row in rows):
        numbers = floats([item for row in rows for item in row])
        if numbers is not None:
            return Rows(numbers.reshape(len(rows), width) + 0.0)
    tokens = None if named else _tokens(rows)
    return Rows(members=rows) if tokens is None else Rows(tokens=tokens)


def _tokens(rows: list[list[object]]) -> list[Tokens] | None:
    """Return rows of whole numbers as arrays; None when a member is anything else."""
    if any(set(map(type, row)) != {int} for row in rows):
        return None
    try:
        return [np.frombuffer(array("q", cast("list[int]", row)), dtype=np.uint64) for row in rows]
    except OverflowError:
        return None


def words(text: bytes) -> list[bytes]:
    """Return a text's words; what follows the 2,048th is one more, by its check sum."""
    found = text.split(maxsplit=_MOST_WORDS)
    if len(found) > _MOST_WORDS:
        found[-1] = b"%d" % crc32(found[-1])
    return found
