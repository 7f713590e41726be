"""Which members of an answer carry scores, which repeat the label, and which nobody asked for.

Model servers name their outputs as they like. What identifies scores is the declared kind: under `probabilities` a row of numbers
in [0, 1] that sum to 1 is a distribution whatever it is called, and a hidden layer is not. A **column** is one named member over all rows
of an answer: a tensor of the Open Inference protocol, or one key of a list of objects. Everything that is not a score of the declared kind,
a copy of the top score or a label is dropped under `fields: known`; under `fields: all` it stays, unless it holds floating
numbers, which are refused because they may be scores that no defence has touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from guard.model.arrays import Floats
from guard.model.outputs import Kind, Outputs
from guard.wire.base import Fields
from guard.wire.body import unreadable

Role = Literal["scores", "two_class", "top_score", "label", "keep", "drop"]
_LABEL_WORDS = ("label", "class", "predict", "categor")
_TOP_WORDS = ("score", "confidence", "prob")
_KIND_WORDS: dict[Kind, tuple[str, ...]] = {
    "probabilities": ("prob", "score"),
    "logits": ("logit", "score", "decision"),
    "logprobs": ("log",),
    "value": ("predict", "value", "output", "result", "score", "mean"),
    "embedding": ("embed", "vector"),
    "labels": (),
}


@dataclass(frozen=True, slots=True)
class Column:
    """What one member of an answer is.

    Args:
        role: what to do with it; `scores` and `two_class` carry `scores`, `top_score` carries (n, 1).
        scores: shape (n, k), or (n, 2) for `two_class`; None for other roles.
        complete: rows are whole distributions.
    """

    role: Role
    scores: Floats | None = None
    complete: bool = True


def numbers(values: object, rows: int) -> tuple[Floats | None, bool]:
    """Return (matrix of shape (rows, k) or None when these are not numbers, whether any is written as a float).

    null reads as NaN when other members are numbers (that is how many servers write NaN).
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        return None, False
    if array.dtype.kind == "O":
        try:
            array = np.array(values, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            return None, False
        if np.isnan(array).all():
            return None, False
    if array.dtype.kind not in "iuf" or array.ndim == 0 or array.size == 0 or array.shape[0] != rows:
        return None, False
    return array.reshape(rows, -1).astype(np.float64, copy=False), array.dtype.kind == "f"


def holds_floats(value: object) -> bool:
    """Say whether a floating number stands anywhere inside decoded JSON."""
    if isinstance(value, float):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f"
    if isinstance(value, dict):
        return any(holds_floats(v) for v in cast("dict[str, object]", value).values())
    if isinstance(value, list | tuple):
        return any(holds_floats(v) for v in cast("Sequence[object]", value))
    return False


def classify(columns: Mapping[str, object], rows: int, outputs: Outputs, fields: Fields) -> dict[str, Column]:
    """Give every column its role.

    Args:
        columns: name -> values, `rows` of them along the first axis (lists or arrays).
        rows: how many rows the answer has.
        outputs: the route's declaration.
        fields: what happens to the rest.
    Returns:
        A role for each name, in the same order.
    Raises:
        UpstreamError: under `fields: all`, a floating column is not of the declared kind.
    """
    tables = {name: numbers(values, rows) for name, values in columns.items()}
    vectors = _score_columns(tables, outputs)
    principal = tables[vectors[0]][0] if vectors else None
    roles: dict[str, Column] = {}
    for name, values in columns.items():
        matrix, floating = tables[name]
        if name in vectors and matrix is not None:
            roles[name] = Column("scores", matrix)
            continue
        column = _single(name, matrix, floating, principal, columns, outputs)
        if column is None:
            if fields == "all" and (floating or (matrix is None and holds_floats(values))):
                raise unreadable(f"{name or 'a member'} holds numbers that are not {outputs.kind}")
            column = Column("keep" if fields == "all" else "drop")
        roles[name] = column
    return roles


def _score_columns(tables: Mapping[str, tuple[Floats | None, bool]], outputs: Outputs) -> list[str]:
    """Names of the columns that hold a score vector (or, for kind `value`, numbers) per row, the principal one first."""
    found: list[str] = []
    for name, (matrix, floating) in tables.items():
        named = outputs.tensors is not None and name in outputs.tensors
        if matrix is None or (outputs.tensors is not None and not named):
            continue
        wide = matrix.shape[1] > 1
        if not (named or wide or outputs.kind in ("value", "logits")):
            continue
        # A vector of whole numbers may be a one-hot distribution; as logits or an embedding it would be a count or an index.
        if not floating and not named and not (outputs.kind in ("probabilities", "labels") and wide) and len(tables) > 1:
            continue
        if wide or outputs.kind in ("value", "logits"):
            if outputs.accepts(matrix, complete=True, named=named):
                found.append(name)
    if len(found) > 1 and outputs.tensors is None and outputs.kind != "probabilities":
        # Nothing in the numbers tells logits or a vector from a hidden layer: a name may, otherwise the first one is let out.
        hinted = [name for name in found if any(word in name.lower() for word in _KIND_WORDS[outputs.kind])]
        return (hinted or found)[:1]
    return found


def _single(
    name: str,
    matrix: Floats | None,
    floating: bool,
    principal: Floats | None,
    columns: Mapping[str, object],
    outputs: Outputs,
) -> Column | None:
    """Role of a column with one value per row; None when it has none."""
    lower = name.lower()
    if outputs.labels is not None and name in outputs.labels:
        return Column("label")
    if floating and matrix is not None and matrix.shape[1] == 1 and outputs.kind == "probabilities":
        if outputs.tensors is not None and name not in outputs.tensors:
            return None
        if not outputs.accepts(matrix, complete=False, named=True):
            return None
        if principal is not None:
            copies = any(word in lower for word in _TOP_WORDS) or bool(
                np.allclose(matrix[:, 0], principal.max(axis=1), atol=1e-6, equal_nan=True)
            )
            return Column("top_score", matrix) if copies else None
        others = [values for other, values in columns.items() if other != name]
        return _lone_score(matrix, others)
    if floating or outputs.labels is not None:
        return None
    if matrix is not None and matrix.shape[1] != 1:
        return None
    if matrix is None and not _scalars(columns[name]):
        return None
    if len(columns) == 1 or any(word in lower for word in _LABEL_WORDS):
        return Column("label")
    return None


def _lone_score(matrix: Floats, others: list[object]) -> Column:
    """One probability a row: the second class's, unless labels beside it say that it is the predicted class's."""
    for values in others:
        labels = np.asarray(values) if _scalars(values) else None
        if labels is None or labels.shape != (len(matrix),):
            continue
        try:
            agrees = bool(np.array_equal(labels.astype(np.float64), (matrix[:, 0] >= 0.5).astype(np.float64)))
        except ValueError:
            agrees = False
        if not agrees:
            return Column("scores", matrix, complete=False)
    return Column("two_class", np.concatenate((1.0 - matrix, matrix), axis=1))


def _scalars(values: object) -> bool:
    if isinstance(values, np.ndarray):
        return values.ndim == 1
    return isinstance(values, list | tuple) and not any(
        isinstance(v, dict | list | tuple) for v in cast("Sequence[object]", values)
    )
