"""Answers of text-embeddings-inference. Each function reads a decoded one, and leaves in it what makes the released."""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np

from guard.model.prediction import Answer, Prediction, Release
from guard.wire import ranked, vectors
from guard.wire.base import Reader
from guard.wire.body import unreadable
from guard.wire.columns import numbers
from guard.wire.openai_parts import objects_of
from guard.wire.parameters import Json


def _list(value: object, rows: int) -> list[object]:
    if not isinstance(value, list) or len(cast("list[object]", value)) != rows:
        raise unreadable("it does not answer every row")
    return cast("list[object]", value)


def read_vectors(value: object, reader: Reader, answer: Answer) -> None:
    """Read one vector a row.

    Raises:
        UpstreamError: it is something else.
    """
    del reader
    out = _list(value, answer.rows)

    def put(rows: list[object]) -> None:
        out[:] = rows

    vectors.add_vectors(answer, "embeddings", out, answer.rows, put)
    answer.document = lambda: out


def read_similarities(value: object, reader: Reader, answer: Answer) -> None:
    """Read one number a row.

    Raises:
        UpstreamError: it is something else.
    """
    del reader
    out = _list(value, answer.rows)
    matrix, _ = numbers(out, answer.rows)
    if matrix is None or matrix.shape[1] != 1 or not np.isfinite(matrix).all():
        raise unreadable("it does not hold one number a row")

    def write(release: Release) -> None:
        out[:] = release.scores[:, 0].tolist()

    answer.predictions.append(Prediction("similarity", matrix, write))
    answer.document = lambda: out


def read_sparse(value: object, reader: Reader, answer: Answer) -> None:
    """Read one list of index and value a row; which indices it has is let out as it is.

    Raises:
        UpstreamError: it is something else.
    """
    del reader
    out: list[list[Json]] = []
    for row, items in enumerate(_list(value, answer.rows)):
        if items is None:
            raise unreadable("a sparse vector is none")
        pairs = objects_of(items, "a sparse vector")
        places, weights = [pair.get("index") for pair in pairs], [pair.get("value") for pair in pairs]
        if any(type(place) is not int for place in places) or len(set(places)) != len(places):
            raise unreadable("a sparse vector's indices are none")
        out.append([{"index": place, "value": weight} for place, weight in zip(places, weights, strict=True)])
        if not pairs:
            continue
        matrix, _ = numbers([weights], 1)
        if matrix is None or not np.isfinite(matrix).all():
            raise unreadable("a sparse vector's values are no numbers")
        where = np.array([row], dtype=np.int64)
        write = partial(_write_sparse, out[row])
        answer.predictions.append(Prediction("embeddings", matrix, write, rows=where))
    answer.document = lambda: out


def _write_sparse(pairs: list[Json], release: Release) -> None:
    for pair, weight in zip(pairs, release.scores[0].tolist(), strict=True):
        pair["value"] = weight


def read_labels(value: object, reader: Reader, answer: Answer, *, alone: bool) -> None:
    """Read labels with their scores, a list a row; the only row of no batch stands without a list around it.

    Raises:
        UpstreamError: it is something else.
    """
    asked = answer.rows
    rows = [value] if alone else _list(value, asked)
    if not all(ranked.is_pairs(row, more=True) for row in rows):
        raise unreadable("it does not hold labels with scores")
    found = ranked.read_ranked(rows, reader, answer, asked)
    if found is None:
        raise unreadable("it does not hold labels with scores")
    answer.document = lambda: found.document()[0] if alone else found.document()


def read_ranks(value: object, reader: Reader, answer: Answer, *, texts: list[str] | None) -> None:
    """Read one score a text, of kind probabilities as the second of two classes; ordered by what is released.

    Args:
        value: the decoded answer.
        reader: the route's.
        answer: gets the scores, in the request's order.
        texts: the request's, to be said again beside each score; None where they were not asked for.

    Raises:
        UpstreamError: it does not rank every text once.
    """
    items = _list(value, answer.rows)
    scores: list[object] = [None] * answer.rows
    for item in objects_of(items, "ranks"):
        index = item.get("index")
        if type(index) is not int or not 0 <= index < answer.rows or scores[index] is not None:
            raise unreadable("it does not rank every text once")
        scores[index] = item.get("score")
    matrix, _ = numbers(scores, answer.rows)
    if matrix is None or matrix.shape[1] != 1 or not np.isfinite(matrix).all():
        raise unreadable("it does not score every text")
    if not reader.outputs.accepts(matrix, complete=False, named=True):
        raise unreadable(f"its scores are not {reader.outputs.kind}")
    released = cast("list[float]", matrix[:, 0].tolist())

    def write(release: Release) -> None:
        released[:] = release.scores[:, -1].tolist()

    def document() -> list[Json]:
        said = [{} if texts is None else {"text": text} for text in (texts or released)]
        order = sorted(range(len(released)), key=lambda i: (-released[i], i))
        return [{"index": i, **said[i], "score": released[i]} for i in order]

    if reader.outputs.kind == "probabilities":
        two = np.concatenate((1.0 - matrix, matrix), axis=1)
        answer.predictions.append(Prediction("score", two, write, "two_class"))
    else:
        answer.predictions.append(Prediction("score", matrix, write, complete=False))
    answer.document = document
