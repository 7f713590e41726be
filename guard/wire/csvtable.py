"""CSV, read once and always written anew.

Parsers disagree on quotes, blank lines and widths; what is forwarded must be what was read.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.model.queries import Queries
from guard.wire.body import too_many_rows

# Possessive: what was matched is not given back, so that a long cell takes linear time.
_NUMBER = re.compile(r"\s*+[+-]?+(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d++)?+\s*+", re.ASCII)
_WHOLE = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_MISSING = frozenset(("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "None", "n/a", "null"))
_NOT_A_NUMBER = re.compile(r"[+-]?(?:nan|1\.#(?:ind|qnan))", re.IGNORECASE)
"""With this, what pandas and Python's `float` read as a missing value: several spellings of one query."""
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_TRUTH = {"true": True, "false": False}


@dataclass(slots=True)
class CsvTable:
    """A table of cells.

    Args:
        header: names of the columns; None when there is no header row.
        cells: rows of cells as written, all of one length.
    """

    header: list[str] | None
    cells: list[list[str]]

    def queries(self) -> Queries:
        """Return the rows, columns in alphabetical order where they have names."""
        order = self._order()
        names = None if self.header is None else tuple(self.header[column] for column in order)
        values: list[object] = [[value_of(row[column]) for column in order] for row in self.cells]
        line = 1 if self.header is None else 2

        def place(row: int, feature: int) -> str:
            if not 0 <= feature < len(order):
                return f"line {row + line}"
            return f"line {row + line}, {f'column {feature + 1}' if names is None else names[feature]}"

        return Queries(len(values), values, names=names, place=place)

    def snapped(self, numbers: Floats) -> CsvTable:
        """Return a table with `numbers`, shape (rows, columns), in the order of `queries`."""
        cells = [list(row) for row in self.cells]
        order = self._order()
        for row, new in zip(cells, cast("list[list[float]]", numbers.tolist()), strict=True):
            for column, number in zip(order, new, strict=True):
                whole = number.is_integer() and _WHOLE.fullmatch(row[column])
                row[column] = str(int(number)) if whole else repr(number)
        return CsvTable(self.header, cells)

    def encode(self) -> bytes:
        """Return the table as CSV."""
        return write_csv(self.cells if self.header is None else [self.header, *self.cells])

    def _order(self) -> list[int]:
        if self.header is None:
            return list(range(len(self.cells[0])))
        return sorted(range(len(self.header)), key=self.header.__getitem__)


def read_csv(body: bytes, *, header: bool, most: int) -> CsvTable:
    """Decode a request's CSV of at most `most` rows.

    Raises:
        ClientError: 400, it is not a table; 413, it has more rows.
    """
    try:
        rows = parse_csv(body, most + 2)
    except ValueError:
        raise ClientError("the request is not valid CSV", code="bad_csv") from None
    names = rows.pop(0) if header and rows else None
    if not rows:
        raise ClientError("the request has no rows", code="no_rows")
    if len(rows) > most:
        raise too_many_rows()
    if names is not None and len(set(names)) != len(names):
        raise ClientError("two columns have the same name", code="bad_csv")
    width = len(names or rows[0])
    for line, row in enumerate(rows, 2 if header else 1):
        if len(row) != width:
            raise ClientError(f"line {line} does not have {width} cells", code="bad_csv", path=f"line {line}")
    return CsvTable(names, rows)


def parse_csv(body: bytes, most: int | None = None) -> list[list[str]]:
    """Return rows of cells, the first `most` if that is given; blank lines are left out.

    Raises:
        ValueError: not UTF-8, a NUL, a quote that is not closed, a cell beyond csv's field limit.
    """
    text = body.decode()
    if "\0" in text:
        raise ValueError("NUL")
    try:
        return list(islice(filter(None, csv.reader(io.StringIO(text, newline=""), strict=True)), most))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def write_csv(rows: Sequence[Sequence[object]]) -> bytes:
    """Return rows as CSV with line feeds."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def value_of(cell: str) -> object:
    """Return a cell's value: a number, a truth value, None when it is missing, or its text.

    >>> value_of(" 1e3"), value_of("NaN"), value_of("-Inf"), value_of("TRUE"), value_of("1_000")
    (1000.0, None, inf, True, '1_000')
    """
    if _NUMBER.fullmatch(cell):
        return float(cell)
    stripped = cell.strip()
    if stripped in _MISSING or _NOT_A_NUMBER.fullmatch(stripped):
        return None
    if _INFINITE.fullmatch(stripped):
        return math.inf
    return _TRUTH.get(stripped.lower(), cell)
