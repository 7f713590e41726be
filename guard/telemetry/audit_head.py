"""Whose signatures count in an audit log, and what its head says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import orjson

from guard.telemetry.audit_chain import parted

Verifies = Callable[[str, str, bytes], bool]
Object = dict[str, Any]  # Any: JSON


class Head(NamedTuple):
    """How far a log goes, as its head file says.

    Args:
        log: the log's id.
        seq: number of the last line.
        last: that line's hash.
        time: when it was said.
        key: whose signature it has.
    """

    log: str
    seq: int
    last: bytes
    time: str
    key: str


class Keys:
    """Whose signatures count.

    Args:
        verifies: whether a signature is its key's.
        trusted: public keys; empty when nobody said whose log this is, so that any key will do.
    """

    def __init__(self, verifies: Verifies, trusted: frozenset[str] = frozenset()) -> None:
        self.verifies = verifies
        self.trusted = trusted
        self.seen: set[str] = set()

    def objection(self, line: bytes) -> str | None:
        """Return what is wrong with the signature on a line, or None."""
        parts = parted(line)
        said = loads(line)
        key = said.get("key")
        if parts is None or not isinstance(key, str) or len(key) != 64:
            return "its signature is missing or damaged"
        if self.trusted and key not in self.trusted:
            return f"it is signed with another key, {key}"
        if not self.verifies(key, parts[1], parts[0]):
            return "its signature is forged, or it was changed"
        self.seen.add(key)
        return None


def read_head(data: bytes, keys: Keys) -> Head | str:
    """Read a head file; return what is wrong with it where something is."""
    line = data[:-1] if data.endswith(b"\n") else b""
    objection = keys.objection(line)
    if objection is not None:
        return objection
    said = loads(line)
    log, seq, last, time, kind = (said.get(name) for name in ("log", "seq", "last", "time", "kind"))
    if kind != "head" or not (isinstance(log, str) and isinstance(seq, int) and isinstance(last, str)):
        return "it is signed, and no head"
    return Head(log, seq, last.encode("ascii", "replace"), str(time), str(said.get("key")))


def loads(line: bytes) -> Object:
    """Return the JSON object on a line; an empty one where there is none."""
    try:
        return object_of(orjson.loads(line))
    except orjson.JSONDecodeError:
        return {}


def object_of(value: object) -> Object:
    """Return a JSON object as it is, and an empty one for anything else."""
    return cast("Object", value) if isinstance(value, dict) else {}
