"""What is to be merged into records of the state, until it has been confirmed; and the outbox.

A delta carries a number of its own and is kept until the state has confirmed it: one whose reply was lost is sent again
as it was, and is not counted twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from guard.model.evidence import Delta

MOST_OUT = 4096
"""Records in the outbox at which it is full; at twice as many, what comes is dropped and counted."""


class Numbers:
    """Numbers for deltas: other replicas begin elsewhere among 2**52, so two hardly ever share one."""

    def __init__(self) -> None:
        self._last = secrets.randbits(52)

    def next(self) -> int:
        """Return the next number, at least 1."""
        self._last = self._last % 2**52 + 1
        return self._last


@dataclass(slots=True, eq=False)
class Owed:
    """What is to be merged into one record.

    Args:
        space: the record's.
        key: the record's.
        counts: counted since `sent` was made.
        marks: set since `sent` was made.
        seen: the record's revision as last read.
        sent: what has not been confirmed.
    """

    space: str
    key: str
    counts: dict[int, int] = field(default_factory=dict[int, int])
    marks: dict[int, int] = field(default_factory=dict[int, int])
    seen: int = -1
    sent: Delta | None = None

    def take(self, numbers: Numbers) -> Delta:
        """Return what to send; empty when there is nothing, which only reads."""
        if self.sent is not None:
            return self.sent
        if not (self.counts or self.marks):
            return Delta(self.key, seen=self.seen)
        self.sent = Delta(self.key, self.counts, self.marks, self.seen, numbers.next())
        self.counts, self.marks = {}, {}
        return self.sent

    def everything(self) -> Delta:
        """Return all of it, whether it was sent or not."""
        if self.sent is None:
            return Delta(self.key, self.counts, self.marks)
        marks = dict(self.sent.marks)
        keep_greatest(marks, self.marks)
        return Delta(self.key, summed(self.sent.counts, self.counts), marks)

    def __bool__(self) -> bool:
        return bool(self.counts or self.marks or self.sent)


class Outbox:
    """What is owed for clients that are not in memory, by record."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Owed] = {}
        self.lost = 0
        """Deltas dropped."""

    def __len__(self) -> int:
        return len(self._held)

    def full(self) -> bool:
        """Say whether clients that come, and push others out, must wait."""
        return len(self._held) >= MOST_OUT

    def get(self, space: str, key: str) -> Delta | None:
        """Return all that is owed to a record, or None."""
        found = self._held.get((space, key))
        return None if found is None else found.everything()

    def add(self, owed: Owed) -> None:
        """Take what is owed, if anything is."""
        if not owed:
            return
        known = self._held.setdefault((owed.space, owed.key), owed)
        if known is owed:
            if len(self._held) > 2 * MOST_OUT:
                del self._held[owed.space, owed.key]
                self.lost += 1
            return
        known.counts = summed(known.counts, owed.counts)
        keep_greatest(known.marks, owed.marks)
        if known.sent is None:
            known.sent = owed.sent
        elif owed.sent is not None:
            self.lost += 1  # two that may have been counted already: adding them up could count one twice

    def by_space(self) -> dict[str, list[Owed]]:
        """Return all that is owed, by space."""
        spaces: dict[str, list[Owed]] = {}
        for owed in self._held.values():
            spaces.setdefault(owed.space, []).append(owed)
        return spaces

    def confirmed(self, owed: Owed) -> None:
        """Forget what was sent, and the record if nothing came meanwhile."""
        owed.sent = None
        if not owed:
            del self._held[owed.space, owed.key]


def keep_greatest(marks: dict[int, int], others: Mapping[int, int]) -> None:
    """Raise marks to others that are greater."""
    for mark, value in others.items():
        marks[mark] = max(value, marks.get(mark, 0))


def summed(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """Add counts up.

    >>> summed({1: 2}, {1: 3, 2: 1})
    {1: 5, 2: 1}
    """
    counts = dict(one)
    for number, n in other.items():
        counts[number] = counts.get(number, 0) + n
    return counts
