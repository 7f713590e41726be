"""Reads the operator's rows: one JSON value a line, a row each.

A line is a list of numbers, a text, or an object: `x` is the row, `y` its true label (the class's name or number, or a
value), `member` whether it trained the model. Either all lines have a `y` or none has. Lines are held-out data, from
which the attacker gets one half and the other half measures; those that say `member`, true or false, are candidates of
membership inference instead. Members and non-members may stand in files of their own, in the same form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import orjson

from guard.selftest.base import Rows
from guard.selftest.targets.spec import TargetError

MAX_BYTES = 64 * 2**20
MAX_ROWS = 20_000
MIN_ROWS = 40
"""Fewer say nothing: halves of 20, on which an agreement is known to within 20 points."""
MAX_SHOWN = 5

Row = tuple[float, ...] | str


@dataclass(frozen=True)
class Sample:
    """A file's rows.

    Args:
        x: numbers of shape (n, d), or n texts.
        y: their labels as written; None when the file has none.
        member: by row: trained the model, did not, or nobody says.
        lines: by row: its line's number.
        file: its name, for messages.
    """

    x: Rows
    y: tuple[object, ...] | None
    member: tuple[bool | None, ...]
    lines: tuple[int, ...]
    file: str

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def size(self) -> int:
        """Features of a row; 0 for texts."""
        return self.x.shape[1] if isinstance(self.x, np.ndarray) else 0


@dataclass(frozen=True)
class _Line:
    number: int
    x: Row
    y: object
    member: bool | None


class _Bad(ValueError):
    """What is wrong with a line."""


def read_rows(path: str, least: int = MIN_ROWS) -> Sample:
    """Read a file of rows.

    Args:
        path: of the file.
        least: how many rows it must have.

    Raises:
        TargetError: it cannot be read, or lines of it are wrong; each is named by its number.
    """
    lines: list[_Line] = []
    problems: list[str] = []
    for number, text in _lines(path):
        try:
            lines.append(_line(number, text))
        except _Bad as bad:
            problems.append(f"{path}, line {number}: {bad}")
    problems += _disagreements(path, lines)
    if problems:
        more = [f"{path}: {len(problems) - MAX_SHOWN} more lines are wrong"] if len(problems) > MAX_SHOWN else []
        raise TargetError(*problems[:MAX_SHOWN], *more)
    if len(lines) < least:
        raise TargetError(f"{path} has {len(lines)} rows, and at least {least} are needed")
    labelled = lines[0].y is not None
    texts = isinstance(lines[0].x, str)
    return Sample(
        [cast("str", line.x) for line in lines] if texts else np.array([line.x for line in lines], dtype=np.float64),
        tuple(line.y for line in lines) if labelled else None,
        tuple(line.member for line in lines),
        tuple(line.number for line in lines),
        path,
    )


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold something, with their numbers, up to the largest number of rows."""
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise TargetError(f"{path} is larger than {MAX_BYTES // 2**20} MB: a few thousand rows are plenty")
        data = Path(path).read_bytes()
    except OSError as error:
        raise TargetError(f"{path} cannot be read: {error.strerror}") from error
    held = ((i, line) for i, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if line.strip())
    yield from itertools.islice(held, MAX_ROWS)


def _line(number: int, text: bytes) -> _Line:
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _Bad(f"this is not JSON ({error.msg})") from None
    if not isinstance(value, dict):
        return _Line(number, _row(value), None, None)
    record = cast("dict[str, object]", value)
    if "x" not in record:
        raise _Bad("an object needs x, the row")
    if unknown := sorted(record.keys() - {"x", "y", "member"}):
        raise _Bad(f"{', '.join(unknown)}: an object has x, y and member, and nothing else")
    member, y = record.get("member"), record.get("y")
    if member is not None and not isinstance(member, bool):
        raise _Bad("member is true or false")
    if isinstance(y, bool):
        y = int(y)
    if y is not None and not isinstance(y, int | float | str):
        raise _Bad("y is one label: a name or a number")
    return _Line(number, _row(record["x"]), y, member)


def _row(value: object) -> Row:
    if isinstance(value, str):
        if not value:
            raise _Bad("the text is empty")
        return value
    if not isinstance(value, list):
        raise _Bad("a row is a list of numbers or a text")
    if not value:
        raise _Bad("the row is empty")
    for place, item in enumerate(cast("list[object]", value)):
        if isinstance(item, bool) or not isinstance(item, int | float):
            what = "a list: rows are flat" if isinstance(item, list) else "missing" if item is None else "no number"
            raise _Bad(f"x[{place}] is {what}")
        if not math.isfinite(item) or abs(item) > np.finfo(np.float64).max:
            raise _Bad(f"x[{place}] is not finite")
    return tuple(float(cast("float", item)) for item in cast("list[object]", value))


def _disagreements(path: str, lines: list[_Line]) -> Iterator[str]:
    """Yield what is wrong with lines beside the first one."""
    for line in lines[1:]:
        first, row = lines[0].x, line.x
        where = f"{path}, line {line.number}:"
        if isinstance(row, str) != isinstance(first, str):
            yield f"{where} {_kind(row)}, and line {lines[0].number} is {_kind(first)}"
        elif not isinstance(row, str) and len(row) != len(first):
            yield f"{where} {len(row)} features, and line {lines[0].number} has {len(first)}"
        elif (line.y is None) != (lines[0].y is None):
            yield f"{where} {'no y' if line.y is None else 'a y'}, unlike line {lines[0].number}: all have one, or none"


def _kind(row: Row) -> str:
    return "a text" if isinstance(row, str) else "a list of numbers"
