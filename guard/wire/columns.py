"""Which members of an answer carry scores, which repeat the label, and which nobody asked for.

Model servers name their outputs as they like. What identifies scores is the declared kind: under `probabilities` a row
of numbers in [0, 1] that sum to 1 is a distribution whatever it is called, and a hidden layer is not. A **column** is
one named member over all rows of an answer: a tensor of the Open Inference protocol, or one key of a list of objects.
Everything that is not a score of the declared kind, a copy of the top score or a label is dropped under `fields:
known`; under `fields: all` it stays, unless it holds floating numbers, which are refused because they may be scores
that no defence has touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from guard.model.arrays import Floats
from guard.model.nested import flatten, floats
from guard.model.outputs import CLASS_KINDS, Kind, Outputs
from guard.wire.base import Fields
from guard.wire.body import unreadable

Role = Literal["scores", "two_class", "top_score", "label", "keep", "drop"]
Table = tuple[Floats | None, bool]
_LABEL_WORDS = re.compile("label|class|predict|categor|target|species", re.IGNORECASE)
_NO_LABEL_WORDS = re.compile("score|confidence|prob|logit|margin|leaf|leaves|count|node|time|dist", re.IGNORECASE)
_TOP_WORDS = re.compile("score|confidence|prob", re.IGNORECASE)
_KIND_WORDS: dict[Kind, re.Pattern[str]] = {
    "probabilities": re.compile("prob|score|confidence", re.IGNORECASE),
    "logits": re.compile("logit|score|decision", re.IGNORECASE),
    "logprobs": re.compile("log", re.IGNORECASE),
    "value": re.compile("predict|value|output|result|score|mean", re.IGNORECASE),
    "embedding": re.compile("embed|vector", re.IGNORECASE),
    "labels": re.compile("label", re.IGNORECASE),
}
_LABELLED = CLASS_KINDS | {"labels"}
_SCORE_TEXT = re.compile(r"\.\d|\d[eE]-\d|\d\s*%")


class Column(NamedTuple):
    """What one member of an answer is.

    Args:
        role: what to do with it; `scores` and `two_class` carry `scores`, `top_score` carries (n, 1).
        scores: shape (n, k), or (n, 2) for `two_class`; None for other roles.
        complete: rows are whole distributions.
    """

    role: Role
    scores: Floats | None = None
    complete: bool = True


_KEEP, _DROP, _LABEL = Column("keep"), Column("drop"), Column("label")


def numbers(values: object, rows: int) -> Table:
    """Return (matrix of shape (rows, k) or None when these are not numbers, whether any is written as a float).

    null reads as NaN when other members are numbers (that is how many servers write NaN).
    """
    if isinstance(values, np.ndarray):
        array = cast("NDArray[np.generic]", values)
        if array.dtype.kind not in "iuf" or array.ndim == 0 or array.size == 0 or len(array) != rows:
            return None, False
        return array.reshape(rows, -1).astype(np.float64, copy=False), array.dtype.kind == "f"
    if not isinstance(values, list | tuple):
        return None, False
    flat = flatten(cast("Sequence[object]", values))
    if flat is None or flat[1][0] != rows:
        return None, False
    members = flat[0]
    array = floats(members)
    if array is None:
        kinds = set(map(type, members))
        if type(None) not in kinds or not kinds <= {float, int, type(None)} or len(kinds) == 1:
            return None, False
        array = np.array(members, dtype=np.float64)
    return array.reshape(rows, -1), float in map(type, members)


def several(values: object) -> bool:
    """Say whether a row holds more than one vector: it has two dimensions or more that are longer than 1.

    >>> several([[0.1, 0.9]]), several([[[0.1, 0.9]]]), several([[[0.1, 0.9], [0.4, 0.6]]])
    (False, False, True)
    """
    if isinstance(values, np.ndarray):
        shape = cast("tuple[int, ...]", values.shape)
    else:
        first = values
        for _ in range(3):
            if not isinstance(first, list) or not first:
                return False
            first = cast("list[object]", first)[0]
        flat = flatten(cast("list[object]", values))
        shape = () if flat is None else flat[1]
    return sum(size > 1 for size in shape[1:]) > 1


def holds_floats(value: object) -> bool:
    """Say whether a floating number stands anywhere inside decoded JSON."""
    if isinstance(value, float):
        return True
    if isinstance(value, np.ndarray):
        return cast("NDArray[np.generic]", value).dtype.kind == "f"
    if isinstance(value, dict):
        return any(holds_floats(v) for v in cast("dict[str, object]", value).values())
    if isinstance(value, list | tuple):
        return any(holds_floats(v) for v in cast("Sequence[object]", value))
    return False


def classify(
    columns: Mapping[str, object],
    rows: int,
    outputs: Outputs,
    fields: Fields,
    principal: Floats | None = None,
    *,
    record: bool = False,
) -> dict[str, Column]:
    """Give every column its role.

    Args:
        columns: name -> values, `rows` of them along the first axis (lists or arrays).
        rows: how many rows the answer has.
        outputs: the route's declaration.
        fields: what happens to the rest.
        principal: score vectors found elsewhere in the same rows, shape (n, k), which a column may repeat.
        record: the columns are members of objects, where one alone needs a usual name to be a label.

    Returns:
        A role for each name, in the same order.

    Raises:
        UpstreamError: under `fields: all`, a floating column is not of the declared kind.
    """
    tables = {name: numbers(values, rows) for name, values in columns.items()}
    if outputs.kind in CLASS_KINDS:
        # More than one vector a row is more than one prediction for the price of one.
        for name in [name for name, values in columns.items() if several(values)]:
            tables[name] = None, tables[name][1]
    vectors = _score_columns(tables, outputs)
    if principal is None and vectors:
        principal = tables[vectors[0]][0]
    sight = _Sight(outputs, principal, alone=len(columns) == 1 and not record and principal is None)
    labels = {name for name in columns if name not in vectors and sight.is_label(name, columns[name], tables[name])}
    lone = None if principal is not None else _lone_column(tables, labels, outputs)
    roles: dict[str, Column] = {}
    for name, values in columns.items():
        matrix, floating = tables[name]
        if name in labels:
            roles[name] = _LABEL
        elif matrix is not None and name in vectors:
            roles[name] = Column("scores", matrix)
        elif matrix is not None and (
            name == lone or (principal is None and _named(name, outputs) and _lone(matrix, outputs))
        ):
            roles[name] = lone_score(matrix, [columns[label] for label in labels])
        elif matrix is not None and principal is not None and _repeats_top(name, matrix, floating, principal, outputs):
            roles[name] = Column("top_score", matrix)
        elif fields == "all" and (floating or (matrix is None and holds_floats(values))):
            raise unreadable(f"{name or 'a member'} holds numbers that are not {outputs.kind}")
        elif fields == "all" and matrix is None and any(map(_score_text, _texts(values))):
            raise unreadable(f"{name or 'a member'} holds numbers as text")
        else:
            roles[name] = _KEEP if fields == "all" else _DROP
    return roles


@lru_cache(maxsize=1024)
def _usual_label(name: str) -> bool:
    return bool(_LABEL_WORDS.search(name)) and not _NO_LABEL_WORDS.search(name)


def _named(name: str, outputs: Outputs) -> bool:
    return outputs.tensors is not None and name in outputs.tensors


def _score_columns(tables: Mapping[str, Table], outputs: Outputs) -> list[str]:
    """Names of the columns that hold a score vector (a number for kind `value`) per row, the principal one first."""
    if outputs.kind == "labels":
        return []
    found: list[str] = []
    for name, (matrix, floating) in tables.items():
        named = _named(name, outputs)
        if matrix is None or (outputs.tensors is not None and not named):
            continue
        wide = matrix.shape[1] > 1
        # One number a row is a value, or a two-class logit; as a probability it is looked at later, beside the others.
        if not wide and not (outputs.kind == "value" or (outputs.kind == "logits" and (floating or named))):
            continue
        # Whole numbers may be a one-hot distribution or a value; logits or an embedding they are not.
        if not floating and not named and outputs.kind not in ("probabilities", "value") and len(tables) > 1:
            continue
        if outputs.accepts(matrix, complete=True, named=named):
            found.append(name)
    if len(found) > 1 and outputs.tensors is None and outputs.kind != "probabilities":
        # Nothing in the numbers tells logits or a value from a hidden layer: a name may, else the first is let out.
        hinted = [name for name in found if _KIND_WORDS[outputs.kind].search(name)]
        return (hinted or [name for name in found if tables[name][1]] or found)[:1]
    return found


class _Sight(NamedTuple):
    """What the roles of columns are judged by."""

    outputs: Outputs
    principal: Floats | None
    alone: bool

    def is_label(self, name: str, values: object, table: Table) -> bool:
        """Say whether a column repeats each row's label: whole numbers or words, by its name or the argmax."""
        matrix, floating = table
        scalar = _words(values) if matrix is None else matrix.shape[1] == 1 and (not floating or _integral(matrix))
        if not scalar or self.outputs.labels is not None:
            return scalar and self.outputs.labels is not None and name in self.outputs.labels
        if self.outputs.kind not in _LABELLED:
            return False
        usual = _usual_label(name)
        if matrix is None:
            return (self.alone or usual) and not any(map(_score_text, cast("Sequence[object]", values)))
        if floating and self.outputs.kind == "probabilities" and self.principal is None:
            # 1.0 alone is a probability; beside other columns, or above 1, it is a label that was written as a float.
            return usual if not self.alone else bool(matrix.max() > 1.0)
        if self.alone or usual:
            return True
        return self.principal is not None and np.array_equal(matrix[:, 0], self.principal.argmax(axis=1))


def _lone_column(tables: Mapping[str, Table], labels: set[str], outputs: Outputs) -> str | None:
    """Name of the column that holds one probability per row: by its name, otherwise the first one."""
    if outputs.kind != "probabilities" or outputs.tensors is not None:
        return None
    found = [
        name
        for name, (matrix, floating) in tables.items()
        if floating and matrix is not None and name not in labels and _lone(matrix, outputs)
    ]
    hinted = [name for name in found if _KIND_WORDS["probabilities"].search(name)]
    return (hinted or found or [None])[0]


def _lone(matrix: Floats, outputs: Outputs) -> bool:
    return (
        matrix.shape[1] == 1 and outputs.kind == "probabilities" and outputs.accepts(matrix, complete=False, named=True)
    )


def lone_score(matrix: Floats, labels: list[object]) -> Column:
    """One probability a row: the second class's, unless labels beside it say that it is the predicted class's."""
    second = matrix[:, 0] >= 0.5
    for values in labels:
        numeric, _ = numbers(values, len(matrix))
        if numeric is None or not np.array_equal(numeric[:, 0], second):
            return Column("scores", matrix, complete=False)
    return Column("two_class", np.concatenate((1.0 - matrix, matrix), axis=1))


def _repeats_top(name: str, matrix: Floats, floating: bool, principal: Floats, outputs: Outputs) -> bool:
    """Say whether a column repeats each row's greatest score."""
    if outputs.kind not in CLASS_KINDS or not floating or matrix.shape[1] != 1:
        return False
    if outputs.tensors is not None and name not in outputs.tensors:
        return False
    if outputs.kind == "probabilities" and not outputs.accepts(matrix, complete=False, named=True):
        return False
    if outputs.kind == "probabilities" and _TOP_WORDS.search(name):
        return True
    return bool(np.allclose(matrix[:, 0], principal.max(axis=1), atol=1e-6, equal_nan=True))


def _integral(matrix: Floats) -> bool:
    return bool((matrix == np.rint(matrix)).all())


def _words(values: object) -> bool:
    """Say whether values are one scalar per row."""
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and cast("NDArray[np.generic]", values).dtype.kind in "US"
    if not isinstance(values, list | tuple):
        return False
    kinds = set(map(type, cast("Sequence[object]", values)))
    return kinds <= {str, int, bool, type(None)} and kinds != {type(None)}


def _texts(values: object) -> Sequence[object]:
    return cast("Sequence[object]", values) if isinstance(values, list | tuple) else ()


def _score_text(value: object) -> bool:
    """Say whether a text may be a score, or hold one: Triton's "0.417371:7", "97.2%"."""
    if not isinstance(value, str) or not _SCORE_TEXT.search(value):
        return False
    try:
        return not float(value).is_integer()
    except ValueError:
        return True
