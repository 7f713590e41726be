"""Clients that a certificate names: mutual TLS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a verified client certificate says of its holder.

    Args:
        common_name: the subject's last CN; empty when there is none.
        organization: the subject's last O; empty when there is none.
        uris: URI subject alternative names, such as SPIFFE ids, in the certificate's order.
        dns: DNS subject alternative names, likewise.
        emails: e-mail subject alternative names, likewise.
    """

    common_name: str = ""
    organization: str = ""
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
