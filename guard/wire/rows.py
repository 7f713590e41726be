"""Answers that are a list with one item a row: numbers, lists of numbers, or objects. KServe V1, MLflow, SageMaker, TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.model.prediction import Answer, LabelSlot, Prediction, Release
from guard.wire.base import Reader
from guard.wire.body import unreadable
from guard.wire.columns import Column, classify, numbers


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
        _read_objects(cast("list[dict[str, object]]", items), reader, answer, name)
        return items
    role = classify({name: items}, len(items), reader.outputs, reader.fields)[name]
    if role.role in ("drop", "keep"):
        raise unreadable(f"{name} holds no {reader.outputs.kind}")
    add_column(answer, name, role, _list_writer(items), _label_writer(items, reader))
    return items


def read_map(items: Sequence[dict[str, object]], reader: Reader, answer: Answer, name: str) -> bool:
    """Read rows that are maps of label -> score; returns False, with nothing read, when they are something else."""
    keys = list(items[0])
    if reader.outputs.kind not in ("probabilities", "logits", "logprobs") or any(set(item) != set(keys) for item in items):
        return all([read_map([item], reader, answer, name) for item in items]) if _ragged(items) else False
    matrix, floating = numbers([[item[key] for key in keys] for item in items], len(items))
    if matrix is None or not floating or not reader.outputs.accepts(matrix, complete=False, named=False):
        return False
    complete = reader.outputs.accepts(matrix, complete=True, named=False)

    def write(release: Release) -> None:
        for row, item in enumerate(items):
            ranked = rank(keys, release, row)
            item.clear()
            item.update(ranked)

    answer.predictions.append(Prediction(name, matrix, write, "sparse", complete))
    return True


def _ragged(items: Sequence[dict[str, object]]) -> bool:
    return False if len(items) < 2 else all(len(item) > 0 for item in items)


def rank(labels: Sequence[str], release: Release, row: int) -> list[tuple[str, float]]:
    """Return the kept (label, score) pairs of one row, greatest first, ties by label.

    The order is a function of what is released alone: keeping the upstream's order would tell the ranks that a defence has hidden.
    """
    scores = release.scores[row]
    kept = range(len(labels)) if release.kept is None else np.flatnonzero(release.kept[row])
    return sorted(((labels[i], float(scores[i])) for i in kept), key=lambda pair: (-pair[1], pair[0]))


def add_column(
    answer: Answer,
    name: str,
    column: Column,
    write: Callable[[Floats], None],
    write_labels: Callable[[Ints], None],
) -> None:
    """Register a classified column with `answer`.

    Args:
        answer: gets the prediction or label slot.
        name: the column's name.
        column: its role and scores.
        write: puts released scores, shape (n, k) or (n, 1), back.
        write_labels: puts the labels of the given columns back.
    """
    if column.role == "label":
        answer.labels.append(LabelSlot(name, write_labels))
        return
    if column.role not in ("scores", "two_class", "top_score") or column.scores is None:
        return
    two_class = column.role == "two_class"

    def release_into(release: Release) -> None:
        write(release.scores[:, 1:] if two_class else release.scores)

    shape = "fixed" if column.role == "scores" else column.role
    prediction = Prediction(name, column.scores, release_into, shape, column.complete)
    if shape == "fixed" and column.complete:
        # A whole score vector leads: copies of the top score follow it.
        first = next((i for i, p in enumerate(answer.predictions) if p.shape == "top_score"), len(answer.predictions))
        answer.predictions.insert(first, prediction)
    else:
        answer.predictions.append(prediction)


def _read_objects(items: list[dict[str, object]], reader: Reader, answer: Answer, name: str) -> None:
    if items[0] and read_map(items, reader, answer, name):
        return
    keys = dict.fromkeys(key for item in items for key in item)
    shared = [key for key in keys if all(key in item for item in items)]
    columns = {key: [item[key] for item in items] for key in shared}
    roles = classify(columns, len(items), reader.outputs, reader.fields)
    nested = _read_nested(items, roles, reader, answer)
    for key in keys:
        role = roles.get(key)
        if key in nested:
            continue
        if role is None or role.role == "drop":
            if reader.fields == "all" and role is None:
                raise unreadable(f"{key} stands in some rows only")
            answer.dropped.append(key)
            for item in items:
                item.pop(key, None)
            continue
        add_column(answer, key, role, _key_writer(items, key), _label_key_writer(items, key, reader))
    if not answer.predictions and not answer.labels:
        raise unreadable(f"none of {', '.join(sorted(keys)) or 'its members'} holds {reader.outputs.kind}")


def _read_nested(
    items: list[dict[str, object]], roles: dict[str, Column], reader: Reader, answer: Answer
) -> set[str]:
    """Read members that are themselves maps of label -> score, such as `"probabilities": {"cat": 0.9, "dog": 0.1}`."""
    found: set[str] = set()
    for key, role in roles.items():
        if role.role not in ("drop", "keep") or not all(isinstance(item[key], dict) and item[key] for item in items):
            continue
        if reader.outputs.tensors is not None and key not in reader.outputs.tensors:
            continue
        if read_map([cast("dict[str, object]", item[key]) for item in items], reader, answer, key):
            found.add(key)
    return found


def _like(value: object, scores: Floats) -> object:
    """Return `scores`, shape (k,), as a number or as a nested list of the same form as `value`."""
    if isinstance(value, list):
        shape = np.shape(cast("list[object]", value))
        return cast("object", scores.reshape(shape).tolist())
    return float(scores[0])


def _list_writer(items: list[object]) -> Callable[[Floats], None]:
    def write(scores: Floats) -> None:
        for row, value in enumerate(items):
            items[row] = _like(value, scores[row])

    return write


def _key_writer(items: list[dict[str, object]], key: str) -> Callable[[Floats], None]:
    def write(scores: Floats) -> None:
        for row, item in enumerate(items):
            item[key] = _like(item[key], scores[row])

    return write


def _label_writer(items: list[object], reader: Reader) -> Callable[[Ints], None]:
    def write(tops: Ints) -> None:
        for row, top in enumerate(tops):
            items[row] = label_of(reader, int(top))

    return write


def _label_key_writer(items: list[dict[str, object]], key: str, reader: Reader) -> Callable[[Ints], None]:
    def write(tops: Ints) -> None:
        for row, top in enumerate(tops):
            items[row][key] = label_of(reader, int(top))

    return write


def label_of(reader: Reader, column: int) -> str | int:
    """Return the declared label of a score column; the column's number when none is declared."""
    classes = reader.outputs.classes
    return classes[column] if classes is not None else column
