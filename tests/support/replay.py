"""Recorded exchanges, parsed from their raw bytes by httptools, and replayed through the whole of Guard."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import httptools

from guard.model.exchange import Reply
from guard.ports import Headers
from tests.support.fakes import Answered, Guarded

RECORDED = Path(__file__).parents[1] / "recorded"


@dataclass
class _Message:
    """What httptools calls back."""

    url: bytes = b""
    headers: Headers = field(default_factory=list[tuple[bytes, bytes]])
    pieces: list[bytes] = field(default_factory=list[bytes])
    complete: bool = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(frozen=True)
class Exchange:
    """A recorded request and its answer.

    Args:
        name: `server/case`.
        method: of the request.
        target: likewise.
        headers: likewise, names lower case.
        body: likewise, content coding as sent.
        reply: the answer, transfer coding undone, content coding as sent.
    """

    name: str
    method: str
    target: str
    headers: Headers
    body: bytes
    reply: Reply

    @property
    def content(self) -> bytes:
        """The answer's body with its content coding undone."""
        return (
            gzip.decompress(self.reply.body) if self.reply.header(b"content-encoding") == b"gzip" else self.reply.body
        )

    async def through(self, guarded: Guarded) -> Answered:
        """Replay the exchange: the request as it was sent, the model answering as it did."""
        guarded.upstream.answer = lambda _: Reply(self.reply.status, list(self.reply.headers), self.reply.body)
        return await guarded.ask(self.method, self.target, self.body, list(self.headers))


def exchange(server: str, case: str) -> Exchange:
    """Read one exchange."""
    asked, said = _Message(), _Message()
    raw = (RECORDED / server / f"{case}.request.http").read_bytes()
    request = httptools.HttpRequestParser(asked)
    request.feed_data(raw)
    assert asked.complete, case
    response = httptools.HttpResponseParser(said)
    response.feed_data((RECORDED / server / f"{case}.response.http").read_bytes())
    assert said.complete, case
    reply = Reply(response.get_status_code(), said.headers, b"".join(said.pieces))
    method = request.get_method().decode()
    return Exchange(f"{server}/{case}", method, asked.url.decode(), asked.headers, b"".join(asked.pieces), reply)


def exchanges(server: str, prefix: str = "") -> list[Exchange]:
    """Read all exchanges of a server whose case begins with `prefix`, by name."""
    paths = sorted((RECORDED / server).glob(f"{prefix}*.request.http"))
    return [exchange(server, path.name.removesuffix(".request.http")) for path in paths]
