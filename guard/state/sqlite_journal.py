"""The journal in a ledger's file: it grows at its end, and its oldest rows are folded into checkpoints.

For every counter, checkpoint and journal add up to what is spent: they are changed in the transaction that changes the
counter, and folding moves what it takes from the one to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

JOURNAL_ROWS, FOLDED_AT_ONCE = 8192, 1024
"""Rows that a journal keeps, and after how many more it is looked at again."""
Folded = tuple[str, int, int]
"""Event, rows, amount."""

_ROWS_A_STATEMENT = 128


def fold(db: sqlite3.Connection) -> None:
    """Fold the oldest rows of a journal that has grown too long into its checkpoints."""
    (first, last) = db.execute("SELECT (SELECT min(id) FROM journal), (SELECT max(id) FROM journal)").fetchone()
    if first is None or last - first < JOURNAL_ROWS:
        return
    old = (last - JOURNAL_ROWS,)
    db.execute(
        "INSERT INTO checkpoints SELECT counter, event, sum(rows), sum(amount) FROM journal WHERE id <= ?"
        " GROUP BY counter, event ON CONFLICT (counter, event)"
        " DO UPDATE SET rows = rows + excluded.rows, amount = amount + excluded.amount",
        old,
    )
    db.execute("DELETE FROM journal WHERE id <= ?", old)


def entries_of(db: sqlite3.Connection, counters: Sequence[int]) -> dict[int, list[Folded]]:
    """Return what checkpoints and journal say of some counters, added up by event; without those they do not know."""
    found: dict[int, list[Folded]] = {}
    for start in range(0, len(counters), _ROWS_A_STATEMENT):
        chunk = counters[start : start + _ROWS_A_STATEMENT]
        marks = ",".join("?" * len(chunk))
        both = " UNION ALL ".join(
            f"SELECT counter, event, rows, amount FROM {table} WHERE counter IN ({marks})"  # noqa: S608 - question marks
            for table in ("checkpoints", "journal")
        )
        rows = db.execute(
            f"SELECT counter, event, sum(rows), sum(amount) FROM ({both}) GROUP BY counter, event ORDER BY event",  # noqa: S608 - same
            (*chunk, *chunk),
        )
        for counter, event, count, amount in rows:
            found.setdefault(int(counter), []).append((str(event), int(count), int(amount)))
    return found
