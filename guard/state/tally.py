"""One client's record as `memory:` and `sqlite:` keep it: packed to some 4 bytes a count. `merge.lua` says it again.

A record is what replicas have counted of a client, the marks that hold, and how often it has been added to. Its
revision begins at the time it was made, in milliseconds, so that a record made anew is not taken for the old one. The
`once` of the latest merges is kept, so that a merge which is sent again, because its reply was lost, adds nothing.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import TYPE_CHECKING, Final, Self

from guard.errors import InvariantError
from guard.evidence.values import BINS, KEPT, MOST_SIGNALS
from guard.model.evidence import NOTHING, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.model.evidence import Delta

BUCKET_FIELDS: Final = MOST_SIGNALS * BINS
"""Fields that a bucket may have."""
MOST_FIELD, MOST_COUNT, MOST_MARK, MOST_KEY = 2**40, 2**53, 16, 300
ONCES: Final = 4
"""Latest merges that are known again."""

_HEAD: Final = Struct(f"<QQ{ONCES}QBB")


def check_deltas(deltas: Sequence[Delta]) -> None:
    """Raise `InvariantError` when deltas name one client twice, or hold what no record may."""
    if len({delta.key for delta in deltas}) < len(deltas):
        raise InvariantError("a call merges one client twice")
    for delta in deltas:
        if len(delta.key) > MOST_KEY:
            raise InvariantError("a client's key is too long")
        if any(not (0 <= field < MOST_FIELD and 1 <= n <= MOST_COUNT) for field, n in delta.counts.items()):
            raise InvariantError("a count is out of range")
        if any(not (0 <= mark < MOST_MARK and 0 <= value <= MOST_COUNT) for mark, value in delta.marks.items()):
            raise InvariantError("a mark is out of range")
        if not 0 <= delta.once <= MOST_COUNT:
            raise InvariantError("a delta's number is out of range")


class Tally:
    """A record that can be added to.

    Args:
        revision: how it is told apart from what it was before; 0 for one that is not there.
    """

    __slots__ = ("_counts", "_newest", "_onces", "marks", "revision")

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self.marks: dict[int, int] = {}
        self._newest = 0
        self._counts: dict[int, int] = {}  # by field less that of the oldest bucket that may be kept
        self._onces = [0] * ONCES

    @property
    def _base(self) -> int:
        return max(0, self._newest - KEPT + 1) * BUCKET_FIELDS

    def add(self, delta: Delta, now_s: float) -> bool:
        """Merge a delta; False when nothing was to be added, or it had been before."""
        if not (delta.counts or delta.marks) or (delta.once and delta.once in self._onces):
            return False
        self.revision = self.revision + 1 if self.revision else max(1, int(now_s * 1000))
        self._onces[self.revision % ONCES] = delta.once
        if delta.counts:
            self._count(delta)
        for mark, value in delta.marks.items():
            self.marks[mark] = max(value, self.marks.get(mark, 0))
        return True

    def _count(self, delta: Delta) -> None:
        newest = max(delta.counts) // BUCKET_FIELDS
        if newest > self._newest:
            before = self._base
            self._newest = newest
            if (moved := self._base - before) and self._counts:
                self._counts = {at - moved: n for at, n in self._counts.items() if at >= moved}
        base, counts = self._base, self._counts
        for field, n in delta.counts.items():
            if field >= base:
                counts[field - base] = counts.get(field - base, 0) + n

    def record(self, *, whole: bool) -> Record:
        """Return what is kept; without the counts, where the caller has them."""
        if not whole:
            return Record(NOTHING, dict(self.marks), self.revision, False)
        base = self._base
        counts = {at + base: n for at, n in self._counts.items()} if base else dict(self._counts)
        return Record(counts, dict(self.marks), self.revision)

    def packed(self) -> bytes:
        """Write it as bytes."""
        try:
            wide, values = 0, array("H", self._counts.values())
        except OverflowError:
            wide, values = 1, array("Q", self._counts.values())
        marks = array("Q", [part for pair in self.marks.items() for part in pair])
        head = _HEAD.pack(self.revision, self._newest, *self._onces, len(self.marks), wide)
        return b"".join((head, marks.tobytes(), array("H", self._counts).tobytes(), values.tobytes()))

    @classmethod
    def unpacked(cls, held: bytes) -> Self:
        """Return what `packed` wrote.

        >>> Tally.unpacked(Tally(7).packed()).revision
        7
        """
        revision, newest, *onces, marks, wide = _HEAD.unpack_from(held)
        tally = cls(revision)
        tally._newest, tally._onces = newest, list(onces)
        begin = _HEAD.size + 16 * marks
        pairs = array("Q", held[_HEAD.size : begin])
        tally.marks = dict(zip(pairs[::2], pairs[1::2], strict=True))
        middle = begin + 2 * ((len(held) - begin) // (10 if wide else 4))
        fields, values = array("H", held[begin:middle]), array("Q" if wide else "H", held[middle:])
        tally._counts = dict(zip(fields, values, strict=True))
        return tally


def merged(held: bytes | None, delta: Delta, now_s: float) -> tuple[Record, bytes | None]:
    """Merge a delta into a packed record.

    Args:
        held: the record; None where there is none.
        delta: what to add; an empty one only reads.
        now_s: wall clock.

    Returns:
        The record, and what is to be kept in its place: None when nothing was added.
    """
    tally = Tally.unpacked(held) if held is not None else Tally()
    whole = tally.revision != delta.seen
    added = tally.add(delta, now_s)
    return tally.record(whole=whole), tally.packed() if added else None
