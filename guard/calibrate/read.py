"""Recordings as one log a client, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import typing as npt
from pydantic import ValidationError

from guard.detectors.base import Keys
from guard.detectors.sketch import Sketch
from guard.evidence.recording import (
    HEADER_BYTES,
    RAW,
    TOP,
    WHOLE,
    Header,
    RecordingError,
    Records,
    read_header,
    read_records,
)
from guard.model.arrays import Bools, Floats, Ints

Singles = npt.NDArray[np.float32]


class CalibrationError(ValueError):
    """Logs that no profile can be made of; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientLog:
    """What one client asked and was answered, in the order of time.

    Args:
        pseudonym: 16 hexadecimal digits.
        times: seconds since the epoch, shape (n,).
        keys: salted hashes, shape (n, 9).
        raw: sketches before they are standardised, shape (n, m); None when there are none.
        margins: top score less the second, shape (n,), NaN where scores are not known.
        top: the model's label, shape (n,), -1 where it is not known.
        scores: whole distributions of those rows that have one, shape (r, K); r may be 0.
    """

    pseudonym: str
    times: Floats
    keys: Keys
    raw: Singles | None
    margins: Floats
    top: Ints
    scores: Singles

    def __len__(self) -> int:
        return len(self.times)


class Logs(NamedTuple):
    """What a directory of recordings holds for one route.

    Args:
        route: its name.
        sketch: how queries became vectors.
        clients: their logs, in the order of their pseudonyms.
        files: how many were read.
        cut: files whose last record was cut off, by name.
        secrets: secrets that clients' names were hashed with; under two of them one client is two.
        unusable: records left out because a number in them was not finite or their sketch was missing.
    """

    route: str
    sketch: Sketch
    clients: list[ClientLog]
    files: int
    cut: tuple[str, ...]
    secrets: int
    unusable: int


class _Part(NamedTuple):
    header: Header
    records: Records
    name: str
    cut: bool


def read_logs(paths: Iterable[Path], route: str | None = None) -> Logs:
    """Read the recordings of one route.

    Args:
        paths: directories, of which every `*.rec` is read, and files.
        route: its name; None takes the only one there is.

    Raises:
        CalibrationError: no recordings, several routes and none named, or sketches that do not go together.
        OSError: a file cannot be read.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.rec")) if path.is_dir() else [path])]
    parts = [part for file in files if (part := _read(file)) is not None]
    routes = sorted({part.header.route for part in parts})
    if not routes:
        raise CalibrationError("there are no recordings: guard serve --record DIR makes them")
    if route is None and len(routes) > 1:
        raise CalibrationError(f"recordings of several routes: name one of {', '.join(routes)} with --route")
    chosen = routes[0] if route is None else route
    parts = [part for part in parts if part.header.route == chosen]
    if not parts:
        raise CalibrationError(f"there are no recordings of route {chosen}, only of {', '.join(routes)}")
    sketch = _sketch(parts)
    width = max(part.header.width for part in parts)
    classes = max(part.header.classes for part in parts)
    records = np.concatenate([_columns(part, width, classes) for part in parts])
    usable = _usable(records, width)
    clients = [_log(some) for some in _by_client(records[usable])]
    cut = tuple(part.name for part in parts if part.cut)
    secrets = len({part.header.key for part in parts})
    return Logs(chosen, sketch, clients, len(parts), cut, secrets, int((~usable).sum()))


def _read(file: Path) -> _Part | None:
    """Read one file; None for one that ends before its first line does."""
    data = file.read_bytes()
    end = data.find(b"\n", 0, HEADER_BYTES) + 1
    try:
        header = read_header(data[: end or HEADER_BYTES])
    except RecordingError as error:
        raise CalibrationError(f"{file}: {error}") from error
    if header is None:
        return None
    records, cut = read_records(data[end:], header)
    return _Part(header, records, file.name, cut > 0)


def _sketch(parts: Sequence[_Part]) -> Sketch:
    """Return the sketch that all parts were made with."""
    first = parts[0]
    for part in parts[1:]:
        if part.header.sketch != first.header.sketch:
            differ = sorted(
                name
                for name in {*first.header.sketch, *part.header.sketch}
                if first.header.sketch.get(name) != part.header.sketch.get(name)
            )
            raise CalibrationError(
                f"{first.name} and {part.name} were recorded with different sketches ({', '.join(differ)}): "
                "their vectors cannot be compared; calibrate from one of them"
            )
    try:
        return Sketch.model_validate(first.header.sketch)
    except ValidationError as error:
        raise CalibrationError(f"{first.name}: its sketch is none of this version's; record again") from error


def _columns(part: _Part, width: int, classes: int) -> Records:
    """Return a part's records in the columns that all have; what it has not is flagged as missing."""
    records = part.records
    kind = np.dtype(
        [
            (n, k) if n not in ("raw", "scores") else (n, "<f4", (width if n == "raw" else classes,))
            for n, k in _kinds(part)
        ]
    )
    if kind == records.dtype:
        return records
    wide = np.zeros(len(records), dtype=kind)
    for name in kind.names or ():
        if wide[name].shape == records[name].shape:
            wide[name] = records[name]
        else:
            wide["flags"] &= np.uint8(255 - (RAW if name == "raw" else WHOLE))
    return wide


def _kinds(part: _Part) -> list[tuple[str, Any]]:  # Any: numpy's types of columns
    kind = part.records.dtype
    return [(name, kind[name]) for name in kind.names or ()]


def _usable(records: Records, width: int) -> Bools:
    """Say which records are whole: where others have sketches, one without is of queries that do not fit them."""
    usable = np.isfinite(records["time"])
    if width:
        usable &= (records["flags"] & RAW > 0) & np.isfinite(records["raw"]).all(axis=1)
    return usable


def _by_client(records: Records) -> list[Records]:
    ordered = records[np.lexsort((records["time"], records["client"]))]
    starts = np.flatnonzero(np.diff(ordered["client"], prepend=ordered["client"][:1])).tolist()
    return [ordered[a:b] for a, b in zip([0, *starts], [*starts, len(ordered)], strict=True) if b > a]


def _log(records: Records) -> ClientLog:
    known = (records["flags"] & TOP > 0) & np.isfinite(records["best"]) & np.isfinite(records["second"])
    margins = np.clip(records["best"].astype(np.float64) - records["second"], 0.0, 1.0)
    scores = records["scores"]
    whole = (records["flags"] & WHOLE > 0) & np.isfinite(scores).all(axis=1)
    return ClientLog(
        pseudonym=f"{int(records['client'][0]):016x}",
        times=np.ascontiguousarray(records["time"]),
        keys=np.ascontiguousarray(records["keys"]),
        raw=np.ascontiguousarray(records["raw"]) if records["raw"].shape[1] else None,
        margins=np.where(known, margins, np.nan),
        top=np.where(known, records["top"], -1).astype(np.int64),
        scores=np.ascontiguousarray(scores[whole]) if scores.shape[1] else np.zeros((0, 0), dtype=np.float32),
    )
