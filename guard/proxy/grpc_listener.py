"""The gRPC listener: a grpc.aio server on an address, within the bounds of the plan in force.

The library fixes a server's bounds, and who may issue client certificates, when it is made. So where a reload changes
one of these, another server takes over the address: the kernel gives new connections to either, the old one takes no
more, asks its clients to come again, and ends what is under way. The same parts with clients that do not read: the
library has no way to end one RPC or one connection. A new certificate of the server's own needs none of that: every
handshake takes the one in force.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from guard.errors import GuardError
from guard.proxy.listener import bind

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.policy.schema import Limits
    from guard.proxy.grpc_service import GrpcService
    from guard.proxy.tls import Certificates

log = logging.getLogger("guard.grpc")

MAX_CONNECTIONS = 8192
MAX_STALLED = 256
"""Answers that nobody reads, which the library keeps: with more, another server takes over."""
MAX_STREAMS = 128
"""RPCs of one connection at once."""
_IDLE_MS = 300_000
_PING_MS, _PING_TIMEOUT_MS = 60_000, 20_000


def check_installed() -> None:
    """Check for the `[grpc]` extra.

    Raises:
        GuardError: it is not installed.
    """
    # Its library writes what clients do wrong to standard error, a line each: a client must not fill the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Without its own threads for input and output, the one that asyncio has polls: 80 of 440 us a request less. A
    # version that knows no such choice passes it over.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
    try:
        import_module("grpc.aio")
        import_module("google.protobuf.message")
    except ImportError as error:
        raise GuardError("gRPC needs an extra: pip install 'model-guard[grpc]'", code="no_extra") from error


class GrpcListener:
    """Serves gRPC on one address.

    Args:
        service: serves RPCs.
        listen: (host, port); port 0 takes a free one.
        limits: gives the limits in force.
        certificates: for TLS; None for plain text.
        look_s: how often it looks whether it is to exit, or bounds have changed.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        service: GrpcService,
        listen: tuple[str, int],
        limits: Callable[[], Limits],
        certificates: Certificates | None = None,
        look_s: float = 0.25,
    ) -> None:
        self._service = service
        self._limits = limits
        self._certificates = certificates
        self._look_s = look_s
        # Bound once as others bind it: on an address that two servers share, the library tells nobody that it is taken.
        with bind(*listen) as sock:
            self.address = cast("tuple[str, int]", sock.getsockname()[:2])
        self._server: Any = None  # Any: the library has no types, here and below
        self._bounds: object = None
        self._old: set[asyncio.Task[None]] = set()
        self.should_exit = False
        self.force_exit = False

    async def start(self) -> None:
        """Begin to accept.

        Raises:
            OSError: the address cannot be bound.
        """
        self._server, self._bounds = await self._made(), self._wanted()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to exit, and let RPCs under way end."""
        del sockets  # the library binds by itself
        patience = asyncio.create_task(self._service.patience.run())
        while not self.should_exit:
            await asyncio.sleep(self._look_s)
            if self._bounds != self._wanted() or self._service.patience.stalled >= MAX_STALLED:
                await self._replace()
        self._service.drain()
        stopping = {asyncio.create_task(self._server.stop(self._limits().drain_s)), *self._old}
        while stopping:
            _, stopping = await asyncio.wait(stopping, timeout=self._look_s)
            if self.force_exit and stopping:
                await self._server.stop(None)
                break
        patience.cancel()

    def _wanted(self) -> object:
        limits = self._limits()
        issuers = None if self._certificates is None else self._certificates.current.authorities
        return limits.body_bytes, limits.header_bytes, limits.concurrency, limits.read_timeout_s, issuers

    async def _replace(self) -> None:
        """Let a server with other bounds take over."""
        wanted = self._wanted()
        self._service.patience.stalled = 0
        try:
            made = await self._made()
        except (OSError, RuntimeError) as error:
            log.error("the gRPC listener keeps its old bounds: %s", error)
            self._bounds = wanted
            return
        old, self._server, self._bounds = self._server, made, wanted
        task = asyncio.create_task(old.stop(self._limits().drain_s))
        self._old.add(task)
        task.add_done_callback(self._old.discard)

    async def _made(self) -> Any:
        grpc: Any = import_module("grpc")
        limits = self._limits()
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.absolute_max_metadata_size", limits.header_bytes),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
                ("grpc.max_connection_idle_ms", _IDLE_MS),
                ("grpc.keepalive_time_ms", _PING_MS),
                ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
                ("grpc.server_handshake_timeout_ms", int(limits.read_timeout_s * 1000)),
            ],
            # As many again may be on their way in or out: Guard lets go of those that are slow.
            maximum_concurrent_rpcs=2 * limits.concurrency,
        )
        server.add_generic_rpc_handlers((_handlers(grpc, self._service),))
        host, port = self.address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        bound = (
            server.add_insecure_port(where)
            if self._certificates is None
            else server.add_secure_port(where, _credentials(grpc, self._certificates))
        )
        if not bound:
            raise OSError(f"cannot listen on {where}")
        await server.start()
        return server


def _handlers(grpc: Any, service: GrpcService) -> Any:
    class Handlers(grpc.GenericRpcHandler):
        """Finds what serves a method."""

        def service(self, handler_call_details: Any) -> Any:
            method = cast("str", handler_call_details.method)
            unary = service.unary(method)
            if unary is not None:
                return grpc.stream_unary_rpc_method_handler(unary)
            return grpc.stream_stream_rpc_method_handler(service.stream(method))

    return Handlers()


def _credentials(grpc: Any, certificates: Certificates) -> Any:
    """Return credentials of which every handshake takes the certificate in force.

    The library knows of no client certificate that may be left out: where clients are asked for one, they must have it.
    """
    given = certificates.current

    def configuration() -> Any:
        loaded = certificates.current
        return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.chain)], loaded.issuers or None)

    def newer() -> Any:
        nonlocal given
        if certificates.current is given:
            return None
        given = certificates.current
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), newer, bool(given.issuers))
