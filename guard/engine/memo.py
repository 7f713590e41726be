"""Releases that were paid for, so that a repeated query gets the same one and costs nothing. Pure.

A mechanism's release is a random answer to one snapped query. To hand the same release out again is post-processing of
what was charged, so it keeps the guarantee whatever it is, and takes averaging away. A release belongs to everything
that it depends on (the route's fingerprint, the path, the query with its context) and to the scope that paid: the
narrowest of the route's privacy budgets, since another client's budget has not been charged for it.

Keys are keyed digests and releases are noisy scores, so a state holds no query and no score of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from guard.defences.base import Batch, has_classes
from guard.errors import ClientError, UpstreamError
from guard.model.arrays import Bools, Floats
from guard.model.client import Client
from guard.model.exchange import Reply
from guard.model.prediction import Answer, Prediction
from guard.policy.plan import Private

_LABELS_ONLY, _WITHHELD = 1, 2
_KEY_BYTES = 16


class Row(NamedTuple):
    """What was released of one row.

    Args:
        scores: shape (k,); NaN where a score was dropped.
        labels_only: nothing but the label was released.
        withheld: a threshold was not reached, and the client was told so.
    """

    scores: Floats
    labels_only: bool = False
    withheld: bool = False


def pack(row: Row) -> bytes:
    """Return a row's release as a state keeps it.

    >>> unpack(pack(Row(np.array([0.25, 0.75]), labels_only=True)))
    Row(scores=array([0.25, 0.75]), labels_only=True, withheld=False)
    """
    flags = _LABELS_ONLY * row.labels_only | _WITHHELD * row.withheld
    return bytes([flags]) + row.scores.astype("<f8").tobytes()


def unpack(data: bytes | None) -> Row | None:
    """Return the release that `pack` wrote; None for nothing, or for what it did not write."""
    if not data or len(data) % 8 != 1 or len(data) < 9:
        return None
    scores = np.frombuffer(data, "<f8", offset=1).astype(np.float64)
    return Row(scores, bool(data[0] & _LABELS_ONLY), bool(data[0] & _WITHHELD))


@dataclass(slots=True)
class Memo:
    """What is known of one request's releases.

    Args:
        keys: one a row.
        whole: the key of the rendered answer to all of them.
        known: remembered releases; None where a row must be drawn.
        first: for each row the first row with the same query.
        drawn: (key, release) pairs that this request has drawn.
        withheld: a row did not reach the mechanism's threshold.
    """

    keys: tuple[bytes, ...]
    whole: bytes
    known: list[Row | None]
    first: tuple[int, ...]
    drawn: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    withheld: bool = False

    def due(self) -> int:
        """Return how many distinct queries must be drawn, and so paid for."""
        return sum(1 for i, first in enumerate(self.first) if first == i and self.known[i] is None)

    def merge(self, batch: Batch) -> Batch:
        """Return the batch with every remembered or repeated row's own release; note what was drawn."""
        scores = batch.scores.copy() if batch.kept is None else np.where(batch.kept, batch.scores, np.nan)
        for i, first in enumerate(self.first):
            known = self.known[i]
            if known is not None and len(known.scores) == scores.shape[1] and known.labels_only == batch.labels_only:
                scores[i] = known.scores
            elif known is not None:
                # Of another shape, which the fingerprint should have told apart: it was not charged, so it cannot go.
                raise UpstreamError("the model's answer has changed its shape", code="not_private")
            elif first != i:
                scores[i] = scores[first]
        withheld: list[bool] = np.logical_and.reduce(np.isnan(scores), axis=1).tolist()
        self.withheld = any(withheld)
        for i, first in enumerate(self.first):
            if first == i and self.known[i] is None:
                row = Row(scores[i], batch.labels_only, withheld[i])
                self.drawn.append((self.keys[i], pack(row)))
        dropped = np.isnan(scores)
        kept: Bools | None = ~dropped if dropped.any() else None
        scores = np.where(dropped, 0.0, scores)
        top = scores.argmax(axis=1) if has_classes(batch.kind) else batch.top
        return Batch(scores, top, batch.kind, batch.complete, kept, batch.labels_only)


def memo_of(private: Private, client: Client, path: str, digests: Sequence[bytes], form: bytes = b"") -> Memo:
    """Return an empty memo for a request.

    Args:
        private: the route's mechanism.
        client: who asks.
        path: the request's raw path: it names the model and its version.
        digests: keyed digests of the snapped rows, which cover their context.
        form: how the rendered answer is written, where the same path has answers of several protocols.
    """
    scope = {"client": client.name, "group": client.group, "model": ""}[private.per]
    framed = b"".join(b"%d:%b" % (len(part), part) for part in (scope.encode(), path.encode()))
    start = blake2b(framed, digest_size=_KEY_BYTES, key=private.fingerprint, person=b"guard memo")
    keys: list[bytes] = []
    places: dict[bytes, int] = {}
    for digest in digests:
        row = start.copy()
        row.update(digest)
        keys.append(row.digest())
    first = tuple([places.setdefault(key, i) for i, key in enumerate(keys)])
    whole = start.copy()
    whole.update(b"".join(keys) + b"whole" + form)
    return Memo(tuple(keys), whole.digest(), [None] * len(keys), first)


def pack_reply(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Return a rendered answer as a state keeps it: the headers that say how to read it, and the body."""
    return b"\n".join([b"%b:%b" % header for header in headers]) + b"\0" + body


def unpack_reply(data: bytes) -> Reply:
    """Return the answer that `pack_reply` wrote, as if the model had given it.

    >>> unpack_reply(pack_reply([(b"content-type", b"application/json")], b"{}")).body
    b'{}'
    """
    head, _, body = data.partition(b"\0")
    # Until Guard knew binary tensors, a state kept the content type alone.
    lines = [line if b":" in line else b"content-type:" + line for line in head.split(b"\n") if line]
    return Reply(200, [(name, value) for name, _, value in (line.partition(b":") for line in lines)], body)


def only_prediction(answer: Answer, rows: int, columns: int) -> Prediction:
    """Return the one score matrix of an answer that a mechanism can make private.

    Raises:
        UpstreamError: code `not_private`: the answer holds more than was charged for, or its form depends on the data.
    """
    matrices = [prediction for prediction in answer.predictions if prediction.shape != "top_score"]
    if len(matrices) != 1:
        raise _not_private("holds more than one score matrix; name one in outputs.tensors")
    only = matrices[0]
    if only.shape == "sparse" or not (only.complete or only.scores.shape[1] == 1):
        raise _not_private("lists labels by their scores")
    if answer.rows != rows or only.rows is not None or len(only.scores) != rows:
        raise _not_private("answers other rows than were asked")
    if only.scores.shape[1] > columns:
        raise _not_private("has more columns than outputs.classes or than Guard accounts for")
    return only


def no_consensus() -> ClientError:
    """Return the error for a row that a mechanism's threshold withholds."""
    return ClientError("the models do not agree on a row of this request", code="no_consensus", status=422)


def _not_private(what: str) -> UpstreamError:
    return UpstreamError(f"the model's answer {what}, which no mechanism here makes private", code="not_private")
