"""Answers that are vectors, one a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from guard.model.nested import flatten
from guard.model.prediction import Answer, Prediction, Release
from guard.wire.body import unreadable
from guard.wire.columns import numbers


def add_vectors(answer: Answer, name: str, values: object, rows: int, put: Callable[[list[object]], None]) -> None:
    """Register a list of vectors, one a row, with `answer`.

    Args:
        answer: gets the prediction.
        name: the list's name.
        values: the list.
        rows: how many there must be.
        put: puts the released list in its place.

    Raises:
        UpstreamError: it is something else, or holds what is no finite number.
    """
    flat = flatten(cast("list[object]", values)) if isinstance(values, list) else None
    matrix = None if flat is None or len(flat[1]) != 2 else numbers(cast("object", values), rows)[0]
    if matrix is None or not np.isfinite(matrix).all():
        raise unreadable(f"{name} holds no vector a row")

    def write(release: Release) -> None:
        put(cast("list[object]", release.scores.tolist()))

    answer.rows = rows
    answer.predictions.append(Prediction(name, matrix, write))
