"""Clients' records in Redis: what `merge.lua` is told, and what it answers.

A delta that is all the caller has is light; a record that is read whole may hold thousands of counts, so few of those
travel in one batch, which neither holds the server up nor the event loop that reads the reply.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import orjson

from guard.evidence.values import KEPT
from guard.model.evidence import Record
from guard.ports import EVIDENCE_KEPT_S
from guard.state.redis_keys import record_key
from guard.state.tally import BUCKET_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from guard.model.evidence import Delta

MERGE = (files("guard.state") / "merge.lua").read_bytes()
MERGE_SHA = hashlib.sha1(MERGE, usedforsecurity=False).hexdigest()
MOST_WEIGHT, MOST_RECORDS = 16_384, 256
"""Of a batch: fields that may come or go, about; and records."""
_WHOLE = 1_024
_FIRST_MARK = -16


class Merge(NamedTuple):
    """One delta on its way.

    Args:
        key: the record's, in Redis.
        delta: what is added.
        made_ms: the revision of a record that is made now.
    """

    key: str
    delta: Delta
    made_ms: int

    def weight(self) -> int:
        """Return how many fields it may move, about."""
        return 1 + len(self.delta.counts) + (_WHOLE if self.delta.seen < 0 else 0)


def merge_of(space: str, delta: Delta, now_s: float) -> Merge:
    """Name a delta's record."""
    return Merge(record_key(space, delta.key), delta, max(1, int(now_s * 1000)))


def arguments(batch: Sequence[Merge]) -> list[bytes | str | int]:
    """Return what the script is given for a batch: the number of keys, the keys, the arguments."""
    deltas = [(m.delta.seen, m.delta.once, _flat(m.delta.counts.items()), _flat(m.delta.marks.items())) for m in batch]
    made_ms = max(m.made_ms for m in batch)
    keys = [m.key for m in batch]
    return [len(keys), *keys, orjson.dumps(deltas), KEPT, BUCKET_FIELDS, made_ms, EVIDENCE_KEPT_S * 1000]


def _flat(pairs: Iterable[tuple[int, int]]) -> list[int]:
    return [number for pair in pairs for number in pair]


def record(reply: bytes) -> Record:
    """Read what the script has returned for one delta."""
    revision, whole, held = orjson.loads(reply)
    counts = dict(zip(held[::2], held[1::2], strict=True))
    # The few names below 0 are marks, and what the script keeps for itself.
    own = [name for name in counts if name < 0]
    marks = {_FIRST_MARK - name: counts.pop(name) for name in own if name <= _FIRST_MARK}
    for name in own:
        counts.pop(name, None)
    return Record(counts, marks, revision, bool(whole))
