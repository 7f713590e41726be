"""Answers that are a list with one item a row: numbers, lists of numbers, or objects.

KServe V1, MLflow, SageMaker and TensorFlow Serving answer like this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.model.nested import flatten
from guard.model.outputs import Outputs
from guard.model.prediction import Answer, LabelSlot, Prediction, Release
from guard.wire.base import Reader
from guard.wire.body import unreadable
from guard.wire.columns import Column, classify, holds_floats, numbers
from guard.wire.sparse import Ranked, add_groups, group_rows, rank, read_map

__all__ = ["add_column", "check_rest", "label_of", "rank", "read_columns", "read_map", "read_rows", "rows_of"]
Record = dict[str, object]


def read_rows(items: list[object], reader: Reader, answer: Answer, name: str = "predictions") -> list[object]:
    """Read a list of rows into `answer` and return the list to let out, whose members the writes will change.

    Args:
        items: the decoded list, one item a row; objects in it are changed in place.
        reader: the route's outputs and fields.
        answer: gets predictions, labels and dropped names.
        name: the list's name, for messages and for `outputs.tensors`.

    Raises:
        UpstreamError: nothing of the declared kind is left.
    """
    if not items:
        return items
    if all(isinstance(item, dict) for item in items):
        _read_objects(cast("list[Record]", items), reader, answer, name)
        return items
    role = classify({name: items}, len(items), reader.outputs, reader.fields)[name]
    if role.role in ("drop", "keep"):
        raise unreadable(f"{name} holds no {reader.outputs.kind}")

    def put(values: list[object]) -> None:
        items[:] = values

    add_column(answer, name, role, _shaped(items, put), _labelled(put, reader))
    return items


def read_columns(columns: Record, reader: Reader, answer: Answer, asked: int) -> None:
    """Read an object into `answer`, in place: named columns of as many rows as were asked, otherwise one row.

    Args:
        columns: the decoded object.
        reader: the route's outputs and fields.
        answer: gets rows, predictions, labels and dropped names.
        asked: how many rows the request has.

    Raises:
        UpstreamError: nothing of the declared kind is left.
    """
    if not all(isinstance(v, list) and len(cast("list[object]", v)) == asked for v in columns.values()):
        answer.rows = 1
        read_rows([columns], reader, answer)
        return
    answer.rows = asked
    for key, role in classify(columns, asked, reader.outputs, reader.fields, record=True).items():
        values = cast("list[object]", columns[key])
        if role.role == "drop":
            answer.dropped.append(key)
            del columns[key]
            continue
        put = partial(columns.__setitem__, key)
        add_column(answer, key, role, _shaped(values, put), _labelled(put, reader))
    if not answer.predictions and not answer.labels:
        raise unreadable(f"none of {', '.join(sorted(answer.dropped)) or 'its members'} holds {reader.outputs.kind}")


def rows_of(items: list[object], outputs: Outputs, asked: int) -> list[object]:
    """Return a list of numbers as the one row that was asked for, if it is a vector of the declared kind.

    Anything else counts as one number a row: were it taken for one row, a batch could pass for a single query.
    """
    if asked != 1 or outputs.kind == "value" or not set(map(type, items)) <= {float, int, type(None)}:
        return items
    matrix, floating = numbers([items], 1)
    if matrix is None or not floating or matrix.shape[1] < 2:
        return items
    return [items] if outputs.accepts(matrix, complete=True, named=False) else items


def check_rest(rest: Mapping[str, object], reader: Reader) -> None:
    """Refuse, under `fields: all`, members beside the predictions that hold floating numbers.

    Raises:
        UpstreamError: a member does.
    """
    for name, value in rest.items():
        if holds_floats(value):
            raise unreadable(f"{name} holds numbers that are not {reader.outputs.kind}")


def add_column(
    answer: Answer,
    name: str,
    column: Column,
    write: Callable[[Floats], None],
    write_labels: Callable[[Ints], None] | None = None,
) -> None:
    """Register a classified column with `answer`.

    Args:
        answer: gets the prediction or label slot.
        name: the column's name.
        column: its role and scores.
        write: puts released scores, shape (n, k) or (n, 1), back.
        write_labels: puts the labels of the given columns back; a column that is none needs no such function.
    """
    if column.role == "label" and write_labels is not None:
        answer.labels.append(LabelSlot(name, write_labels))
        return
    if column.role not in ("scores", "two_class", "top_score") or column.scores is None:
        return
    if column.role == "two_class":
        answer.predictions.append(
            Prediction(name, column.scores, lambda release: write(release.scores[:, 1:]), "two_class", column.complete)
        )
        return
    shape = "fixed" if column.role == "scores" else "top_score"
    prediction = Prediction(name, column.scores, lambda release: write(release.scores), shape, column.complete)
    if shape == "fixed" and _joins_copy(answer, prediction):
        return
    if shape == "fixed" and column.complete:
        # A whole score vector leads: copies of the top score follow it.
        first = next((i for i, p in enumerate(answer.predictions) if p.shape == "top_score"), len(answer.predictions))
        answer.predictions.insert(first, prediction)
    else:
        answer.predictions.append(prediction)


def _joins_copy(answer: Answer, prediction: Prediction) -> bool:
    """Let a copy of scores that are there already be written with them: noise of its own would contradict them."""
    for other in answer.predictions:
        if other.shape == "fixed" and other.rows is None and np.array_equal(other.scores, prediction.scores):
            other.write = _both(other.write, prediction.write)
            return True
    return False


def _both(first: Callable[[Release], None], second: Callable[[Release], None]) -> Callable[[Release], None]:
    def write(release: Release) -> None:
        first(release)
        second(release)

    return write


def _read_objects(items: list[Record], reader: Reader, answer: Answer, name: str) -> None:
    """Read rows that are objects: maps of label -> score, or records whose members are columns."""
    if read_map(items, reader, answer, name):
        return
    keys = dict.fromkeys([key for item in items for key in item])
    columns = {key: [item[key] for item in items] for key in keys if all(key in item for item in items)}
    read = _read_paired(items, columns, reader, answer) or _read_spread(items, columns, reader, answer)
    # Columns may repeat what was read here, if that speaks for every row.
    leading = answer.predictions[0] if read and answer.predictions[0].rows is None else None
    rest = {key: values for key, values in columns.items() if key not in read}
    principal = None if leading is None else leading.scores
    roles = classify(rest, len(items), reader.outputs, reader.fields, principal, record=True)
    for key in keys:
        role = roles.get(key)
        if key in read:
            continue
        if role is None and reader.fields == "all":
            raise unreadable(f"{key} stands in some rows only")
        if role is None or role.role == "drop":
            answer.dropped.append(key)
            for item in items:
                item.pop(key, None)
            continue
        put = _key_putter(items, key)
        add_column(answer, key, role, _shaped(columns[key], put), _labelled(put, reader))
    if not answer.predictions and not answer.labels:
        raise unreadable(f"none of {', '.join(sorted(keys)) or 'its members'} holds {reader.outputs.kind}")


def _read_paired(items: list[Record], columns: Mapping[str, list[object]], reader: Reader, answer: Answer) -> set[str]:
    """Read members that pair labels with scores; returns their names.

    Maps such as `"probabilities": {"cat": 0.9, "dog": 0.1}`, and the lists `labels` and `scores` of a zero-shot answer.
    """
    found: set[str] = set()
    for key, values in columns.items():
        if any(isinstance(value, dict) for value in values) and read_map(
            cast("list[Record]", values), reader, answer, key
        ):
            found.add(key)
    labels, scores = columns.get("labels"), columns.get("scores")
    if found or labels is None or scores is None or not all(map(_pairs, labels, scores)):
        return found
    named = reader.outputs.tensors is not None and "scores" in reader.outputs.tensors
    groups = group_rows(
        cast("list[list[str]]", labels), cast("list[list[object]]", scores), reader.outputs, named=named
    )
    if groups is None or (reader.outputs.tensors is not None and not named):
        return found

    def put(row: int, ranked: Ranked) -> None:
        items[row]["labels"] = [label for label, _ in ranked]
        items[row]["scores"] = [score for _, score in ranked]

    add_groups(answer, "scores", groups, len(items), put)
    return {"labels", "scores"}


def _pairs(labels: object, scores: object) -> bool:
    return (
        isinstance(labels, list)
        and isinstance(scores, list)
        and len(cast("list[object]", labels)) == len(cast("list[object]", scores))
        and set(map(type, cast("list[object]", labels))) == {str}
    )


def _read_spread(items: list[Record], columns: Mapping[str, list[object]], reader: Reader, answer: Answer) -> set[str]:
    """Read a distribution spread over members, one number each: `{"label": 1, "benign": 0.9, "malignant": 0.1}`."""
    tensors = reader.outputs.tensors
    if reader.outputs.kind != "probabilities":
        return set()
    single: dict[str, Floats] = {}
    for key, values in columns.items():
        matrix, floating = numbers(values, len(items)) if tensors is None or key in tensors else (None, False)
        if floating and matrix is not None and matrix.shape[1] == 1:
            single[key] = matrix
    for copy in (None, *single) if len(single) > 1 else ():
        # With `copy` left out, which may repeat the greatest of the others.
        names = [key for key in single if key != copy]
        if len(names) < 2:
            break
        scores = np.concatenate([single[key] for key in names], axis=1)
        if not reader.outputs.accepts(scores, complete=True, named=False):
            continue
        if copy is None or np.allclose(single[copy][:, 0], scores.max(axis=1), atol=1e-6):
            add_column(answer, "+".join(names), Column("scores", scores), _spreader(items, names))
            return set(names)
    return set()


def _spreader(items: list[Record], names: list[str]) -> Callable[[Floats], None]:
    def write(scores: Floats) -> None:
        for item, values in zip(items, scores.tolist(), strict=True):
            item.update(zip(names, values, strict=True))

    return write


def _key_putter(items: list[Record], key: str) -> Callable[[list[object]], None]:
    def put(values: list[object]) -> None:
        for item, value in zip(items, values, strict=True):
            item[key] = value

    return put


def _shaped(values: list[object], put: Callable[[list[object]], None]) -> Callable[[Floats], None]:
    """Return a writer that gives scores the form of `values`: a number a row, a list, or nested lists."""
    flat = flatten(values)
    shape = (len(values),) if flat is None else flat[1]

    def write(scores: Floats) -> None:
        put(scores.reshape(shape).tolist())

    return write


def _labelled(put: Callable[[list[object]], None], reader: Reader) -> Callable[[Ints], None]:
    def write(tops: Ints) -> None:
        put([label_of(reader, int(top)) for top in tops])

    return write


def label_of(reader: Reader, column: int) -> str | int:
    """Return the declared label of a score column; the column's number when none is declared."""
    classes = reader.outputs.classes
    return classes[column] if classes is not None else column
