"""What this machine's sockets tell: its addresses, who listens where, what a port speaks."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from pathlib import Path

_LISTENING = "0A"
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""A client's first bytes: the preface and empty settings."""


def own_addresses() -> list[str]:
    """Return this machine's addresses other than loopback, as far as its name and routes tell."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            # Connecting a datagram socket sends nothing; it only asks the routing table which address would be used.
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.add(str(probe.getsockname()[0]))
        except OSError:
            continue
    return sorted(a for a in found if not ipaddress.ip_address(a.split("%")[0]).is_loopback)


def resolved(host: str) -> list[str]:
    """Return a host's addresses; none when its name is not known."""
    with contextlib.suppress(OSError):
        return sorted({str(info[4][0]) for info in socket.getaddrinfo(host, None)})
    return []


async def reaches(host: str, port: int) -> bool:
    """Say whether a TCP connection to host and port is accepted."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def speaks_http2(host: str, port: int) -> bool:
    """Say whether a port answers as a gRPC server does: with settings of HTTP/2, before any request."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_HTTP2)
                frame = await reader.readexactly(9)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return frame[3] == 4


def bound(port: int, tables: tuple[Path, ...] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> list[str]:
    """Return the addresses other than loopback on which something listens on a port, as the kernel lists them.

    Args:
        port: the port.
        tables: the kernel's lists; one that is not there is passed over.
    """
    found: set[str] = set()
    for table in tables:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                host, _, number = local.partition(":")
                if state == _LISTENING and int(number, 16) == port:
                    found.add(str(_decoded(host)))
    return sorted(address for address in found if not ipaddress.ip_address(address).is_loopback)


def _decoded(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Read an address of the kernel's lists: words of four bytes, each in this machine's order.

    >>> _decoded("0100007F"), _decoded("00000000")
    (IPv4Address('127.0.0.1'), IPv4Address('0.0.0.0'))
    """
    raw = bytes.fromhex(text)
    words = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(words)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
