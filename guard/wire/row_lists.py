"""Queries that stand in a request as a list with one item a row; objects become rows of named features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.model.nested import flatten
from guard.model.queries import Queries

Record = dict[str, object]
Batch = Literal["always", "never", "by_form"]
_SCALARS = frozenset({float, int, bool, type(None)})


@dataclass(slots=True)
class JsonRows:
    """A decoded request whose queries are the whole document or one of its members.

    Args:
        body: the document.
        member: name of the member; empty for the whole.
        queries: what is asked.
        batch: the queries are a list with one item a row, not one row.
    """

    body: object
    member: str
    queries: Queries
    batch: bool

    def written(self, snapped: Floats) -> object:
        """Return the document with snapped numbers in it."""
        if self.batch:
            value = cast("Record", self.body)[self.member] if self.member else self.body
            new: object = snapped_rows(cast("list[object]", value), self.queries, snapped)
        else:
            new = snapped_like(self.queries.values or (), snapped)[0]
        return {**cast("Record", self.body), self.member: new} if self.member else new


def read_json_rows(body: object, member: str = "", batch: Batch = "by_form") -> JsonRows:
    """Read queries from a member of a document, or from all of it.

    Args:
        body: decoded JSON.
        member: name of the member; empty for the whole document.
        batch: `always`: the value must be a list with one item a row; `never`: it is one row; `by_form`: a list is
            several rows unless it holds scalars alone.

    Raises:
        ClientError: no rows.
    """
    value = cast("Record", body)[member] if member else body
    path = member or "$"
    items: list[object] = cast("list[object]", value) if isinstance(value, list) else []
    if (isinstance(value, list) or batch == "always") and not items:
        raise ClientError(f"{path} must be a list of rows", code="no_rows", path=path)
    if batch == "always" or (batch == "by_form" and not _SCALARS.issuperset(map(type, items))):
        return JsonRows(body, member, list_queries(items, path), batch=True)
    row: object = cast("object", value)
    queries = Queries(1, [row], place=lambda _, feature: f"{path}{inside(row, feature)}")
    return JsonRows(body, member, queries, batch=False)


def list_queries(items: list[object], path: str) -> Queries:
    """Make queries of a list with one item a row.

    Args:
        items: numbers, texts, lists or objects.
        path: JSON path of the list.

    Raises:
        ClientError: it is empty.
    """
    if not items:
        raise ClientError(f"{path} is empty", code="no_rows", path=path)
    named = _records(items)
    if named is not None:
        names, rows = named
        return Queries(
            len(items), rows, names=names, place=lambda row, j: f"{path}[{row}]{_inside_named(names, rows[row], j)}"
        )
    return Queries(len(items), items, place=lambda row, feature: f"{path}[{row}]{inside(items[row], feature)}")


def _records(items: list[object]) -> tuple[tuple[str, ...], list[object]] | None:
    """Return (names in alphabetical order, rows) of objects that have the same members; None when they do not.

    The order in which a client writes members must not matter: every order would be a new query, with noise of its own.
    """
    if set(map(type, items)) != {dict}:
        return None
    records = cast("list[Record]", items)
    names = tuple(sorted(records[0]))
    if not names or any(record.keys() != records[0].keys() for record in records):
        return None
    return names, [[record[name] for name in names] for record in records]


def _inside_named(names: Sequence[str], row: object, feature: int) -> str:
    for name, value in zip(names, cast("list[object]", row), strict=True):
        items: list[object] = cast("list[object]", value) if isinstance(value, list) else []
        flat = flatten(items)
        width = 1 if flat is None else len(flat[0])
        if 0 <= feature < width:
            return f".{name}{inside(cast('object', value), feature)}"
        feature -= width
    return ""


def _member(names: Sequence[str], index: int) -> str:
    return f".{names[index]}" if 0 <= index < len(names) else ""


def inside(value: object, feature: int) -> str:
    """Return the path of a flattened feature inside a row; empty for the row itself."""
    if isinstance(value, dict):
        return _member(list(cast("Record", value)), feature)
    if feature < 0 or not isinstance(value, list):
        return ""
    items = cast("list[object]", value)
    flat = flatten(items)
    if flat is None or len(flat[1]) < 2 or feature >= len(flat[0]):
        return f"[{feature}]"
    width = len(flat[0]) // len(items)
    return f"[{feature // width}]{inside(items[feature // width], feature % width)}"


def snapped_like(values: Sequence[object], snapped: Floats) -> list[object]:
    """Return snapped numbers in the form of `values`: nested alike, and whole where the original was written whole.

    >>> import numpy as np
    >>> snapped_like([[1, 2.2], [3, 4.4]], np.array([[1.0, 2.0], [3.5, 4.0]]))
    [[1, 2.0], [3.5, 4.0]]
    """
    flat = flatten(values)
    members, shape = flat if flat is not None else (values, (len(values),))
    new = snapped.ravel().tolist()
    result: list[object] = [*new]
    if int in map(type, members):
        result = [whole_like(old, number) for old, number in zip(members, new, strict=True)]
    for width in reversed(shape[1:]):
        result = [cast("object", result[i : i + width]) for i in range(0, len(result), width)]
    return result


def whole_like(old: object, number: float) -> float | int:
    """Return `number` as an int where `old` is one and the number is whole."""
    return int(number) if type(old) is int and number.is_integer() else number


def snapped_rows(items: list[object], queries: Queries, snapped: Floats) -> list[object]:
    """Return the items of `list_queries` with their numbers replaced, the members of objects in the client's order."""
    rows = snapped_like(queries.values or (), snapped)
    if queries.names is None:
        return rows
    result: list[object] = []
    for record, row in zip(cast("list[Record]", items), cast("list[list[object]]", rows), strict=True):
        values = dict(zip(queries.names, row, strict=True))
        result.append({name: values[name] for name in record})
    return result
