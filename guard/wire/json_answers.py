"""JSON answers that are rows: a list of them, one row alone, or an object whose `predictions` they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from guard.model.prediction import Answer
from guard.wire.base import Reader
from guard.wire.body import encode, unreadable
from guard.wire.ranked import Ranking, read_ranked
from guard.wire.rows import check_rest, read_columns, read_rows, rows_of

Record = dict[str, object]


@dataclass(slots=True)
class JsonAnswer:
    """What is let out of such an answer.

    Args:
        rows: the rows, which writes change.
        bare: the only row stands without a list around it.
        around: the object that holds the rows as `predictions`; None when there is none.
        bare_nan: upstream wrote bare NaN or Infinity.
    """

    rows: list[object] | Ranking
    bare: bool = False
    around: Record | None = None
    bare_nan: bool = False

    def document(self) -> object:
        """Return the decoded document to let out."""
        rows = self.rows.document() if isinstance(self.rows, Ranking) else self.rows
        value = rows[0] if self.bare else rows
        return value if self.around is None else {**self.around, "predictions": value}

    def encode(self) -> bytes:
        """Return the document as JSON."""
        return encode(self.document(), bare_nan=self.bare_nan)


def read_json(value: object, reader: Reader, answer: Answer, asked: int, *, bare_nan: bool = False) -> JsonAnswer:
    """Read a decoded answer into `answer` and return what to let out.

    Args:
        value: the decoded document.
        reader: the route's outputs and fields.
        answer: gets rows, predictions, labels, dropped names and the document.
        asked: how many rows the request has.
        bare_nan: whether the document held bare NaN or Infinity.

    Raises:
        UpstreamError: nothing of the declared kind is left.
    """
    result = JsonAnswer([], bare_nan=bare_nan)
    answer.document = result
    if isinstance(value, dict) and "predictions" in value:
        around = cast("Record", value)
        value = around.pop("predictions")
        if reader.fields == "all":
            check_rest(around, reader)
            result.around = around
        else:
            answer.dropped += around
            result.around = {}
        if isinstance(value, dict):
            columns = cast("Record", value)
            result.rows, result.bare = [columns], True
            read_columns(columns, reader, answer, asked)
            return result
    result.bare = not isinstance(value, list)
    items: list[object] = cast("list[object]", value) if isinstance(value, list) else [cast("object", value)]
    ranking = None if result.bare else read_ranked(items, reader, answer, asked)
    if ranking is not None:
        result.rows = ranking
        return result
    rows = items if result.bare or result.around is not None else rows_of(items, reader.outputs, asked)
    if not rows:
        raise unreadable("it has no rows")
    result.bare = result.bare or rows is not items
    answer.rows, result.rows = len(rows), rows
    read_rows(rows, reader, answer)
    return result
