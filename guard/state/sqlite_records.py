"""Clients' records in a ledger's file: read, merged and written in the file's one thread.

No mirror is kept: who merges has the client in memory, and asks for a record only when the client comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guard.model.evidence import Record
from guard.ports import EVIDENCE_KEPT_S
from guard.state.tally import Tally

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from guard.model.evidence import Delta

MERGED_AT_ONCE = 16
"""Deltas of one call in one transaction: charges that wait for the same transaction do not wait long."""
FORGOTTEN_AT_ONCE = 500


@dataclass(slots=True)
class Merge:
    """Deltas of one space on their way, and what came of them.

    Args:
        space: escaped.
        deltas: with escaped keys.
        now_s: wall clock.
        records: one for each delta, once the batch has been written.
    """

    space: str
    deltas: Sequence[Delta]
    now_s: float
    records: list[Record] = field(default_factory=list[Record])

    def adds(self) -> bool:
        """Say whether it writes."""
        return any(delta.counts or delta.marks for delta in self.deltas)


def merge(db: sqlite3.Connection, one: Merge) -> None:
    """Merge, inside a transaction if it writes."""
    one.records = [_merge(db, one.space, delta, one.now_s) for delta in one.deltas]


def _merge(db: sqlite3.Connection, space: str, delta: Delta, now_s: float) -> Record:
    row = db.execute(
        "SELECT held FROM records WHERE space = ? AND key = ? AND forgotten_after_s > ?", (space, delta.key, now_s)
    ).fetchone()
    tally = Tally() if row is None else Tally.unpacked(row[0])
    record, added = tally.merge(delta, now_s)
    if added:
        db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT (space, key)"
            " DO UPDATE SET forgotten_after_s = excluded.forgotten_after_s, held = excluded.held",
            (space, delta.key, int(now_s) + EVIDENCE_KEPT_S, tally.packed()),
        )
    return record


def forget(db: sqlite3.Connection, before_s: int) -> bool:
    """Drop some records that may be forgotten; True when there may be more."""
    dropped = db.execute(
        "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE forgotten_after_s <= ? LIMIT ?)",
        (before_s, FORGOTTEN_AT_ONCE),
    ).rowcount
    return dropped >= FORGOTTEN_AT_ONCE
