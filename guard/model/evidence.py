"""What replicas tell each other of clients: counts that add up, and marks of which the greatest holds.

Both are integers by number, so merging is the same in any order and any grouping; merging an empty delta reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NOTHING: Mapping[int, int] = MappingProxyType({})


class Delta(NamedTuple):
    """What one replica adds to one client's record.

    Args:
        key: the client's, within its space; at most 300 characters.
        counts: added, by field; at least 1 each; fields below 2**40, sums below 2**53.
        marks: replaced where greater, by number below 16; 0 to 2**53.
        seen: the record's revision when the caller last read it. A record that nobody has added to since is returned
            without its counts: the caller has them.
        once: a number of the caller's own, 1 to 2**53, that tells this delta apart: if its reply was lost and it is
            sent again soon, it is not added twice. 0 makes no such promise.
    """

    key: str
    counts: Mapping[int, int] = NOTHING
    marks: Mapping[int, int] = NOTHING
    seen: int = -1
    once: int = 0


class Record(NamedTuple):
    """What all replicas together know of one client, after a merge.

    Args:
        counts: by field; left out when nobody else has added to it since what the caller has seen.
        marks: by number.
        revision: changes with everything that is added; 0 of a record that is not there.
        whole: False when counts are left out.
    """

    counts: Mapping[int, int] = NOTHING
    marks: Mapping[int, int] = NOTHING
    revision: int = 0
    whole: bool = True
