"""The format of recorded bodies, which `guard replay` runs under another policy: a JSON line, then frames. Pure.

The first line says what the rest is and whose secret made its pseudonyms:

    {"format": "guard-bodies", "version": 1, "key": ..}

and each frame is one request with what the model said, before any defence, little-endian:

* 4 bytes: length of what is stored; 8 bytes: seconds since the epoch, a double; 4 bytes: length unpacked;
* stored: zlib of a JSON line (`Asked`, lengths in place of bodies), the request's body, and each answer's body.

No header with a credential is ever in it: of a request Content-Type and Content-Encoding, of an answer these and
Retry-After; and no query string. A file that was cut off in the middle of a frame is read up to there.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any, NamedTuple, cast

import orjson

from guard.evidence.recording import RecordingError

VERSION = 1
MOST_BYTES = 2**26
"""Longest frame, unpacked: a request and its answers."""
HEAD = struct.Struct("<IdI")
LINE_BYTES = 4096
"""Longest first line."""
_FORMAT = "guard-bodies"
_LEVEL = 1
_PSEUDONYM = re.compile(r"[0-9a-f]{16}")
REQUEST_HEADERS = (b"content-type", b"content-encoding")
REPLY_HEADERS = (b"content-type", b"content-encoding", b"retry-after")

Headers = list[tuple[bytes, bytes]]


class Said(NamedTuple):
    """What one model said.

    Args:
        status: HTTP status.
        headers: those of `REPLY_HEADERS` that there were.
        body: as it came.
    """

    status: int
    headers: Headers
    body: bytes


class Asked(NamedTuple):
    """One request with what the model said.

    Args:
        now_s: seconds since the epoch.
        client: pseudonym, 16 hexadecimal digits, as in the recordings beside it.
        group: its group's.
        source: what named the client: `api_key`, `jwt`, `address` and so on.
        route: that took it when it was recorded.
        mode: of that route then.
        method: upper case.
        path: raw, without a query string.
        headers: those of `REQUEST_HEADERS` that there were.
        body: as the client sent it.
        said: each model's answer; None for one of several that failed.
    """

    now_s: float
    client: str
    group: str
    source: str
    route: str
    mode: str
    method: str
    path: str
    headers: Headers
    body: bytes
    said: tuple[Said | None, ...]

    @property
    def size(self) -> int:
        """Bytes of all bodies together."""
        return len(self.body) + sum(len(one.body) for one in self.said if one is not None)


def write_line(key: str) -> bytes:
    """Return the first line of a file."""
    return orjson.dumps({"format": _FORMAT, "version": VERSION, "key": key}) + b"\n"


def read_line(line: bytes) -> str | None:
    """Return the key that tells apart secrets; None for a line that was cut off.

    Raises:
        RecordingError: it is something else.
    """
    if not line.endswith(b"\n") and len(line) < LINE_BYTES:
        return None
    content = _object(line)
    if content.get("format") != _FORMAT:
        raise RecordingError("no recorded bodies")
    if content.get("version") != VERSION:
        raise RecordingError(f"recorded by another version of Guard ({content.get('version')!s:.20}); record again")
    return str(content.get("key", ""))


def pack(asked: Asked) -> bytes:
    """Return a frame.

    >>> said = (Said(200, [], b"{}"), None)
    >>> asked = Asked(1.5, "ab" * 8, "cd" * 8, "jwt", "digits", "shadow", "POST", "/p", [(b"a", b"b")], b"[]", said)
    >>> unpack(pack(asked)) == asked
    True
    """
    line = {
        "client": asked.client,
        "group": asked.group,
        "source": asked.source,
        "route": asked.route,
        "mode": asked.mode,
        "method": asked.method,
        "path": asked.path,
        "headers": _texts(asked.headers),
        "body": len(asked.body),
        "said": [None if s is None else [s.status, _texts(s.headers), len(s.body)] for s in asked.said],
    }
    bodies = [asked.body, *(s.body for s in asked.said if s is not None)]
    whole = b"".join([orjson.dumps(line), b"\n", *bodies])
    stored = zlib.compress(whole, _LEVEL)
    return HEAD.pack(len(stored), asked.now_s, len(whole)) + stored


def unpack(frame: bytes) -> Asked:
    """Return what `pack` wrote.

    Raises:
        RecordingError: it is damaged.
    """
    try:
        stored, now_s, size = HEAD.unpack_from(frame)
        unpacker = zlib.decompressobj()
        whole = unpacker.decompress(frame[HEAD.size : HEAD.size + stored], min(size, MOST_BYTES) + 1)
        if len(whole) != size or not unpacker.eof:
            raise RecordingError("damaged: a frame is not as long as it says")
        return _asked(now_s, whole)
    except (struct.error, zlib.error, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError("damaged: a frame cannot be read") from error


def _asked(now_s: float, whole: bytes) -> Asked:
    end = whole.index(b"\n")
    line = _object(whole[:end])
    at = end + 1 + int(line["body"])
    body = whole[end + 1 : at]
    said: list[Said | None] = []
    for one in line["said"]:
        if one is None:
            said.append(None)
            continue
        status, headers, size = one
        said.append(Said(int(status), _bytes(headers), whole[at : at + int(size)]))
        at += int(size)
    if at != len(whole):
        raise RecordingError("damaged: a frame's bodies are not as long as it says")
    texts = {name: str(line[name]) for name in ("client", "group", "source", "route", "mode", "method", "path")}
    if not (_PSEUDONYM.fullmatch(texts["client"]) and _PSEUDONYM.fullmatch(texts["group"])):
        raise RecordingError("damaged: a client has no pseudonym")
    return Asked(now_s, **texts, headers=_bytes(line["headers"]), body=body, said=tuple(said))


def _object(data: bytes) -> dict[str, Any]:  # Any: JSON
    try:
        found: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RecordingError("damaged: a line is not JSON") from error
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _texts(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _bytes(headers: list[list[str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
