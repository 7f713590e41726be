"""Certificates for tests: authorities, and what they issue, as files."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = datetime.timedelta(days=1)


class Authority:
    """Issues certificates.

    Args:
        folder: where files go.
        name: of the authority, and of its files.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.made = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self.made.cert_pem.write_to_path(self.file)

    def server(self, cert: Path, key: Path, *, days: int = 30) -> None:
        """Write a certificate of 127.0.0.1, and its key."""
        until = datetime.datetime.now(datetime.UTC) + days * DAY
        issued = self.made.issue_cert("127.0.0.1", "localhost", not_before=until - 90 * DAY, not_after=until)
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(issued.private_key_pem.bytes())

    def client(self, *identities: str, name: str = "client", organization: str = "", days: int = 30) -> Path:
        """Write a client's key and certificate into one file."""
        until = datetime.datetime.now(datetime.UTC) + days * DAY
        issued = self.made.issue_cert(
            *(identities or ("someone@example.org",)),
            common_name=name,
            organization_name=organization or None,
            not_before=until - 90 * DAY,
            not_after=until,
        )
        return self.write(name, issued.private_key_and_cert_chain_pem.bytes())

    def special(
        self,
        name: str,
        subject: Sequence[tuple[x509.ObjectIdentifier, str]],
        uris: Sequence[str],
        *,
        server: bool = False,
    ) -> Path:
        """Write a certificate that the usual tools do not make: any subject, URIs, for a server only."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = serialization.load_pem_private_key(self.made.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(self.made.cert_pem.bytes()).subject
        now = datetime.datetime.now(datetime.UTC)
        use = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(kind, value) for kind, value in subject]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self.write(name, pem + built.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def write(self, name: str, pem: bytes) -> Path:
        path = self.folder / f"{self.name}-{name}.pem"
        path.write_bytes(pem)
        return path

    def trusting(self, client: Path | None = None, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return a client's context: it trusts this authority, and may bring a certificate."""
        made = ssl.create_default_context(cafile=str(self.file))
        if client is not None:
            made.load_cert_chain(client)
        if newest is not None:
            made.maximum_version = newest
        return made


COMMON_NAME = NameOID.COMMON_NAME
ORGANIZATION = NameOID.ORGANIZATION_NAME
