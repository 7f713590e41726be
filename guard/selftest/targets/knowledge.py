"""What the attacker of a model that is not the lab's knows, and what is held out to measure with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from guard.selftest.base import Knowledge, Rows
from guard.selftest.measures import Floats, Ints
from guard.selftest.targets.queries import MIN_ROWS, Sample, read_rows
from guard.selftest.targets.spec import Files, Layout, TargetError

CANDIDATES = 900
"""Most candidates of membership inference, as many as the lab has."""


@dataclass(frozen=True)
class Prepared:
    """The operator's rows as a self-test uses them.

    Args:
        knows: the attacker's.
        held_x: held out.
        held_y: their labels; None when the file has none.
        members: which candidates trained the model; None without candidates.
    """

    knows: Knowledge
    held_x: Rows
    held_y: Ints | Floats | None
    members: NDArray[np.bool_] | None


@lru_cache(maxsize=8)
def prepare(files: Files, layout: Layout, name: str, seed: int, most: int = 500) -> Prepared:
    """Read the rows and share them out; the same seed gives the same halves.

    Args:
        files: where they are.
        layout: gives classes and their columns.
        name: of the model.
        seed: of the split.
        most: held-out rows.

    Raises:
        TargetError: they cannot be used.
    """
    sample = read_rows(files.queries)
    y = columns(sample, layout)
    free = np.array([i for i, member in enumerate(sample.member) if member is None], dtype=np.int64)
    if len(free) < MIN_ROWS:
        raise TargetError(
            f"{files.queries} has {len(free)} rows that do not say member, and at least {MIN_ROWS} are needed: "
            "the attacker's own data and the held-out data may not be candidates of membership inference"
        )
    order = np.random.default_rng([seed, 11]).permutation(free)
    own, held = order[: len(order) // 2], order[len(order) // 2 :][:most]
    extra, members = _candidates(sample, files, layout, seed)
    low, high, std = _ranges(sample, own)
    knows = Knowledge(
        name, "vector" if sample.size else "text", sample.size, layout.classes, low, high, std,
        taken(sample.x, own), None if y is None else y[own], extra,
    )  # fmt: skip
    return Prepared(knows, taken(sample.x, held), None if y is None else y[held], members)


def columns(sample: Sample, layout: Layout) -> Ints | Floats | None:
    """Return labels as columns of the scores, or as values; None when the file has none.

    Raises:
        TargetError: a label is none of the model's.
    """
    if sample.y is None:
        return None
    if layout.classes == 1:
        if bad := [i for i, label in enumerate(sample.y) if isinstance(label, str)]:
            raise TargetError(f"{sample.file}, line {sample.lines[bad[0]]}: the model answers a value, and y is a text")
        return np.array(sample.y, dtype=np.float64)
    found = [layout.column(label) for label in sample.y]
    if None not in found:
        return np.array(found, dtype=np.int64)
    # Numbers that are none of the model's, but as many: its classes, counted from elsewhere (1 to k).
    distinct = sorted({label for label in sample.y if isinstance(label, int)})
    if len(distinct) == layout.classes and all(isinstance(label, int) for label in sample.y):
        return np.array([distinct.index(cast("int", label)) for label in sample.y], dtype=np.int64)
    at = found.index(None)
    known = ", ".join(layout.labels or map(str, layout.numbers or range(layout.classes)))
    raise TargetError(
        f"{sample.file}, line {sample.lines[at]}: the label {sample.y[at]!r} is none of the model's classes ({known})"
    )


def taken(x: Rows, places: Sequence[int] | Ints) -> Rows:
    """Return some rows."""
    return x[np.asarray(places, dtype=np.int64)] if isinstance(x, np.ndarray) else [x[i] for i in places]


def _ranges(sample: Sample, own: Ints) -> tuple[Floats, Floats, Floats]:
    """Return least and greatest value of each feature in the whole file, and its spread in the attacker's half.

    Ranges are public in most domains; an attacker who knows them is the stronger one.
    """
    if not isinstance(sample.x, np.ndarray):
        return np.empty(0), np.empty(0), np.empty(0)
    low, high = sample.x.min(axis=0), sample.x.max(axis=0)
    if bool((low == high).all()):
        raise TargetError(f"{sample.file}: every row is the same")
    return low, high, sample.x[own].std(axis=0)


def _candidates(
    sample: Sample, files: Files, layout: Layout, seed: int
) -> tuple[dict[str, object], NDArray[np.bool_] | None]:
    """Return candidates of membership inference with their labels, half of them members as far as there are enough."""
    sides: list[list[tuple[Sample, int]]] = [
        [(sample, i) for i, member in enumerate(sample.member) if member is side] for side in (True, False)
    ]
    for side, path in enumerate((files.members, files.non_members)):
        if path:
            other = read_rows(path, 1)
            if other.size != sample.size:
                raise TargetError(
                    f"{path}: rows of {other.size or 'text'}, and {files.queries} has {sample.size or 'text'}"
                )
            sides[side] += [(other, i) for i in range(len(other))]
    if not sides[0] or not sides[1]:
        return {}, None
    rng = np.random.default_rng([seed, 12])
    rows: list[tuple[Sample, int]] = []
    members: list[bool] = []
    for inside, side in zip((True, False), sides, strict=True):
        chosen: list[tuple[Sample, int]] = [side[i] for i in rng.permutation(len(side))[: CANDIDATES // 2]]
        rows += chosen
        members += [inside] * len(chosen)
    order = rng.permutation(len(rows))
    rows = [rows[i] for i in order]
    x = [source.x[i] for source, i in rows]
    extra: dict[str, object] = {"candidates_x": np.array(x) if sample.size else x}
    labels = {source.file: columns(source, layout) for source, _ in rows}
    known = {file: found for file, found in labels.items() if found is not None}
    if len(known) == len(labels):
        extra["candidates_y"] = np.array([known[source.file][i] for source, i in rows])
    return extra, np.array(members)[order]
