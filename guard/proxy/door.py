"""Where TLS connections come in: the handshake, bounded in time and number, before anything of HTTP exists.

The server's own way fixes one context for the life of the listener, bounds no number and waits a minute. Here every
connection takes the certificates that are in force when it comes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from guard.proxy.protocol import STALLED_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.proxy.tls import Certificates

log = logging.getLogger("guard.tls")

MAX_HANDSHAKES = 1024
"""Handshakes under way. When one more comes, the oldest is given up: an honest one takes milliseconds."""
_SHUTDOWN_S = 5.0
"""How long the other side may take to say goodbye."""
_ACCEPTED_AT_ONCE = 32
_PAUSE_S = 0.5
"""Until the next try when there is no file descriptor left."""


class Door:
    """Lets the connections of one listener in.

    Args:
        certificates: what handshakes use.
        make: makes the protocol of a connection; it hears of it when the handshake is done.
        timeout_s: gives how long a handshake may take.
        clients: ask clients for their certificates, as the data listener does.
        most: handshakes under way at most.
        stalled_s: how long a client may leave what was sent unread.
    """

    def __init__(
        self,
        certificates: Certificates,
        make: Callable[[], asyncio.Protocol],
        timeout_s: Callable[[], float],
        *,
        clients: bool = True,
        most: int = MAX_HANDSHAKES,
        stalled_s: float = STALLED_S,
    ) -> None:
        self._certificates = certificates
        self._make = make
        self._timeout_s = timeout_s
        self._clients = clients
        self._most = most
        self._stalled_s = stalled_s
        self._listeners: list[socket.socket] = []
        self.under_way: dict[asyncio.Task[None], None] = {}

    def open(self, listener: socket.socket) -> None:
        """Begin to accept.

        Args:
            listener: bound, listening, not blocking.
        """
        # The layer of TLS does not say that the client has stopped reading one large answer, so the kernel looks;
        # connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._stalled_s * 1e3))
        self._listeners.append(listener)
        self._attend(listener)

    def close(self) -> None:
        """Accept no more, and give up every handshake that is under way."""
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
        self._listeners.clear()
        self.give_up()

    def give_up(self) -> None:
        """Give up every handshake that is under way."""
        for task in list(self.under_way):
            task.cancel()

    def _attend(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Whoever waits stays in the kernel's queue; trying at once again would do nothing else.
                log.error("connections cannot be accepted: %s", error.strerror)
                loop.remove_reader(listener)
                loop.call_later(_PAUSE_S, self._attend, listener)
                return
            accepted.setblocking(False)
            if len(self.under_way) >= self._most:
                oldest = next(iter(self.under_way))
                del self.under_way[oldest]
                oldest.cancel()
            task = loop.create_task(self._shake(accepted))
            self.under_way[task] = None
            task.add_done_callback(lambda done: self.under_way.pop(done, None))

    async def _shake(self, accepted: socket.socket) -> None:
        loaded = self._certificates.current
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                accepted,
                ssl=loaded.context if self._clients else loaded.plain,
                ssl_handshake_timeout=self._timeout_s(),
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError, ssl.CertificateError a ValueError too
            self._certificates.metrics.handshake_failed()
            log.debug("handshake failed: %s", type(error).__name__)
        except asyncio.CancelledError:
            self._certificates.metrics.handshake_failed()
            raise
