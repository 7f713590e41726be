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
MOST_WEIGHT, MOST_CALLS = 16_384, 4
"""Of a batch: fields that may come or go, about; and calls, of `_DELTAS_A_CALL` each."""
_DELTAS_A_CALL = 16
_WHOLE = 1_024
_FIRST_MARK = -16


class Merge(NamedTuple):
    """Some deltas of one space on their way.

    Args:
        keys: the records', in Redis.
        deltas: what is added.
        made_ms: the revision of a record that is made now.
    """

    keys: list[str]
    deltas: Sequence[Delta]
    made_ms: int

    def weight(self) -> int:
        """Return how many fields it may move, about."""
        return sum(1 + len(delta.counts) + (_WHOLE if delta.seen < 0 else 0) for delta in self.deltas)


def merges(space: str, deltas: Sequence[Delta], now_s: float) -> list[Merge]:
    """Cut deltas into calls that travel as one."""
    made_ms = max(1, int(now_s * 1000))
    parts = [deltas[i : i + _DELTAS_A_CALL] for i in range(0, len(deltas), _DELTAS_A_CALL)]
    return [Merge([record_key(space, delta.key) for delta in part], part, made_ms) for part in parts]


def arguments(batch: Sequence[Merge]) -> list[bytes | str | int]:
    """Return what the script is given for a batch: the number of keys, the keys, the arguments."""
    keys = [key for call in batch for key in call.keys]
    deltas = [
        (delta.seen, delta.once, _flat(delta.counts.items()), _flat(delta.marks.items()))
        for call in batch
        for delta in call.deltas
    ]
    made_ms = max(call.made_ms for call in batch)
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
