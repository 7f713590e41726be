"""The two listeners: uvicorn servers that Guard runs side by side, on sockets that it has bound itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import uvicorn

from guard.proxy.door import Door
from guard.proxy.protocol import BoundedProtocol
from guard.proxy.tls import Certificates

COMMON: dict[str, Any] = {  # Any: uvicorn's keyword arguments
    "lifespan": "off",
    "ws": "none",
    "access_log": False,
    "log_config": None,
    # Its warnings are one line for every malformed request: a client must not fill the log.
    "log_level": "error",
    "server_header": False,
    "proxy_headers": False,
    "timeout_keep_alive": 75,
    "backlog": 1024,
}


class Listener(uvicorn.Server):
    """A uvicorn server that leaves signals to Guard, which runs two of them.

    Args:
        config: uvicorn's.
        beside: what runs for as long as it serves; None for nothing.
    """

    door: Door | None = None
    """Lets TLS connections in; None serves plain HTTP."""

    def __init__(self, config: uvicorn.Config, beside: Callable[[], Coroutine[None, None, None]] | None = None) -> None:
        super().__init__(config)
        self._beside = beside

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to exit."""
        beside = None if self._beside is None else asyncio.create_task(self._beside())
        try:
            await super().serve(sockets)
        finally:
            if beside is not None:
                beside.cancel()

    def secure(self, certificates: Certificates, timeout_s: Callable[[], float], *, clients: bool = True) -> None:
        """Serve HTTPS.

        Args:
            certificates: in force, and reloaded.
            timeout_s: gives how long a handshake may take.
            clients: ask clients for certificates.
        """
        self.door = Door(certificates, self._protocol, timeout_s, clients=clients)

    def part(self) -> None:
        """Part, after the answer under way, from clients that a certificate names: its issuer may be dropped."""
        if self.door is not None:
            self.door.give_up()
        connections: set[Any] = self.server_state.connections  # Any: any of uvicorn's protocols
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol) and connection.certificate is not None:
                connection.shutdown()

    def _protocol(self) -> asyncio.Protocol:
        made: type[Any] = self.config.http_protocol_class  # pyright: ignore[reportAssignmentType]  # Any: by name or class
        return made(config=self.config, server_state=self.server_state, app_state={})

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        if self.door is None:
            await super().startup(sockets)
            return
        await super().startup([])
        self.servers = []
        for sock in sockets or ():
            self.door.open(sock)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and wait for requests under way."""
        if self.door is not None:
            self.door.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture nothing."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Raises:
        OSError: it cannot be; the message names the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.setblocking(False)
    return sock
