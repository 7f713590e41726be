"""Answers that are an object with one list of rows: `predictions` or `result`. KServe V1, TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

from guard.model.exchange import Reply
from guard.model.prediction import Answer
from guard.wire.base import Reader
from guard.wire.body import decode_reply, unreadable
from guard.wire.columns import holds_floats
from guard.wire.rows import read_rows
from guard.wire.sparse import Ranked, add_groups, group_rows

Json = dict[str, object]


@dataclass(slots=True)
class Document:
    """A decoded answer.

    Args:
        members: what is let out; writes change it.
        bare_nan: the upstream wrote NaN bare.
        dropped: names of the members that were left out.
    """

    members: Json
    bare_nan: bool
    dropped: list[str]


def read_document(reply: Reply, known: AbstractSet[str], reader: Reader) -> Document:
    """Decode an answer and leave out unknown members; under `fields: all` only those that hold floats.

    Raises:
        UpstreamError: code `unreadable_answer`.
    """
    decoded, bare_nan = decode_reply(reply.body)
    if not isinstance(decoded, dict):
        raise unreadable("it is not an object")
    members: Json = {}
    dropped: list[str] = []
    for key, value in cast("Json", decoded).items():
        if key in known or (reader.fields == "all" and not holds_floats(value)):
            members[key] = value
        else:
            dropped.append(key)
    return Document(members, bare_nan, dropped)


def read_listed(name: str, reader: Reader, answer: Answer) -> None:
    """Read the list `name` of the answer's document, one item per row.

    Raises:
        UpstreamError: it is no list, it is empty, or nothing of the declared kind is left.
    """
    members = cast("Document", answer.document).members
    items = _list(members, name)
    hold_rows(answer, len(items))
    members[name] = read_rows(items, reader, answer, name)


def read_ranked(name: str, reader: Reader, answer: Answer) -> None:
    """Read the list `name`, whose rows are lists of (label, score) pairs.

    Raises:
        UpstreamError: it is something else, or its scores are not of the declared kind.
    """
    outputs = reader.outputs
    rows = _list(cast("Document", answer.document).members, name)
    hold_rows(answer, len(rows))
    labels: list[list[str]] = []
    scores: list[list[object]] = []
    for row in rows:
        pairs = [_pair(pair, name) for pair in cast("list[object]", row)] if isinstance(row, list) else []
        if not pairs:
            raise unreadable(f"{name} does not hold pairs of label and score")
        labels.append([label for label, _ in pairs])
        scores.append([score for _, score in pairs])
    named = outputs.tensors is not None and name in outputs.tensors
    groups = None if outputs.tensors is not None and not named else group_rows(labels, scores, outputs, named=named)
    if groups is None:
        raise unreadable(f"{name} holds no {outputs.kind}")

    def put(row: int, ranked: Ranked) -> None:
        rows[row] = [[label, score] for label, score in ranked]

    add_groups(answer, name, groups, len(rows), put)


def hold_rows(answer: Answer, rows: int) -> None:
    """Note how many rows an answer holds, of which `answer.rows` were asked for.

    Raises:
        UpstreamError: fewer than were asked for, so that none can be told to answer which.
    """
    if rows < answer.rows:
        raise unreadable("it answers fewer rows than were asked")
    answer.rows = rows


def _pair(pair: object, name: str) -> tuple[str, object]:
    match pair:
        case [str() as label, int() | float() | None as score] if not isinstance(score, bool):
            return label, score
        case _:
            raise unreadable(f"{name} does not hold pairs of label and score")


def _list(members: Json, name: str) -> list[object]:
    items = members.get(name)
    if not isinstance(items, list) or not items:
        raise unreadable(f"it holds no list of {name}")
    return cast("list[object]", items)
