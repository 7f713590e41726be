"""Clients that a certificate names: mutual TLS.

The certificate is the connection's own, which the handshake has verified. What a header says of one
(X-Forwarded-Client-Cert) anybody can write, so it is never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

from guard.model.client import Client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.policy.schema import ClientCertificateIdentity

_MOST_NAMES = 64
_MOST_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a verified client certificate says of its holder; every kind in the certificate's order.

    Args:
        common_name: the subject's CNs.
        organization: the subject's Os.
        uri: URI subject alternative names, such as SPIFFE ids.
        dns: DNS subject alternative names.
        email: e-mail subject alternative names.
    """

    common_name: tuple[str, ...] = ()
    organization: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()


def certificate_of(decoded: Mapping[str, Any] | None) -> Certificate | None:  # Any: as `SSLSocket.getpeercert` has it
    """Read what the TLS layer has decoded; None where there was no certificate.

    >>> certificate_of({"subject": ((("commonName", "nightly"),),), "subjectAltName": (("URI", "spiffe://a/b"),)})
    Certificate(common_name=('nightly',), organization=(), uri=('spiffe://a/b',), dns=(), email=())
    """
    if not decoded:
        return None
    pairs = cast("list[tuple[str, str]]", [pair for part in decoded.get("subject", ()) for pair in part])
    names = cast("tuple[tuple[str, str], ...]", decoded.get("subjectAltName", ()))

    def every(found: list[tuple[str, str]] | tuple[tuple[str, str], ...], kind: str) -> tuple[str, ...]:
        return tuple(value for name, value in found if name == kind)[: _MOST_NAMES + 1]

    return Certificate(
        every(pairs, "commonName"),
        every(pairs, "organizationName"),
        every(names, "URI"),
        every(names, "DNS"),
        every(names, "email"),
    )


class CertificateNames:
    """Finds the client of a certificate.

    Args:
        spec: the policy's.
    """

    def __init__(self, spec: ClientCertificateIdentity) -> None:
        self._spec = spec

    def find(self, certificate: Certificate) -> Client | None:
        """Return the certificate's client; None unless exactly one of its names is allowed, and it has one group."""
        names = {name for name in getattr(certificate, self._spec.name) if self._allows(name)}
        organizations = set(certificate.organization) if self._spec.group == "organization" else set[str]()
        if len(names) != 1 or len(organizations) > 1:
            return None
        name = f"certificate:{names.pop()}"
        if not organizations:
            return Client(name, name, "client_certificate")
        organization = organizations.pop()
        return Client(name, f"certificate-group:{organization}", "client_certificate") if _plain(organization) else None

    def _allows(self, name: str) -> bool:
        if not _plain(name):
            return False
        return not self._spec.allow or any(fnmatchcase(name, pattern) for pattern in self._spec.allow)


def _plain(name: str) -> bool:
    """Say whether a name is fit for budgets and lists: a NUL or a line break in it would not be."""
    return 0 < len(name) <= _MOST_CHARACTERS and name.isprintable() and name == name.strip()
