"""One client's record as `memory:` and `sqlite:` keep it: packed to some 3 bytes a count. `merge.lua` says it again.

A record is what replicas have counted of a client, the marks that hold, and how often it has been added to. Its
revision begins at the time it was made, in milliseconds, so that a record made anew is not taken for the old one. The
`once` of the latest merges is kept, so that a merge which is sent again, because its reply was lost, adds nothing.

Each bucket is packed by itself: a window changes the newest, and the others stay as they are.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import TYPE_CHECKING, Final, Self

from guard.errors import InvariantError
from guard.evidence.values import BINS, KEPT, MOST_SIGNALS
from guard.model.evidence import NOTHING, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.model.evidence import Delta

BUCKET_FIELDS: Final = MOST_SIGNALS * BINS
"""Fields that a bucket may have: 256, so that one's place in its bucket is a byte."""
MOST_FIELD, MOST_COUNT, MOST_MARK, MOST_KEY = 2**40, 2**53, 16, 300
ONCES: Final = 4
"""Latest merges that are known again."""

_HEAD: Final = Struct(f"<Q{ONCES}QBB")  # revision, latest merges, number of marks and of buckets
_PART: Final = Struct("<QH")  # number and bytes of a bucket


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

    __slots__ = ("_buckets", "_onces", "marks", "revision")

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self.marks: dict[int, int] = {}
        self._buckets: dict[int, bytes] = {}
        self._onces = [0] * ONCES

    def merge(self, delta: Delta, now_s: float) -> tuple[Record, bool]:
        """Add a delta; return the record, and whether anything was added that had not been before."""
        whole = self.revision != delta.seen
        added = bool(delta.counts or delta.marks) and not (delta.once and delta.once in self._onces)
        if added:
            self.revision = self.revision + 1 if self.revision else max(1, int(now_s * 1000))
            self._onces[self.revision % ONCES] = delta.once
            if delta.counts:
                self._count(delta.counts)
            for mark, value in delta.marks.items():
                self.marks[mark] = max(value, self.marks.get(mark, 0))
        counts = self._counts() if whole else NOTHING
        return Record(counts, dict(self.marks), self.revision, whole), added

    def _count(self, counts: Mapping[int, int]) -> None:
        buckets = self._buckets
        new: dict[int, dict[int, int]] = {}
        for field, n in counts.items():
            number, at = divmod(field, BUCKET_FIELDS)
            held = new.get(number)
            if held is None:
                held = new[number] = _unpacked(buckets[number]) if number in buckets else {}
            held[at] = held.get(at, 0) + n
        first = max((*new, *buckets)) - KEPT + 1
        for number, held in new.items():
            buckets[number] = _packed(held)
        for number in [number for number in buckets if number < first]:
            del buckets[number]

    def _counts(self) -> Mapping[int, int]:
        return {
            number * BUCKET_FIELDS + at: n
            for number, held in self._buckets.items()
            for at, n in _unpacked(held).items()
        }

    @property
    def size(self) -> int:
        """How many bytes it takes, packed."""
        parts = sum(map(len, self._buckets.values())) + _PART.size * len(self._buckets)
        return _HEAD.size + 16 * len(self.marks) + parts

    def packed(self) -> bytes:
        """Write it as bytes."""
        parts = [_HEAD.pack(self.revision, *self._onces, len(self.marks), len(self._buckets))]
        parts.append(array("Q", [part for pair in self.marks.items() for part in pair]).tobytes())
        parts += [_PART.pack(number, len(held)) for number, held in self._buckets.items()]
        return b"".join((*parts, *self._buckets.values()))

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """Return what `packed` wrote.

        >>> Tally.unpacked(Tally(7).packed()).revision
        7
        """
        revision, *onces, marks, buckets = _HEAD.unpack_from(packed)
        tally = cls(revision)
        tally._onces = list(onces)
        parts = _HEAD.size + 16 * marks
        pairs = array("Q", packed[_HEAD.size : parts])
        tally.marks = dict(zip(pairs[::2], pairs[1::2], strict=True))
        start = parts + _PART.size * buckets
        for number, size in _PART.iter_unpack(packed[parts:start]):
            tally._buckets[number] = packed[start : start + size]
            start += size
        return tally


def _packed(counts: Mapping[int, int]) -> bytes:
    """Write a bucket's counts: how wide they are, their places, the counts."""
    try:
        return b"\0" + bytes(counts) + array("H", counts.values()).tobytes()
    except OverflowError:
        return b"\1" + bytes(counts) + array("Q", counts.values()).tobytes()


def _unpacked(held: bytes) -> dict[int, int]:
    wide = held[0]
    middle = 1 + (len(held) - 1) // (9 if wide else 3)
    return dict(zip(held[1:middle], array("Q" if wide else "H", held[middle:]), strict=True))
