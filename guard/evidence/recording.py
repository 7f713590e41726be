"""The format of recordings, which `guard calibrate` makes profiles of: a JSON line, then records of one size. Pure.

The first line says what the rest is:

    {"format": "guard-recording", "version": 1, "route": .., "sketch": {..}, "width": m, "classes": K, "key": ..,
     "columns": [[name, dtype, shape], ..]}

and each record is one query with its answer, little-endian, without padding:

* `client`: 8 bytes of a keyed hash of the client's name; `time`: seconds since the epoch;
* `keys`: 1 + 8 salted 32-bit hashes of the row and of the row without one group of features;
* `flags`: which of the following are there (what is not there is 0), and what is known of the request: where it begins,
  and that its client was named by its address, that it had more rows than were recorded, that its route enforced, or
  that the scores are a mechanism's releases and not the model's. Files from before these flags have none of them;
* `raw`: the sketch before it is standardised, m float32: of a vector of at most 64 features these are the features;
* `top`, `best`, `second`: the model's label, its score and the next; `scores`: all K of them when K <= 64.

A file that was cut off in the middle of a record is read up to there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from numpy import typing as npt

VERSION = 1
KEYS = 9
"""Keys a row: of all of it, and without each of eight groups."""
MOST_CLASSES = 64
"""Whole score vectors are kept up to here."""
MOST_WIDTH = 4096
HEADER_BYTES = 65536
"""Longest first line."""
RAW, TOP, WHOLE = 1, 2, 4
"""Flags: the sketch is there; the label and the two scores are; the whole distribution is."""
FIRST, ADDRESS, LONGER, ENFORCED, RELEASED = 8, 16, 32, 64, 128
"""Flags: a request's first row; and of all of its rows: see above."""
_FORMAT = "guard-recording"
Records = npt.NDArray[Any]  # Any: numpy has no type for structured arrays
"""A structured array of the columns above."""


class RecordingError(ValueError):
    """A file that is no recording, or of another version; the message says which."""


class Header(NamedTuple):
    """The first line of a recording.

    Args:
        route: whose queries these are.
        sketch: how queries became `raw`, as JSON.
        width: m.
        classes: K where whole distributions are kept, else 0.
        key: 16 hexadecimal digits that tell apart the secrets that clients and keys were hashed with.
    """

    route: str
    sketch: Mapping[str, object]
    width: int
    classes: int
    key: str


def record_type(width: int, classes: int) -> np.dtype[Any]:  # Any: numpy has no type for structured arrays
    """Return the type of one record.

    >>> record_type(64, 10).itemsize
    361
    """
    return np.dtype(
        [
            ("client", "<u8"),
            ("time", "<f8"),
            ("keys", "<u4", (KEYS,)),
            ("flags", "u1"),
            ("raw", "<f4", (width,)),
            ("top", "<i4"),
            ("best", "<f4"),
            ("second", "<f4"),
            ("scores", "<f4", (classes,)),
        ]
    )


def write_header(header: Header) -> bytes:
    """Return the first line."""
    kind = record_type(header.width, header.classes)
    columns = [[name, kind[name].base.str, list(kind[name].shape)] for name in kind.names or ()]
    return orjson.dumps({"format": _FORMAT, "version": VERSION, **header._asdict(), "columns": columns}) + b"\n"


def read_header(line: bytes) -> Header | None:
    """Read the first line; None when it was cut off.

    Raises:
        RecordingError: it is something else.
    """
    if not line.endswith(b"\n") and len(line) < HEADER_BYTES:
        return None
    try:
        found: object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RecordingError("not a recording") from error
    content = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    if content.get("format") != _FORMAT:
        raise RecordingError("not a recording")
    if content.get("version") != VERSION:
        raise RecordingError(f"recorded by another version of Guard ({content.get('version')!s:.20}); record again")
    route, sketch, key = content.get("route"), content.get("sketch"), content.get("key")
    width, classes = content.get("width"), content.get("classes")
    if not (
        isinstance(route, str)
        and isinstance(key, str)
        and isinstance(sketch, dict)
        and type(width) is int
        and type(classes) is int
        and 0 <= width <= MOST_WIDTH
        and 0 <= classes <= MOST_CLASSES
    ):
        raise RecordingError("damaged: its first line does not hold together")
    return Header(route, cast("dict[str, object]", sketch), width, classes, key)


def read_records(data: bytes | memoryview, header: Header) -> tuple[Records, int]:
    """Read what follows the first line.

    Returns:
        Whole records, and the bytes of a last one that was cut off.
    """
    kind = record_type(header.width, header.classes)
    whole, cut = divmod(len(data), kind.itemsize)
    return np.frombuffer(data, dtype=kind, count=whole), cut
