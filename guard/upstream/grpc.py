"""The upstream adapter for gRPC: one channel, serialised messages in and out, the `[grpc]` extra.

A model's own error becomes a reply with the status that HTTP has for it: what Guard says of errors then goes for both.
The code and the text that the model sent stand in headers (`grpc-status`, `grpc-message`), which only shadow shows.

Whether the model has seen a request decides about refunds. The library tells it by a text, which a model could send
too; so an error counts as "never reached" only while there is no connection that it could have been sent on.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from guard.errors import PolicyError, Problem, UpstreamError
from guard.model.exchange import Reply
from guard.ports import Headers, Stream
from guard.wire.open_inference_messages import truth

SERVICE = "/inference.GRPCInferenceService/"
TRAILER = b"trailer:"
"""Stands before the name of what a model sent behind its answer, in a reply's headers."""
TELL = (TRAILER, b"")
"""Stands among a request's headers where the metadata of an answer are asked for: only shadow shows them."""
_LIVE, _READY = f"{SERVICE}ServerLive".encode(), f"{SERVICE}ServerReady".encode()
_OF_HTTP: Mapping[bytes, bytes] = {b"/v2/health/live": _LIVE}
"""What a GET of HTTP's endpoints asks for here; all others ask whether the server is ready."""
_KEPT = ("ModelInfer", "ModelReady", "ServerLive", "ServerReady")
_STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 405,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
"""HTTP's status for a model's error; others are 500. The library says UNAVAILABLE of connections that break, too."""
_METADATA_BYTES = 64 * 1024
_GRACE_S = 60.0
"""How long requests may go on that began under another bound."""
_NAME = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_.-")
_PRINTABLE = frozenset(range(0x20, 0x7F))
_OWN = frozenset(
    (b"content-type", b"content-length", b"content-encoding", b"te", b"host", b"connection", b"user-agent")
)


class GrpcUpstream:
    """A gRPC upstream behind one channel. Implements `guard.ports.Upstream`.

    Args:
        url: `grpc://HOST:PORT` or `grpcs://HOST:PORT`.
        max_connections: not used: one connection carries all requests.
        max_response_bytes: bound of a reply.

    Raises:
        PolicyError: `url` is not usable.
    """

    def __init__(self, url: str, *, max_connections: int = 256, max_response_bytes: int = 32 * 1024 * 1024) -> None:
        del max_connections
        self._grpc: Any = import_module("grpc")  # Any: the library has no types, here and below
        self._address, self._secure = _parse_url(url)
        self._max_response_bytes = max_response_bytes
        self._closing: set[asyncio.Task[None]] = set()
        self._connect()

    def _connect(self) -> None:
        options = [
            ("grpc.max_receive_message_length", self._max_response_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            # A request is never written twice.
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            # Identity alone: an answer that unpacks to a thousand times its size would pass its bound.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            # A model that is back is found within seconds; the default is two minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.min_reconnect_backoff_ms", 5000),
        ]
        aio = self._grpc.aio
        if self._secure:
            credentials = self._grpc.ssl_channel_credentials(_roots())
            self._channel: Any = aio.secure_channel(self._address, credentials, options)
        else:
            self._channel = aio.insecure_channel(self._address, options)
        self._kept = {
            path: self._channel.unary_unary(path.decode("ascii")) for path in (f"{SERVICE}{k}".encode() for k in _KEPT)
        }

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        """Send one request and return the whole reply.

        Args:
            method: `b"GET"` asks for a status, and a model or server that is not ready is then a reply of status 503.
            target: the RPC's path, such as `b"/inference.GRPCInferenceService/ModelInfer"`; of a `GET`, HTTP's will do.
            headers: metadata; what belongs to one connection is left out.
            body: the serialised request.
            timeout_s: for everything.

        Raises:
            UpstreamError: `upstream_unreachable`, `upstream_timeout` (504) or `upstream_too_large`; `reached` is False
                only if upstream certainly saw nothing. A connection that breaks is UNAVAILABLE, as if upstream said so.
        """
        path = target if method != b"GET" or target.startswith(SERVICE.encode()) else _OF_HTTP.get(target, _READY)
        ask = self._kept.get(path) or self._channel.unary_unary(path.decode("ascii"))
        call = ask(body, timeout=timeout_s, metadata=metadata_of(headers))
        try:
            answer = cast("bytes", await call)
        except self._grpc.aio.AioRpcError as error:
            return self._failed(error)
        made: Headers = []
        if TELL in headers:
            made = [*headers_of(await call.initial_metadata()), *_trailers(await call.trailing_metadata())]
        if method == b"GET" and truth(_answer_of(path), answer) is False:
            return Reply(503, made, answer)
        return Reply(200, made, answer)

    def _failed(self, error: Any) -> Reply:  # Any: the library's error
        code, details = cast("str", error.code().name), cast("str", error.details() or "")
        if code == "DEADLINE_EXCEEDED":
            raise UpstreamError("upstream did not answer in time", code="upstream_timeout", status=504)
        if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
            raise UpstreamError("upstream sent a response that is too large", code="upstream_too_large")
        if code == "UNAVAILABLE" and details.startswith("failed to connect to all"):
            states = self._grpc.ChannelConnectivity
            if self._channel.get_state() in (states.TRANSIENT_FAILURE, states.CONNECTING):
                raise UpstreamError("upstream cannot be reached", code="upstream_unreachable", reached=False)
        said = [(b"grpc-status", b"%d" % error.code().value[0]), (b"grpc-message", details.encode())]
        return Reply(_STATUSES.get(code, 500), [*said, *_trailers(error.trailing_metadata())], b"")

    async def open(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Stream:
        """Refuse: no answer over gRPC comes in events."""
        del method, target, headers, body, timeout_s
        raise UpstreamError("no answer over gRPC comes in events", code="upstream_unreachable", reached=False)

    def bound(self, max_connections: int, max_response_bytes: int) -> None:
        """Put another bound in force: for every request that begins from now on."""
        del max_connections
        if max_response_bytes != self._max_response_bytes:
            self._max_response_bytes = max_response_bytes
            closing = asyncio.get_running_loop().create_task(self._channel.close(_GRACE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._connect()

    async def aclose(self) -> None:
        """Close the connection; requests under way fail."""
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()


def metadata_of(headers: Headers) -> tuple[tuple[str, str | bytes], ...]:
    r"""Return headers as metadata; what belongs to a connection, or cannot be metadata, is left out.

    >>> metadata_of([(b"x-a", b"1"), (b"te", b"trailers"), (b"x-b-bin", bytes([0])), (b"x", b"\n")])
    (('x-a', '1'), ('x-b-bin', b'\x00'))
    """
    made: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name in _OWN or name.startswith((b"grpc-", TRAILER)) or not name or not _NAME.issuperset(name):
            continue
        if name.endswith(b"-bin"):
            made.append((name.decode("ascii"), value))
        elif _PRINTABLE.issuperset(value):
            made.append((name.decode("ascii"), value.decode("ascii")))
    return tuple(made)


def headers_of(metadata: Any) -> Headers:  # Any: the library's pairs
    """Return metadata as headers: names in lower case, values as bytes; what belongs to a connection is left out."""
    made: Headers = []
    for key, value in cast("tuple[tuple[str, str | bytes], ...]", metadata or ()):
        name = key.lower().encode("latin-1")
        if name and (name not in _OWN or name == b"user-agent") and not name.startswith((b"grpc-", TRAILER)):
            made.append((name, value if isinstance(value, bytes) else value.encode("latin-1")))
    return made


def _trailers(metadata: Any) -> Headers:  # Any: same
    return [(TRAILER + name, value) for name, value in headers_of(metadata)]


def _answer_of(path: bytes) -> str:
    return f"{path.decode('ascii').removeprefix(SERVICE)}Response"


def _parse_url(url: str) -> tuple[str, bool]:
    """Return the address as the library takes it, and whether to use TLS."""
    try:
        parts = urlsplit(url)
        secure = {"grpc": False, "grpcs": True}[parts.scheme]
        host, port = parts.hostname, parts.port
    except (KeyError, ValueError):
        host = port = None
        secure = False
    if not host or not port or url.partition("://")[2].rstrip("/").count("/"):
        problem = Problem("the gRPC upstream's URL cannot be used", hint="grpc://host:port or grpcs://host:port")
        raise PolicyError([problem])
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), secure


def _roots() -> bytes | None:
    """Return the system's trust store, which SSL_CERT_FILE and SSL_CERT_DIR name; None for the library's own."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        return Path(paths.cafile).read_bytes()
    if paths.capath:
        found = sorted({path.resolve() for path in Path(paths.capath).glob("*.[0-9p]*")})
        return b"\n".join(path.read_bytes() for path in found if path.is_file()) or None
    return None
