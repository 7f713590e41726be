"""Answers of any JSON API as rows of cells: every member that holds a number or a label, by name.

Theory of operation. APIs disagree about where a row's scores stand, and rarely say: a list of vectors, of objects, of
label -> score maps, of ranked labels, or one of these for a single row. `rows_of` finds the rows, `cells_of` takes one
apart. A cell is a number, a list of numbers, a map label -> number, or a label; what it means is `layout.py`'s to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

import orjson

Cell = float | list[float] | dict[str, float] | str
Raw = dict[str, list[Cell]]
"""Members by name, one cell a row."""

LABELS = frozenset(
    ("label", "class", "classes", "category", "prediction", "predicted_label", "predicted_class", "class_id", "index")
)
"""What members with a label are called, whatever their case."""
SCORES = frozenset(("score", "probability", "confidence", "prob"))
WHOLE = "scores"
"""Name of what has none."""


def read_document(body: bytes) -> object:
    """Decode JSON (bare NaN included), JSON lines, or lines of comma-separated numbers.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)  # TensorFlow Serving and Python servers write NaN and Infinity
    except (ValueError, RecursionError):
        pass
    lines = [line for line in body.splitlines() if line.strip()]
    try:
        return [orjson.loads(line) for line in lines]
    except orjson.JSONDecodeError:
        pass
    try:
        table = [[float(item) for item in line.split(b",")] for line in lines]
    except ValueError:
        table = []
    if not table:
        raise ValueError("an answer that is neither JSON nor numbers")
    return [row[0] if len(row) == 1 else row for row in table]


def members(value: object, rows: int, holders: Sequence[str] = (), name: str = WHOLE) -> Raw:
    """Return an answer's members.

    Args:
        value: decoded JSON.
        rows: how many rows were asked.
        holders: names of members that hold the answer.
        name: what the rows are called when nothing names them.

    Raises:
        ValueError: it does not hold that many rows.
    """
    if isinstance(value, dict):
        record = cast("dict[str, object]", value)
        for holder in holders:
            if holder in record:
                return members(record[holder], rows, name=holder)
        columns = _columns(record, rows)
        if columns:
            return columns
    items = rows_of(cast("object", value), rows)
    if items is None:
        raise ValueError(f"an answer that does not hold {rows} {'row' if rows == 1 else 'rows'}")
    return joined([cells_of(item, name) for item in items])


def rows_of(value: object, rows: int) -> list[object] | None:
    """Return an answer's rows, or None when it does not hold that many.

    >>> rows_of([[0.1, 0.9]], 1), rows_of([0.1, 0.9], 1), rows_of([0.1, 0.9], 2), rows_of([0.1], 2)
    ([[0.1, 0.9]], [[0.1, 0.9]], [0.1, 0.9], None)
    """
    if not isinstance(value, list):
        return [value] if rows == 1 else None
    items = cast("list[object]", value)
    if rows == 1 and (len(items) != 1 or ranked(items) is not None):
        return [items]
    return items if len(items) == rows else None


def cells_of(item: object, name: str) -> dict[str, Cell]:
    """Take one row apart.

    Args:
        item: decoded JSON of one row.
        name: what it is called.

    >>> cells_of({"label": 1, "probabilities": [0.2, 0.8]}, "predictions")
    {'label': 1.0, 'probabilities': [0.2, 0.8]}
    >>> cells_of([{"label": "spam", "score": 0.9}, {"label": "ham", "score": 0.1}], "scores")
    {'scores': {'spam': 0.9, 'ham': 0.1}}
    """
    if item is None:
        return {name: float("nan")}
    if isinstance(item, int | float):
        return {name: float(item)}
    if isinstance(item, str):
        return {name: item}
    if isinstance(item, list):
        return _list_cells(cast("list[object]", item), name)
    if isinstance(item, dict):
        return _object_cells(cast("dict[str, object]", item), name)
    return {}


def ranked(items: list[object]) -> dict[str, float] | None:
    """Return a list of labels with their scores as a map; None when it is none.

    Objects with a label and a score (Hugging Face), or pairs `[label, score]` (TensorFlow Serving's classify).
    """
    found: dict[str, float] = {}
    for item in items:
        pair = _pair(item)
        if pair is None or pair[0] in found:
            return None
        found[pair[0]] = pair[1]
    return found or None


def joined(rows: Sequence[Mapping[str, Cell]]) -> Raw:
    """Return the members that every row has."""
    names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    return {name: [row[name] for row in rows] for name in names}


def _pair(item: object) -> tuple[str, float] | None:
    if isinstance(item, list):
        pair = cast("list[object]", item)
        if len(pair) == 2 and isinstance(pair[0], str) and _is_number(pair[1]):
            return pair[0], float(cast("float", pair[1]))
        return None
    if not isinstance(item, dict):
        return None
    record = {key.lower(): value for key, value in cast("dict[str, object]", item).items()}
    labels = [value for key, value in record.items() if key in LABELS and isinstance(value, str | int)]
    scores = [value for key, value in record.items() if key in SCORES and _is_number(value)]
    if len(labels) != 1 or len(scores) != 1:
        return None
    return str(labels[0]), float(cast("float", scores[0]))


def _list_cells(items: list[object], name: str) -> dict[str, Cell]:
    if (found := ranked(items)) is not None:
        return {name: found}
    flat = flat_numbers(items)
    if flat is not None:
        return {name: flat}
    if len(items) == 1:
        return cells_of(items[0], name)
    # Labels that are all empty, as TensorFlow Serving answers without a vocabulary: the scores alone say something.
    pairs = [_pair(item) for item in items]
    return {name: [pair[1] for pair in pairs if pair is not None]} if pairs and None not in pairs else {}


def _object_cells(record: dict[str, object], name: str) -> dict[str, Cell]:
    """Lists and labels stand for themselves; two loose numbers or more are a map label -> score."""
    found: dict[str, Cell] = {}
    loose: dict[str, float] = {}
    for key, value in record.items():
        if _is_number(value):
            (found if key.lower() in LABELS else loose)[key] = float(cast("float", value))
        elif isinstance(value, dict) and _numbers(cast("dict[str, object]", value)):
            found[key] = {k: float(cast("float", v)) for k, v in cast("dict[str, object]", value).items()}
        elif value is not None:
            found |= cells_of(cast("object", value), key)
    if len(loose) >= 2:
        return {**found, name: loose}
    named = [value for key, value in record.items() if key.lower() in LABELS and isinstance(value, str)]
    if len(named) == 1 and len(loose) == 1 and not any(isinstance(cell, list | dict) for cell in found.values()):
        found[name] = {named[0]: next(iter(loose.values()))}
    return {**found, **loose}


def _columns(record: dict[str, object], rows: int) -> Raw:
    """Return members that each hold a list of all rows, as columnar answers do; empty when there are none."""
    if rows == 1 and not any(isinstance(value, list) for value in record.values()):
        return {}
    found: Raw = {}
    for key, value in record.items():
        if not isinstance(value, list) or len(cast("list[object]", value)) != rows:
            continue
        found |= joined([cells_of(item, key) for item in cast("list[object]", value)])
    return found


def flat_numbers(items: list[object]) -> list[float] | None:
    """Return nested lists of numbers as one list, null as NaN; None when something else is among them."""
    flat: list[float] = []
    for item in items:
        if item is None:
            flat.append(float("nan"))
        elif _is_number(item):
            flat.append(float(cast("float", item)))
        elif isinstance(item, list) and (inner := flat_numbers(cast("list[object]", item))) is not None:
            flat += inner
        else:
            return None
    return flat


def _numbers(record: dict[str, object]) -> bool:
    return bool(record) and all(_is_number(value) for value in record.values())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
