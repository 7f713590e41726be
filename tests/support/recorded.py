"""Reads the recorded exchanges of `tests/recorded`."""

from __future__ import annotations

import gzip
from pathlib import Path

from guard.model.exchange import Call, Reply

RECORDED = Path(__file__).parents[1] / "recorded"


def cases(server: str) -> list[str]:
    """Name the cases of a server."""
    return sorted(path.name.removesuffix(".request.http") for path in (RECORDED / server).glob("*.request.http"))


def request(server: str, case: str) -> tuple[str, Call]:
    """Return (method, call) of a recorded request."""
    line, headers, body = _parts(RECORDED / server / f"{case}.request.http")
    method, target, _ = line.split(" ")
    kind = next((value for key, value in headers if key == b"content-type"), b"").decode()
    return method, Call(target.partition("?")[0], {}, kind.partition(";")[0].strip().lower(), body, headers)


def reply(server: str, case: str) -> Reply:
    """Return a recorded answer, transfer and content coding undone."""
    line, headers, body = _parts(RECORDED / server / f"{case}.response.http")
    return Reply(int(line.split(" ")[1]), headers, body)


def _parts(path: Path) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = [(key.lower(), value.strip()) for key, _, value in (line.partition(b":") for line in lines)]
    values = dict(headers)
    if values.get(b"transfer-encoding") == b"chunked":
        body = _unchunked(body)
    if values.get(b"content-encoding") == b"gzip":
        body = gzip.decompress(body)
    return first.decode(), headers, body


def _unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(pieces)
        pieces.append(body[:length])
        body = body[length + 2 :]
