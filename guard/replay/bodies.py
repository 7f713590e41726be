"""Recorded bodies, in the order of time: their places are kept in memory, they themselves stay on the disk."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from guard.evidence.bodies import HEAD, LINE_BYTES, Asked, read_line, unpack
from guard.evidence.recording import RecordingError
from guard.replay.traffic import EVERYTHING, ReplayError, Source, Wanted, mapped


class _File(NamedTuple):
    path: Path
    data: mmap.mmap
    key: str
    times: list[float]
    places: list[int]
    cut: bool


class Bodies:
    """Requests of files of recorded bodies.

    Args:
        files: some of which may be empty.
        wanted: which requests; route and limit are looked at as they are read.

    Raises:
        ReplayError: a file is none of recorded bodies.
        OSError: a file cannot be read.
    """

    def __init__(self, files: Sequence[Path], wanted: Wanted = EVERYTHING) -> None:
        self._files: list[_File] = [file for file in map(_scan, files) if file is not None]
        self._wanted = wanted
        numbers = [np.full(len(file.times), i) for i, file in enumerate(self._files)]
        times = np.concatenate([np.zeros(0), *(np.array(file.times) for file in self._files)])
        places = np.concatenate([np.zeros(0), *(np.array(file.places, dtype=np.int64) for file in self._files)])
        owner = np.concatenate([np.zeros(0), *numbers]).astype(np.int64)
        within = (times >= wanted.since_s) & (times < wanted.until_s)
        order = np.argsort(times[within], kind="stable")
        self._owner, self._places = owner[within][order], places[within][order].astype(np.int64)
        cut = [f"{file.path.name} ends within a request, which was left out" for file in self._files if file.cut]
        self.source = Source(
            "bodies", tuple(f.path for f in self._files), (), frozenset(f.key for f in self._files), cut
        )

    def __len__(self) -> int:
        most = self._wanted.limit
        return len(self._places) if most is None else min(most, len(self._places))

    def __iter__(self) -> Iterator[Asked]:
        left = self._wanted.limit
        owners: list[int] = self._owner.tolist()
        places: list[int] = self._places.tolist()
        for number, place in zip(owners, places, strict=True):
            if left is not None and left <= 0:
                return
            asked = self._read(self._files[number], place)
            if self._wanted.route in (None, asked.route):
                left = None if left is None else left - 1
                yield asked

    def _read(self, file: _File, place: int) -> Asked:
        stored, _, _ = HEAD.unpack_from(file.data, place)
        try:
            return unpack(file.data[place : place + HEAD.size + stored])
        except RecordingError as error:
            raise ReplayError(f"{file.path}: {error}") from error


def _scan(path: Path) -> _File | None:
    """Find a file's frames; None for one that ends before its first line does."""
    found = mapped(path, LINE_BYTES, read_line)
    if found is None:
        return None
    data, at, key = found
    times: list[float] = []
    places: list[int] = []
    while at + HEAD.size <= len(data):
        stored, now_s, _ = HEAD.unpack_from(data, at)
        if at + HEAD.size + stored > len(data):
            break
        times.append(now_s)
        places.append(at)
        at += HEAD.size + stored
    return _File(path, data, key, times, places, at < len(data))
