"""Scores that stand beside their labels: maps of label -> score, and lists of (label, score).

What a defence drops leaves together with its label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.model.outputs import CLASS_KINDS, Outputs
from guard.model.prediction import Answer, Prediction, Release
from guard.wire.base import Reader
from guard.wire.columns import numbers

Ranked = list[tuple[str, float]]
_RECORD_KEYS = frozenset(
    {"label", "labels", "class", "classes", "score", "scores", "confidence", "probability", "probabilities", "prob"}
    | {"prediction", "predictions", "predicted_label", "predicted_class", "class_id", "id", "index"}
)

_SCORES = frozenset({float, int, type(None)})


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of an answer that have equally many labels, and are whole distributions or not.

    The labels themselves may differ from row to row.

    Args:
        rows: indices of the rows.
        labels: each row's labels, in the order of its columns.
        scores: shape (len(rows), k).
        complete: rows are whole distributions.
    """

    rows: Sequence[int]
    labels: Sequence[Sequence[str]]
    scores: Floats
    complete: bool


def group_rows(
    labels: Sequence[Sequence[str]], scores: Sequence[Sequence[object]], outputs: Outputs, *, named: bool
) -> list[Group] | None:
    """Group rows by their number of labels, and by whether they are whole distributions.

    None when these are not scores of the declared kind.

    Empty rows are in no group.

    Args:
        labels: each row's labels.
        scores: each row's scores, in the same order.
        outputs: the route's declaration.
        named: the operator named this member in `tensors`.
    """
    if outputs.kind not in CLASS_KINDS:
        return None
    sizes: dict[int, list[int]] = {}
    for row, values in enumerate(scores):
        if values:
            sizes.setdefault(len(values), []).append(row)
    groups: list[Group] = []
    for rows in sizes.values():
        matrix, _ = numbers([scores[row] for row in rows], len(rows))
        if matrix is None or not outputs.accepts(matrix, complete=False, named=named):
            return None
        for complete, indexes in _by_completeness(matrix, outputs):
            chosen = [rows[i] for i in indexes]
            groups.append(Group(chosen, [labels[row] for row in chosen], matrix[indexes], complete))
    return groups or None


def _by_completeness(matrix: Floats, outputs: Outputs) -> list[tuple[bool, list[int]]]:
    """Part rows that are whole distributions from others: what is released of a row must not depend on those beside it.

    Were it so, the same query alone and beside another would be two answers to average.
    """
    every = list(range(len(matrix)))
    if outputs.accepts(matrix, complete=True, named=False):
        return [(True, every)]
    whole = {i for i in every if outputs.accepts(matrix[i : i + 1], complete=True, named=False)}
    parts = [(True, sorted(whole)), (False, [i for i in every if i not in whole])]
    return [(complete, indexes) for complete, indexes in parts if indexes]


def add_groups(
    answer: Answer, name: str, groups: Sequence[Group], rows: int, put: Callable[[int, Ranked], None]
) -> None:
    """Register a prediction for each group.

    Args:
        answer: gets the predictions.
        name: the member's name.
        groups: all groups of the member.
        rows: how many rows the answer has.
        put: puts a row's released pairs, ranked, in the place of what was read.
    """
    for group in groups:
        whole = len(group.rows) == rows
        indexes: Ints | None = None if whole else np.array(group.rows, dtype=np.int64)
        answer.predictions.append(
            Prediction(name, group.scores, _writer(group, put), "sparse", group.complete, indexes, group.labels)
        )


def _writer(group: Group, put: Callable[[int, Ranked], None]) -> Callable[[Release], None]:
    def write(release: Release) -> None:
        for i, row in enumerate(group.rows):
            put(row, rank(group.labels[i], release, i))

    return write


def rank(labels: Sequence[str], release: Release, row: int) -> Ranked:
    """Return the kept (label, score) pairs of one row, greatest first, ties by label.

    The order is a function of what is released alone: keeping the upstream's order would tell the ranks that a
    defence has hidden.
    """
    scores = cast("list[float]", release.scores[row].tolist())
    kept = range(len(labels)) if release.kept is None else np.flatnonzero(release.kept[row]).tolist()
    return sorted([(labels[i], scores[i]) for i in kept], key=_greatest_first)


def _greatest_first(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


def map_groups(items: Sequence[object], outputs: Outputs, name: str) -> list[Group] | None:
    """Group rows that are maps of label -> score; None when they are something else, a record for example."""
    named = outputs.tensors is not None and name in outputs.tensors
    if outputs.kind not in CLASS_KINDS or (outputs.tensors is not None and not named):
        return None
    for item in items:
        if not isinstance(item, dict) or not _SCORES.issuperset(map(type, cast("dict[str, object]", item).values())):
            return None
    maps = cast("Sequence[dict[str, object]]", items)
    if not named and any(key.lower() in _RECORD_KEYS for item in maps for key in item):
        return None
    groups = group_rows([list(m) for m in maps], [list(m.values()) for m in maps], outputs, named=named)
    if groups is None or named or all(group.complete for group in groups):
        return groups
    # Whole numbers among scores that do not even sum to 1 are counts or identifiers.
    return None if any(type(value) is int for item in maps for value in item.values()) else groups


def read_map(items: Sequence[dict[str, object]], reader: Reader, answer: Answer, name: str) -> bool:
    """Read rows that are maps of label -> score; returns False, with nothing read, when they are something else."""
    groups = map_groups(items, reader.outputs, name)
    if groups is None:
        return False

    def put(row: int, ranked: Ranked) -> None:
        items[row].clear()
        items[row].update(ranked)

    add_groups(answer, name, groups, len(items), put)
    return True
