"""Output tensors of the Open Inference protocol: which are let out, and where their scores and labels stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import cast

import numpy as np

from guard.model.arrays import Bools, Floats, Ints
from guard.model.nested import flatten, floats
from guard.model.outputs import CLASS_KINDS
from guard.model.prediction import Answer, Prediction, Release
from guard.wire.base import Reader
from guard.wire.body import unreadable
from guard.wire.classification import Entries, read_entries
from guard.wire.columnar_answers import count_rows
from guard.wire.columns import classify
from guard.wire.listed_answers import hold_rows
from guard.wire.raw_tensors import Buffer, Fail, cast_scores, is_raw, matrix, pack_bytes, unpack, unpack_bytes
from guard.wire.rows import add_column, label_of
from guard.wire.tensors import FLOATING, NUMBERS, NUMERIC, as_data, dimensions

Raw = dict[str, object]


@dataclass(slots=True)
class Output:
    """One output tensor of an answer.

    Args:
        raw: the decoded member, which is let out and which writes change.
        name: its name.
        datatype: one of the protocol's.
        shape: dimensions, the batch first.
        values: the members in `shape`, as numbers or booleans; flat strings for BYTES; None for BYTES of anything else.
        nested: the data are nested lists.
        binary: the data are bytes.
    """

    raw: Raw
    name: str
    datatype: str
    shape: list[int]
    values: Floats | Ints | Bools | list[str] | None
    nested: bool
    binary: bool = False

    def column(self) -> object:
        """Return one member per row, as `classify` takes it; None when it cannot be a column."""
        if isinstance(self.values, np.ndarray):
            column = self.values.reshape(-1) if self.values.size == self.shape[0] else self.values
            return column if column.dtype.kind in "if" else cast("object", column.tolist())
        return self.values if self.values is not None and len(self.values) == self.shape[0] else None

    def floating(self) -> Floats | None:
        """Return the members as scores, shape (n, k), when the datatype allows them to be; otherwise None."""
        if self.datatype not in FLOATING or not self.shape[0]:
            return None
        return cast("Floats", self.values).reshape(self.shape[0], -1)

    def write(self, scores: Floats) -> None:
        """Put scores back in the tensor's own datatype and form."""
        if self.binary:
            self.raw["data"] = cast_scores(scores.reshape(self.shape[0], -1), self.datatype).tobytes()
        else:
            self.raw["data"] = as_data(scores, self.datatype, self.shape if self.nested else [-1])

    def write_texts(self, texts: Sequence[object]) -> None:
        """Put texts back, row-major, in the tensor's own form."""
        if self.binary:
            self.raw["data"] = pack_bytes([str(text).encode() for text in texts])
        else:
            shaped = np.array(texts, dtype=object).reshape(
                cast("list[int]", self.raw["shape"]) if self.nested else [-1]
            )
            self.raw["data"] = shaped.tolist()

    def write_labels(self, reader: Reader, tops: Ints) -> None:
        """Put the labels of the given columns back; a numeric tensor that has texts for classes gets the columns."""
        labels = [label_of(reader, int(top)) for top in tops]
        if self.datatype == "BYTES":
            self.write_texts([str(label) for label in labels])
            return
        numbers = [label if isinstance(label, int) else int(top) for label, top in zip(labels, tops, strict=True)]
        self.write(np.array(numbers, dtype=np.float64))


def read_output(member: object, place: str) -> Output:
    """Decode a member of `outputs`.

    Raises:
        UpstreamError: it is no tensor of the protocol, or its data stand somewhere else.
    """
    if not isinstance(member, dict):
        raise unreadable(f"{place} is not a tensor")
    raw = cast("Raw", member)
    name, datatype, data = raw.get("name"), raw.get("datatype"), raw.get("data")
    shape = dimensions(raw.get("shape"), 0)
    if not isinstance(name, str) or not isinstance(datatype, str) or shape is None:
        raise unreadable(f"{place} is not a tensor")
    if datatype != "BYTES" and datatype not in NUMERIC:
        raise unreadable(f"{place} has an unknown datatype")
    if is_raw(data):
        values = _unpacked(cast("Buffer", data), datatype, shape, lambda what: unreadable(f"{place} {what}"))
        return Output(raw, name, datatype, shape, values, nested=False, binary=True)
    if not isinstance(data, list):
        raise unreadable(f"{place} is not a tensor of JSON data")
    items = cast("list[object]", data)
    nested = bool(items) and isinstance(items[0], list)
    flat: Sequence[object] = ()
    if prod(shape) or items:
        found = flatten(items)
        if found is None or len(found[0]) != prod(shape):
            raise unreadable(f"{place} does not have as many members as its shape says")
        flat = found[0]
    kinds = set(map(type, flat))
    if datatype == "BYTES":
        texts = list(cast("Sequence[str]", flat)) if kinds == {str} else None
        return Output(raw, name, datatype, shape, texts, nested)
    if not kinds <= NUMBERS:
        raise unreadable(f"{place} holds what is not a number")
    return Output(raw, name, datatype, shape, _array(flat, kinds, datatype).reshape(shape), nested)


def _unpacked(data: Buffer, datatype: str, shape: list[int], fail: Fail) -> Floats | Ints | Bools | list[str] | None:
    if datatype == "BYTES":
        try:
            return [member.decode() for member in unpack_bytes(data, shape, fail)]
        except UnicodeDecodeError:
            return None
    found = unpack(data, datatype, shape, fail).reshape(shape)
    if datatype in FLOATING or (datatype == "UINT64" and found.size and int(cast("int", found.max())) >= 2**63):
        return matrix(found, 1).reshape(shape)
    return cast("Bools", found) if datatype == "BOOL" else found.astype(np.int64)


def _array(flat: Sequence[object], kinds: set[type], datatype: str) -> Floats | Ints | Bools:
    if kinds == {bool} and datatype not in FLOATING:
        return np.array(flat, dtype=np.bool_)
    # null is how many servers write NaN.
    numbers = np.array(flat, dtype=np.float64)
    if datatype in FLOATING or not kinds <= {int, bool} or np.abs(numbers).max(initial=0.0) >= 2.0**63:
        return numbers
    return np.array(flat, dtype=np.int64)


def read_outputs(outputs: list[Output], reader: Reader, answer: Answer) -> list[Raw]:
    """Read tensors into `answer` and return those to let out, in order.

    Args:
        outputs: all tensors of the answer; their names differ.
        reader: the route's outputs and fields.
        answer: holds the rows asked for; gets its own, predictions, labels and dropped names.

    Raises:
        UpstreamError: nothing of the declared kind is left.
    """
    kept: set[str] = set()
    rest: list[Output] = []
    for output in outputs:
        entries = _entries(output, answer.rows)
        if entries is None:
            rest.append(output)
        elif _admit_entries(output, entries, reader, answer):
            kept.add(output.name)
    sizes = [len(prediction.scores) for prediction in answer.predictions]
    lengths = [(output.name, output.shape[0], output.floating()) for output in rest]
    if not lengths and not sizes:
        raise unreadable(f"none of {', '.join(output.name for output in outputs)} holds {reader.outputs.kind}")
    hold_rows(answer, count_rows(lengths, sizes, reader, answer.rows))
    if any(size != answer.rows for size in sizes):
        raise unreadable("its tensors do not agree on the number of rows")
    kept |= _read_columns(rest, reader, answer)
    answer.dropped += [output.name for output in outputs if output.name not in kept]
    if not answer.predictions and not answer.labels:
        raise unreadable(f"none of {', '.join(output.name for output in outputs)} holds {reader.outputs.kind}")
    return [output.raw for output in outputs if output.name in kept]


def _entries(output: Output, asked: int) -> Entries | None:
    """Decode a classification tensor: [n, k], or [k] for the one row of a model without batches."""
    if output.datatype != "BYTES" or not isinstance(output.values, list):
        return None
    rows = output.shape[0] if len(output.shape) > 1 else 1
    entries = read_entries(output.values, rows)
    if entries is not None and len(output.shape) == 1 and asked != 1:
        raise unreadable(f"the rows of {output.name} cannot be told apart")
    return entries


def _admit_entries(output: Output, entries: Entries, reader: Reader, answer: Answer) -> bool:
    outputs = reader.outputs
    named = outputs.tensors is not None and output.name in outputs.tensors
    if entries.whole or outputs.kind not in CLASS_KINDS or (outputs.tensors is not None and not named):
        return False
    if not outputs.accepts(entries.scores, complete=False, named=named):
        return False
    complete = outputs.accepts(entries.scores, complete=True, named=False)
    write = partial(_write_entries, output, entries)
    answer.predictions.append(Prediction(output.name, entries.scores, write, "sparse", complete, labels=entries.texts))
    return True


def _write_entries(output: Output, entries: Entries, release: Release) -> None:
    rows = entries.written(release)
    width = len(rows[0])
    output.raw["shape"] = [len(rows), width] if len(output.shape) > 1 else [width]
    output.write_texts([text for row in rows for text in row])


def _read_columns(rest: list[Output], reader: Reader, answer: Answer) -> set[str]:
    """Read what is no classification tensor; returns the names that are let out."""
    every = reader.fields == "all"
    columns: dict[str, object] = {}
    kept: set[str] = set()
    for output in rest:
        column = output.column() if output.shape[0] == answer.rows and answer.rows else None
        if column is not None:
            columns[output.name] = column
        elif every and isinstance(output.values, np.ndarray):
            if output.values.dtype.kind == "f":
                raise unreadable(f"{output.name} holds numbers that are not {reader.outputs.kind}")
            kept.add(output.name)
    roles = classify(columns, answer.rows, reader.outputs, reader.fields) if columns else {}
    for output in rest:
        role = roles.get(output.name)
        # A text that is no label may hold anything, scores included.
        if role is None or role.role == "drop" or (role.role == "keep" and output.datatype == "BYTES"):
            continue
        write_labels: Callable[[Ints], None] = partial(output.write_labels, reader)
        add_column(answer, output.name, role, output.write, write_labels)
        kept.add(output.name)
    return kept


def simple_scores(member: object, rows: int, kind: str) -> tuple[str, Floats] | None:
    """Return (name, scores of shape (n, k)) of the plainest answer there is, one flat [n, k] tensor of floats."""
    if not isinstance(member, dict) or kind == "value":
        return None
    raw = cast("Raw", member)
    name, shape, data, datatype = raw.get("name"), raw.get("shape"), raw.get("data"), raw.get("datatype")
    if type(shape) is not list or type(name) is not str or type(datatype) is not str or datatype not in FLOATING:
        return None
    dims = cast("Sequence[object]", shape)
    width = dims[1] if len(dims) == 2 and dims[0] == rows else None
    if type(width) is not int or width < 2:
        return None
    if is_raw(data):
        members = unpack(cast("Buffer", data), datatype, (rows, width), lambda what: unreadable(f"{name} {what}"))
        return name, matrix(members, rows)
    if type(data) is not list or len(cast("list[object]", data)) != rows * width:
        return None
    scores = floats(cast("list[object]", data))
    return None if scores is None else (name, scores.reshape(rows, width))
