"""Answers by columns: one array, or one array per name, with a row per step along the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import cast

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.model.nested import flatten
from guard.model.prediction import Answer
from guard.wire.base import Reader
from guard.wire.body import unreadable
from guard.wire.columns import classify, holds_floats, numbers
from guard.wire.listed_answers import Document, hold_rows
from guard.wire.rows import add_column, label_of

Json = dict[str, object]


def count_rows(
    columns: Iterable[tuple[str, int, Floats | None]], found: Sequence[int], reader: Reader, asked: int
) -> int:
    """Return how many rows an answer truly holds: those asked for, unless scores of the declared kind say otherwise.

    Side members such as class names may have another first dimension; they are no rows, and not let out as such.

    Args:
        columns: name, length and, for floating columns, the numbers of shape (length, k).
        found: lengths of predictions that were recognised before.
        reader: the route's outputs.
        asked: the request's rows.
    """
    outputs = reader.outputs
    lengths, scores = list(found), list(found)
    for name, length, matrix in columns:
        lengths.append(length)
        if length != asked and matrix is not None and matrix.size:
            named = outputs.tensors is not None and name in outputs.tensors
            wide = outputs.tensors is None and matrix.shape[1] > 1
            if named or (wide and outputs.accepts(matrix, complete=True, named=False)):
                scores.append(length)
    most = max(scores, default=0)
    if most > asked:
        return most
    return asked if asked in lengths else max(lengths, default=0)


@dataclass(slots=True)
class _Columns:
    members: Json
    shapes: dict[str, tuple[int, ...]]

    def write(self, name: str, scores: Floats) -> None:
        self.members[name] = scores.reshape(self.shapes[name]).tolist()

    def write_labels(self, name: str, reader: Reader, tops: Ints) -> None:
        labels = np.array([label_of(reader, int(top)) for top in tops], dtype=object)
        self.members[name] = labels.reshape(self.shapes[name]).tolist()


def read_columnar(member: str, reader: Reader, answer: Answer) -> None:
    """Read the member of the answer's document that holds one array, or arrays by name.

    Raises:
        UpstreamError: it is something else, or nothing of the declared kind is left.
    """
    document = cast("Document", answer.document).members
    value = document.get(member)
    members = cast("Json", value) if isinstance(value, dict) else document
    names = list(members) if members is not document else [member]
    flat = {name: flatten(cast("list[object]", members[name])) for name in names if isinstance(members.get(name), list)}
    found = {name: shaped for name, shaped in flat.items() if shaped is not None}
    tables = {name: numbers(members[name], shape[0]) for name, (_, shape) in found.items()}
    lengths = [(name, found[name][1][0], table if floating else None) for name, (table, floating) in tables.items()]
    if not lengths:
        raise unreadable(f"none of {', '.join(sorted(names))} holds {reader.outputs.kind}")
    hold_rows(answer, count_rows(lengths, [], reader, answer.rows))
    columns: dict[str, object] = {}
    for name, (items, shape) in found.items():
        if shape[0] == answer.rows:
            columns[name] = items if prod(shape) == shape[0] else members[name]
    for name in names:
        if name not in columns and reader.fields == "all" and holds_floats(members.get(name)):
            raise unreadable(f"{name} holds numbers that are not {reader.outputs.kind}")
    roles = classify(columns, answer.rows, reader.outputs, reader.fields) if columns else {}
    writer = _Columns(members, {name: found[name][1] for name in columns})
    for name in names:
        role = roles.get(name)
        if role is not None and role.role != "drop":
            write_labels: Callable[[Ints], None] = partial(writer.write_labels, name, reader)
            add_column(answer, name, role, partial(writer.write, name), write_labels)
        elif role is not None or reader.fields == "known":
            members.pop(name, None)
            answer.dropped.append(name)
    if not answer.predictions and not answer.labels:
        raise unreadable(f"none of {', '.join(sorted(names))} holds {reader.outputs.kind}")
