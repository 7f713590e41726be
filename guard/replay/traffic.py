"""What is replayed: recorded requests in the order of time, and what is known of where they come from."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from guard.evidence.bodies import Asked
from guard.evidence.recording import Header, RecordingError, Records

Kind = Literal["bodies", "sketches"]
First = TypeVar("First")
"""What a recording's first line says."""


class ReplayError(ValueError):
    """Recordings that cannot be replayed; the message says why."""


class Nothing(ReplayError):
    """There is nothing to replay."""


class Sketched(NamedTuple):
    """One request as its sketch has it.

    Args:
        now_s: seconds since the epoch.
        client: pseudonym, 16 hexadecimal digits.
        route: that took it.
        header: of its file.
        records: one a row.
    """

    now_s: float
    client: str
    route: str
    header: Header
    records: Records


Request = Asked | Sketched


class Wanted(NamedTuple):
    """Which requests.

    Args:
        route: the recorded route's name; None for all.
        since_s: seconds since the epoch, included.
        until_s: likewise, not included.
        limit: how many at most; None for all.
    """

    route: str | None = None
    since_s: float = float("-inf")
    until_s: float = float("inf")
    limit: int | None = None


EVERYTHING = Wanted()


def mapped(path: Path, longest: int, read: Callable[[bytes], First | None]) -> tuple[mmap.mmap, int, First] | None:
    """Map a recording into memory, and read its first line.

    Args:
        path: the file.
        longest: bytes that the first line may have.
        read: reads it; returns None where it was cut off.

    Returns:
        The file, where its first line ends, and what that says; None for a file that ends before its first line does.

    Raises:
        ReplayError: it is something else.
        OSError: it cannot be read.
    """
    with path.open("rb") as opened:
        if not path.stat().st_size:
            return None
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    end = data.find(b"\n", 0, longest) + 1
    try:
        first = read(data[: end or longest])
    except RecordingError as error:
        raise ReplayError(f"{path}: {error}") from error
    return None if first is None else (data, end, first)


@dataclass(slots=True)
class Source:
    """Where requests come from.

    Args:
        kind: bodies or sketches.
        files: that were read.
        routes: recorded routes.
        keys: that tell apart the secrets of pseudonyms.
        doubts: what else is to be known of the files, in words.
    """

    kind: Kind
    files: tuple[Path, ...]
    routes: tuple[str, ...]
    keys: frozenset[str]
    doubts: list[str] = field(default_factory=list[str])


class Traffic(Protocol):
    """Requests in the order of time."""

    source: Source

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[Request]:
        """Yield them.

        Raises:
            ReplayError: a file is damaged.
        """
        ...
