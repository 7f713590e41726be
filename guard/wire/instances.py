"""Requests that list their rows: `"instances": [...]` of KServe V1 and TensorFlow Serving."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import partial
from typing import cast

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.model.queries import Queries
from guard.wire.features import Column, join, split

Row = dict[str, object]


@dataclass(slots=True)
class Instances:
    """Rows of a request, and how to write them back.

    Args:
        queries: what is asked.
        columns: one per name for rows that are objects with the same names; otherwise one without a name.
        named: rows are objects.
    """

    queries: Queries
    columns: list[Column]
    named: bool

    def written(self, snapped: Floats) -> list[object]:
        """Return the rows with snapped features, in the form that they had."""
        if not self.named:
            return self.columns[0].written(snapped)
        shares = split(self.columns, snapped)
        columns = [column.written(shares[column.name]) for column in self.columns]
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def read_instances(value: object, member: str, *, base64: bool) -> Instances:
    """Read rows: numbers, nested lists, texts, or objects whose features stand in the order of their names.

    Args:
        value: decoded list.
        member: its name in the request, for messages.
        base64: the body may hold `{"b64": text}`, see `may_hold_base64`.

    Raises:
        ClientError: 400, not a list with at least one row, or not base64 where it says so.
    """
    if not isinstance(value, list) or not value:
        raise ClientError(f"{member} must be a list of rows", path=member)
    items = cast("list[object]", value)
    if base64:
        items = [canonical(item, member) for item in items]
    if set(map(type, items)) == {dict}:
        rows = cast("list[Row]", items)
        names = rows[0].keys()
        if names and all(row.keys() == names for row in rows):
            columns = [Column(name, [row[name] for row in rows], partial(_key_place, member, name)) for name in names]
            return Instances(join(columns, len(rows), member), columns, named=True)
    column = Column(member, items, partial(_row_place, member))
    return Instances(Queries(len(items), items, place=column.at), [column], named=False)


def may_hold_base64(body: bytes) -> bool:
    """Say whether a body may hold a member `b64`, written plainly or with escapes."""
    return b"b64" in body or b"\\u" in body


def canonical(value: object, member: str) -> object:
    """Return decoded JSON in which every `{"b64": text}` is spelled the way base64 encodes its bytes.

    Many spellings decode to the same bytes; each would pass for another query.

    Raises:
        ClientError: 400, not base64.
    """
    if isinstance(value, list):
        return [canonical(item, member) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    row = cast("Row", value)
    if row.keys() != {"b64"}:
        return {key: canonical(item, member) for key, item in row.items()}
    try:
        return {"b64": b64encode(b64decode(cast("str", row["b64"]), validate=True)).decode()}
    except (ValueError, TypeError):
        raise ClientError(f"{member} holds what is not base64", path=member) from None


def _row_place(member: str, row: int) -> str:
    return f"{member}[{row}]"


def _key_place(member: str, name: str, row: int) -> str:
    return f"{member}[{row}].{name}"
