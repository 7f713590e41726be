"""Addresses: an IPv4 address or an IPv6 /64 names the client, and X-Forwarded-For counts behind trusted proxies."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from guard.model.client import Client

if TYPE_CHECKING:
    from guard.ports import Headers

_MAX_HOPS = 32
_MAX_CHARS = 64
_CACHED = 4096
_FORWARDED = b"x-forwarded-for"

Address = IPv4Address | IPv6Address


def parse(text: str) -> Address | None:
    """Read an address as proxies write it: port, brackets and zone are taken off, IPv4 inside IPv6 becomes IPv4.

    >>> parse("[::ffff:192.0.2.1]:443"), parse("192.0.2.1:80"), parse("unknown")
    (IPv4Address('192.0.2.1'), IPv4Address('192.0.2.1'), None)
    """
    text = text.strip()
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port[0] == ":" and port[1:].isdecimal())):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not port.isdecimal():
            return None
    try:
        address = ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_of(address: Address | None) -> Client:
    """Return the client of an address: whole IPv4, IPv6 /64, which is what one subscriber has.

    >>> client_of(parse("2001:db8:1:2:3::4")).name, client_of(None).name
    ('address:2001:db8:1:2::/64', 'address:unknown')
    """
    if address is None:
        name = "address:unknown"
    elif isinstance(address, IPv4Address):
        name = f"address:{address}"
    else:
        name = f"address:{IPv6Network((int(address) >> 64 << 64, 64))}"
    return Client(name, name, "address")


def _client_of_peer(peer: str) -> Client:
    return client_of(parse(peer))


class Addresses:
    """Names clients by address.

    Args:
        trusted_proxies: networks whose X-Forwarded-For counts.
    """

    def __init__(self, trusted_proxies: tuple[str, ...] = ()) -> None:
        self._trusted = tuple(ip_network(network, strict=False) for network in trusted_proxies)
        # Parsing costs 3 µs, a hit .1 µs; both caches are bounded, and nothing long enters them.
        self._parse = lru_cache(_CACHED)(self._look)
        self._peer = lru_cache(_CACHED)(_client_of_peer)

    def find(self, headers: Headers, peer: str) -> Client:
        """Return the client of the nearest address that no trusted proxy has."""
        if not self._trusted:
            return self._peer(peer)
        address, trusted = self._parse(peer)
        if not trusted:
            return self._peer(peer)
        forwarded = b",".join([value for name, value in headers if name == _FORWARDED])
        if forwarded:
            address = self._walk(forwarded, address)
        return client_of(address)

    def _walk(self, forwarded: bytes, last: Address | None) -> Address | None:
        """Walk from the right while a trusted proxy has written the entry; garbage ends the walk at what was known."""
        for entry in reversed(forwarded.rsplit(b",", _MAX_HOPS)[-_MAX_HOPS:]):
            if len(entry) > _MAX_CHARS:
                break
            address, trusted = self._parse(entry.decode("latin-1"))
            if address is None:
                break
            last = address
            if not trusted:
                break
        return last

    def _look(self, text: str) -> tuple[Address | None, bool]:
        address = parse(text)
        return address, address is not None and any(address in network for network in self._trusted)
