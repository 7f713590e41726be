"""Shipped adapters' stand-ins for tests.

An upstream that answers by script, a clock that is set, and Guard without sockets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guard.errors import UpstreamError
from guard.model.exchange import Reply
from guard.ports import Headers, Heard, State
from guard.proxy.app import DataApp
from guard.proxy.clients import RecentClients
from guard.proxy.handler import Handler
from guard.proxy.load import load_active
from guard.proxy.observers import NOBODY, Observers
from guard.proxy.plans import Plans
from guard.state.memory import MemoryState
from guard.telemetry.metrics import Metrics

SECRET = bytes(range(32))


@dataclass
class SetClock:
    """A clock that tests move."""

    wall: float = 1_800_000_000.0
    monotonic: float = 0.0

    def wall_s(self) -> float:
        return self.wall

    def monotonic_s(self) -> float:
        self.monotonic += 1e-4
        return self.monotonic


@dataclass
class Seen:
    """One request as the upstream saw it."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


@dataclass
class ScriptedStream:
    """A reply in pieces, and what was made of it. Implements `guard.ports.Stream`.

    Args:
        pieces: what one `read` after the other returns.
        error: raised once the pieces are out; None for a reply that ends well.
        status: of the reply.
        headers: of the reply.
        wait: awaited before each piece, for tests that time them.
    """

    pieces: list[bytes]
    error: UpstreamError | None = None
    status: int = 200
    headers: Headers = field(default_factory=Headers)
    wait: Callable[[], Awaitable[None]] | None = None
    reads: int = 0
    closes: int = 0

    async def read(self) -> bytes:
        assert not self.closes
        if self.wait is not None:
            await self.wait()
        self.reads += 1
        if self.reads <= len(self.pieces):
            return self.pieces[self.reads - 1]
        if self.error is not None:
            raise self.error
        return b""

    def close(self) -> None:
        self.closes += 1


@dataclass
class ScriptedUpstream:
    """Answers every request with what `answer` returns or raises; in pieces with what `stream` does, or all in one."""

    answer: Callable[[Seen], Reply] = lambda seen: Reply(200, [], b"")
    stream: Callable[[Seen], ScriptedStream] | None = None
    seen: list[Seen] = field(default_factory=list[Seen])
    opened: list[ScriptedStream] = field(default_factory=list[ScriptedStream])

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        del timeout_s
        self.seen.append(Seen(method, target, headers, body))
        return self.answer(self.seen[-1])

    async def open(
        self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float
    ) -> ScriptedStream:
        if self.stream is None:
            reply = await self.send(method, target, headers, body, timeout_s)
            stream = ScriptedStream([reply.body] if reply.body else [], status=reply.status, headers=reply.headers)
        else:
            self.seen.append(Seen(method, target, headers, body))
            stream = self.stream(self.seen[-1])
        self.opened.append(stream)
        return stream

    async def send_all(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        *,
        quorum: int,
        wait_s: float,
        read: Callable[[Reply], Heard],
    ) -> list[Heard | None]:
        del wait_s
        return [read(await self.send(method, target, headers, body, timeout_s)) for _ in range(quorum)]

    async def aclose(self) -> None:
        return


@dataclass
class Answered:
    """What the client got."""

    status: int
    headers: dict[str, str]
    body: bytes


class Guarded:
    """Guard's data listener without sockets.

    Args:
        policy: the policy's YAML, or a preset's name.
        folder: where the policy is written.
        api: `serve --api`.
        state: the ledgers; None for fresh ones in memory.
        env: environment, for `{env: NAME}`.
        observers: who is told of what happens.
    """

    def __init__(
        self,
        policy: str,
        folder: Path,
        api: str | None = None,
        state: State | None = None,
        env: Mapping[str, str] | None = None,
        observers: Observers = NOBODY,
    ) -> None:
        source: str | Path = policy
        if "\n" in policy:
            source = folder / "policy.yaml"
            source.write_text(policy)
        self.upstream = ScriptedUpstream()
        self.clock = SetClock()
        self.metrics = Metrics()
        self.state: State = state or MemoryState()
        self.plans = Plans(lambda: load_active(source, api=api, env=env or {}), lambda _ok, _message: None)
        self.handler = Handler(self.state, self.upstream, self.clock, SECRET, self.metrics, RecentClients(), observers)
        self.app = DataApp(self.plans, self.handler, self.metrics, self.clock)

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Headers | None = None,
        peer: str = "192.0.2.1",
        chunks: list[bytes] | None = None,
    ) -> Answered:
        """Send one request and return what came back."""
        path, _, query = target.partition("?")
        scope: dict[str, Any] = {  # Any: ASGI
            "type": "http",
            "method": method,
            "raw_path": path.encode("ascii"),
            "path": path,
            "query_string": query.encode("ascii"),
            "headers": headers or [],
            "client": (peer, 40000),
            "http_version": "1.1",
        }
        pieces = [body] if chunks is None else chunks
        messages = [{"type": "http.request", "body": p, "more_body": i < len(pieces) - 1} for i, p in enumerate(pieces)]
        sent: list[Any] = []  # Any: ASGI

        async def receive() -> Any:  # Any: ASGI
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:  # Any: ASGI
            sent.append(message)

        await self.app(scope, receive, send)
        start, *rest = sent
        received = {k.decode(): v.decode("latin-1") for k, v in start["headers"]}
        return Answered(start["status"], received, b"".join(m["body"] for m in rest))
