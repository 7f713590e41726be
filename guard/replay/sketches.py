"""Recordings without bodies, as requests in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from guard.evidence.recording import (
    FIRST,
    HEADER_BYTES,
    Header,
    Records,
    read_header,
    read_records,
)
from guard.model.arrays import Ints
from guard.replay.traffic import EVERYTHING, Sketched, Source, Wanted, mapped


class _File(NamedTuple):
    path: Path
    header: Header
    records: Records
    starts: Ints
    ends: Ints
    cut: bool


class Sketches:
    """Requests of recordings: records that follow each other, of one client and time.

    Args:
        files: some of which may be empty.
        wanted: which requests.

    Raises:
        ReplayError: a file is no recording.
        OSError: a file cannot be read.
    """

    def __init__(self, files: Sequence[Path], wanted: Wanted = EVERYTHING) -> None:
        found: list[_File] = [file for file in map(_read, files) if file is not None]
        routes = tuple(sorted({file.header.route for file in found}))
        self._files: list[_File] = [file for file in found if wanted.route in (None, file.header.route)]
        times = np.concatenate([np.zeros(0), *(file.records["time"][file.starts] for file in self._files)])
        owner = np.concatenate([np.zeros(0), *(np.full(len(f.starts), i) for i, f in enumerate(self._files))])
        number = np.concatenate([np.zeros(0), *(np.arange(len(file.starts)) for file in self._files)])
        within = np.isfinite(times) & (times >= wanted.since_s) & (times < wanted.until_s)
        order = np.argsort(times[within], kind="stable")[: wanted.limit]
        self._owner = owner[within][order].astype(np.int64)
        self._number = number[within][order].astype(np.int64)
        cut = [f"{file.path.name} ends within a record, which was left out" for file in self._files if file.cut]
        paths, keys = tuple(f.path for f in self._files), frozenset(f.header.key for f in self._files)
        self.source = Source("sketches", paths, routes, keys, cut)

    def __len__(self) -> int:
        return len(self._owner)

    def __iter__(self) -> Iterator[Sketched]:
        owners: list[int] = self._owner.tolist()
        numbers: list[int] = self._number.tolist()
        for owner, number in zip(owners, numbers, strict=True):
            file = self._files[owner]
            records = file.records[file.starts[number] : file.ends[number]]
            first = records[0]
            yield Sketched(
                float(first["time"]), f"{int(first['client']):016x}", file.header.route, file.header, records
            )


def _read(path: Path) -> _File | None:
    """Read one file; None for one that ends before its first line does, or has no record."""
    found = mapped(path, HEADER_BYTES, read_header)
    if found is None:
        return None
    data, end, header = found
    records, cut = read_records(memoryview(data)[end:], header)
    if not len(records):
        return None
    starts = _starts(records)
    return _File(path, header, records, starts, np.append(starts[1:], len(records)), cut > 0)


def _starts(records: Records) -> Ints:
    """Return where requests begin: where records say so, or else where client or time change."""
    said = records["flags"] & FIRST > 0
    if not said.any():
        said = np.ones(len(records), dtype=np.bool_)
        said[1:] = (np.diff(records["client"]) != 0) | (np.diff(records["time"]) != 0)
    said[0] = True
    return np.flatnonzero(said)
