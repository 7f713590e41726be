"""TLS on the data listener: a certificate, client certificates, and both again when their files change."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """Where certificates are; none of it is policy.

    Args:
        cert: PEM file: the server's certificate, then its issuers'.
        key: PEM file: its private key.
        client_ca: PEM file: who may issue client certificates; None asks clients for none.
        client_required: refuse the handshake without a client certificate; otherwise other identities may name the
            client.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    client_required: bool = False


def context(tls: Tls) -> ssl.SSLContext:
    """Return the context of new connections.

    Raises:
        OSError: a file cannot be read, or is no certificate; the message names it.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(tls.cert, tls.key)
    return made
