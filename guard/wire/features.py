"""Named columns of a request joined to rows of features: tensors, columns of a table, keys of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Protocol, TypeVar, cast

import numpy as np

from guard.model.arrays import Floats
from guard.model.nested import flatten
from guard.model.queries import Queries


class Feature(Protocol):
    """One named column: for every row a scalar or nested lists."""

    @property
    def name(self) -> str:
        """Name of the column; the features of a row stand in the order of the names."""
        ...

    def size(self) -> int:
        """Return how many features of a row stand in this column."""
        ...

    def at(self, row: int, feature: int) -> str:
        """Return the path of a feature of this column, or of the column in a row with feature -1."""
        ...

    def table(self) -> Floats | None:
        """Return the rows as numbers, shape (rows, size); None when they are not complete numbers."""
        ...

    def rows(self) -> Sequence[object]:
        """Return one member per row."""
        ...


_F = TypeVar("_F", bound=Feature)


@dataclass(slots=True)
class Column:
    """A column of decoded JSON.

    Args:
        name: its name.
        members: one per row.
        place: path of a row's member.
    """

    name: str
    members: Sequence[object]
    place: Callable[[int], str]

    def _shape(self) -> tuple[int, ...]:
        flat = flatten(self.members)
        return () if flat is None else flat[1][1:]

    def size(self) -> int:
        """Return how many features of a row stand in this column."""
        return prod(self._shape())

    def at(self, row: int, feature: int) -> str:
        """Return the path of a feature of this column, or of the column in a row with feature -1."""
        if feature < 0:
            return self.place(row)
        shape = self._shape()
        if shape:
            return self.place(row) + "".join(f"[{i}]" for i in np.unravel_index(feature, shape))
        return self.place(row) + (f"[{feature}]" if isinstance(self.members[row], list) else "")

    def table(self) -> Floats | None:
        """Return the rows as numbers, shape (rows, size); None when they are not complete numbers."""
        return Queries(len(self.members), self.members).matrix()

    def rows(self) -> Sequence[object]:
        """Return one member per row."""
        return self.members

    def written(self, snapped: Floats) -> list[object]:
        """Return one member per row for snapped features, shape (rows, size); whole numbers stay whole if they can."""
        shaped = snapped.reshape(len(self.members), *self._shape())
        flat = flatten(self.members)
        if flat is not None and set(map(type, flat[0])) == {int}:
            rounded = np.rint(shaped)
            if np.array_equal(rounded, shaped) and np.abs(rounded).max(initial=0.0) < 2.0**63:
                return cast("list[object]", rounded.astype(np.int64).tolist())
        return cast("list[object]", shaped.tolist())


def join(features: Sequence[Feature], rows: int, whole: str) -> Queries:
    """Make queries of named columns, in the order of their names.

    Numeric columns stand side by side in one row of features; with any other among them a row is a mapping of names.

    Args:
        features: the columns, `rows` members each.
        rows: how many rows.
        whole: path of the member that holds all columns, for messages.
    """
    features = in_order(features)
    names = tuple(feature.name for feature in features)
    tables = [feature.table() for feature in features]
    complete = [table for table in tables if table is not None]
    if len(complete) == len(features):
        joined = np.concatenate(complete, axis=1)
        if joined.shape[1] != len(features):
            sizes = zip(names, (table.shape[1] for table in complete), strict=True)
            names = tuple([f"{name}[{i}]" for name, size in sizes for i in range(size)])
        values = cast("list[object]", joined.ravel().tolist())
        return Queries(rows, values, joined.shape[1], names=names, place=partial(_joined, features, whole))
    columns = [feature.rows() for feature in features]
    mappings = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return Queries(rows, mappings, names=names, place=partial(_mapped, features, whole))


def in_order(features: Sequence[_F]) -> list[_F]:
    """Return the columns in the order of their names, which is the order of their features in a row."""
    return sorted(features, key=lambda feature: feature.name)


def split(features: Sequence[Feature], snapped: Floats) -> Mapping[str, Floats]:
    """Return each column's share of snapped rows, shape (rows, size), by its name."""
    shares: dict[str, Floats] = {}
    start = 0
    for feature in in_order(features):
        end = start + feature.size()
        shares[feature.name] = snapped[:, start:end]
        start = end
    return shares


def _joined(features: Sequence[Feature], whole: str, row: int, feature: int) -> str:
    if feature >= 0:
        for column in features:
            if feature < column.size():
                return column.at(row, feature)
            feature -= column.size()
    return whole


def _mapped(features: Sequence[Feature], whole: str, row: int, feature: int) -> str:
    return features[feature].at(row, -1) if 0 <= feature < len(features) else whole
