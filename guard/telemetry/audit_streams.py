"""The audit log on standard output and to syslog: where it goes on is not for Guard to see, so each start is a new log.

Lines are the same as in a file, checkpoints among them; there is no head, so what vouches for the end is the last
checkpoint that arrived.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from guard.telemetry.audit_chain import Chain
from guard.telemetry.audit_target import Origin

_PRIORITY = 13 * 8 + 6
"""Facility `log audit`, severity informational."""
_TIMEOUT_S = 5.0
Connect = Callable[[], socket.socket]


class Stream:
    """What targets have in common that cannot be rotated."""

    full = False

    @property
    def origin(self) -> Origin:
        """A new log."""
        return Origin(Chain(), "", {"state": "new"})

    def sync(self, head: bytes) -> None:
        """Keep no head."""

    def rotate(self) -> int:
        """Keep everything."""
        return 1

    def prune(self) -> None:
        """Delete nothing."""


class Standard(Stream):
    """Standard output, or another descriptor.

    Args:
        descriptor: open for writing.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._done = 0

    def write(self, data: bytes) -> None:
        """Write, and after a failure go on where it happened: what a reader has cannot be taken back."""
        view = memoryview(data)[self._done :]
        while view:
            written = os.write(self._descriptor, view)
            self._done += written
            view = view[written:]
        self._done = 0

    def close(self) -> None:
        """Leave it open: it is not ours."""


class Syslog(Stream):
    """A syslog server (RFC 5424), one line a message.

    Args:
        connect: opens a connected socket; called again after a failure.
        framed: put each message's length before it (RFC 6587), for byte streams.
    """

    def __init__(self, connect: Connect, *, framed: bool) -> None:
        self._connect = connect
        self._framed = framed
        self._socket: socket.socket | None = None
        self._sent = 0
        self._host = socket.gethostname()[:255] or "-"

    def write(self, data: bytes) -> None:
        """Send every line; after a failure go on with the one that failed."""
        lines = data.split(b"\n")[:-1]
        try:
            if self._socket is None:
                self._socket = self._connect()
            for line in lines[self._sent :]:
                self._socket.sendall(self._message(line))
                self._sent += 1
        except OSError:
            self.close()
            raise
        self._sent = 0

    def _message(self, line: bytes) -> bytes:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = f"<{_PRIORITY}>1 {time} {self._host} guard {os.getpid()} audit - ".encode() + line
        return b"%d %b" % (len(message), message) if self._framed else message

    def close(self) -> None:
        """Close the connection; the next line opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def syslog(address: str) -> Syslog:
    """Return the syslog target of an address.

    Args:
        address: a UNIX socket's path, `udp:HOST:PORT` or `tcp:HOST:PORT`.

    Raises:
        ValueError: it is none of these.
    """
    kind, _, rest = address.partition(":")
    if address.startswith("/"):
        return Syslog(lambda: _unix(address), framed=False)
    host, colon, port = rest.rpartition(":")
    if kind not in ("udp", "tcp") or not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"a syslog address is /dev/log, udp:HOST:PORT or tcp:HOST:PORT, not {address}")
    where = (host.strip("[]"), int(port))
    if kind == "tcp":
        return Syslog(lambda: socket.create_connection(where, _TIMEOUT_S), framed=True)
    return Syslog(lambda: _udp(where), framed=False)


def _unix(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    return _connected(made, path)


def _udp(where: tuple[str, int]) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)[0]
    return _connected(socket.socket(family, kind, protocol), address)


def _connected(made: socket.socket, address: str | tuple[object, ...]) -> socket.socket:
    try:
        made.settimeout(_TIMEOUT_S)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made
