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
        counts: added, by field; at least 1 each.
        marks: replaced where greater, by number; at least 0.
    """

    key: str
    counts: Mapping[int, int] = NOTHING
    marks: Mapping[int, int] = NOTHING


class Record(NamedTuple):
    """What all replicas together know of one client, after a merge."""

    counts: Mapping[int, int] = NOTHING
    marks: Mapping[int, int] = NOTHING
