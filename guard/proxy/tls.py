"""TLS on the data listener: a certificate, client certificates, and both again when their files change.

* A new context is made for every change, and new connections take the one in force. Adding to a context in use would
  never take an issuer away, and a session begun under it could be resumed.
* Certificate and key are two files, so for a moment they do not match. What cannot be used leaves the old ones in
  force; it is told when it is still so at the next look.
* Resumption without a new look at the client's certificate is switched off where clients are asked for one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from guard.errors import GuardError
from guard.proxy.plans import signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guard.policy.schema import AnyIdentity
    from guard.telemetry.tls_metrics import TlsMetrics

log = logging.getLogger("guard.tls")

EXPIRES_SOON_S = 14 * 86400
_REMIND_S = 86400
_MOST_BYTES = 2**20


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

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What new connections use.

    Args:
        context: of the data listener.
        plain: the same certificate without asking clients for theirs, for the admin listener.
        expires_s: when the first certificate of the server's chain expires, in seconds since the epoch.
        authorities: digest of who may issue client certificates.
        warnings: what the operator should know.
        chain: the server's certificate and its issuers', as PEM.
        key: its private key, as PEM.
        issuers: who may issue client certificates, as PEM; empty when clients are asked for none.
    """

    context: ssl.SSLContext
    plain: ssl.SSLContext
    expires_s: float
    authorities: bytes
    warnings: tuple[str, ...]
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    issuers: bytes = field(repr=False)


def load(tls: Tls) -> Loaded:
    """Read certificates and key.

    Raises:
        GuardError: they cannot be used; the message names the file.
    """
    warnings: list[str] = []
    chain, _ = _read(tls.cert)
    expires_s = _expiry(tls.cert, chain)
    key, mode = _read(tls.key)
    if mode & 0o007:
        warnings.append(f"{tls.key} can be read by others (mode {mode:04o}): chmod 640 or 600")
    context, plain = _context(tls), _context(tls)
    authorities = b""
    if tls.client_ca is not None:
        authorities, mode = _read(tls.client_ca)
        if mode & 0o022:
            warnings.append(f"{tls.client_ca} can be written by others, who can so become any client")
        _ask_clients(context, tls.client_ca, authorities, required=tls.client_required)
    digest = hashlib.sha256(authorities).digest()
    return Loaded(context, plain, expires_s, digest, tuple(warnings), chain, key, authorities)


def _context(tls: Tls) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    made.set_alpn_protocols(["http/1.1"])

    def encrypted() -> NoReturn:
        # Without it OpenSSL would ask for a passphrase on the terminal.
        raise GuardError(f"{tls.key} is encrypted, and nobody is there to type a passphrase: decrypt it", code=_CODE)

    try:
        made.load_cert_chain(tls.cert, tls.key, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise GuardError(f"{tls.key} is not the key of {tls.cert}", code=_CODE) from error
        said = f" ({error.reason.replace('_', ' ').lower()})" if error.reason else ""
        raise GuardError(f"{tls.cert} and {tls.key} cannot be used as certificate and key{said}", code=_CODE) from error
    return made


_CODE = "bad_certificate"


def _ask_clients(context: ssl.SSLContext, path: Path, authorities: bytes, *, required: bool) -> None:
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise GuardError(f"{path} holds no certificate of an issuer", code=_CODE) from error
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    # Whoever stands in the file is trusted, though its own issuer does not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _read(path: Path) -> tuple[bytes, int]:
    """Return a file's content and its permissions."""
    try:
        # A named pipe would block for ever; O_NONBLOCK opens it at once, and it is refused below.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                raise GuardError(f"{path} is not a file of at most 1 MiB", code=_CODE)
            return file.read(_MOST_BYTES), stat.S_IMODE(status.st_mode)
    except OSError as error:
        raise GuardError(f"{path} cannot be read: {error.strerror}", code=_CODE) from error


def _expiry(path: Path, chain: bytes) -> float:
    # Only what serves TLS pays for the import.
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    try:
        return min(found.not_valid_after_utc.timestamp() for found in load_pem_x509_certificates(chain))
    except ValueError as error:
        raise GuardError(f"{path} holds no certificate", code=_CODE) from error


def unasked(identity: Iterable[AnyIdentity], tls: Tls | None) -> list[str]:
    """Say what does not fit between the policy's identity and the certificates that clients are asked for."""
    named = any(source.kind == "client_certificate" for source in identity)
    asked = tls is not None and tls.client_ca is not None
    if named and not asked:
        return ["identity client_certificate names nobody: clients are asked for none without --tls-client-ca"]
    if asked and not named:
        return ["client certificates are checked, but name nobody: the policy has no identity client_certificate"]
    return []


class Certificates:
    """The certificates in force, and their reload.

    Args:
        tls: where they are.
        metrics: counts reloads and handshakes.
        wall_s: seconds since the epoch.

    Raises:
        GuardError: they cannot be used.
    """

    def __init__(self, tls: Tls, metrics: TlsMetrics, wall_s: Callable[[], float] = time.time) -> None:
        self.tls = tls
        self.metrics = metrics
        self._wall_s = wall_s
        # Taken before the files are read, so that what changes meanwhile differs at the next look.
        self._seen = signatures(tls.files)
        self._doubtful = False
        self._reminded_s = float("-inf")
        self.current = load(tls)
        self._tell()

    async def watch(self, parted: Callable[[], None], interval_s: float = 1.0) -> None:
        """Look at the files once an interval; runs until it is cancelled.

        Args:
            parted: called when other issuers than before may name clients.
            interval_s: seconds between two looks.
        """
        while True:
            await asyncio.sleep(interval_s)
            await self.look(parted)

    async def look(self, parted: Callable[[], None]) -> None:
        """Look at the files, and put what is new in force."""
        now = await asyncio.to_thread(signatures, self.tls.files)
        if now == self._seen and not self._doubtful:
            self._remind()
            return
        doubtful, self._doubtful = self._doubtful, False
        try:
            loaded = await asyncio.to_thread(load, self.tls)
        except Exception as error:  # whatever it is, the old ones serve on
            self._doubtful = not doubtful or now != self._seen
            self._seen = now
            if not self._doubtful:
                why = error.message if isinstance(error, GuardError) else type(error).__name__
                self.metrics.reload(ok=False)
                log.error("certificates not reloaded, the old ones stay in force: %s", why)
            return
        self._seen = now
        before, self.current = self.current, loaded
        self.metrics.reload(ok=True)
        log.info("certificates reloaded")
        self._tell()
        if loaded.authorities != before.authorities:
            parted()

    def _tell(self) -> None:
        self.metrics.expiry(self.current.expires_s)
        for warning in self.current.warnings:
            log.warning("%s", warning)
        self._reminded_s = float("-inf")
        self._remind()

    def _remind(self) -> None:
        now_s = self._wall_s()
        left_s = self.current.expires_s - now_s
        if left_s < EXPIRES_SOON_S and now_s - self._reminded_s >= _REMIND_S:
            self._reminded_s = now_s
            log.warning("the certificate of %s %s", self.tls.cert, expires(left_s))


def expires(left_s: float) -> str:
    """Say when a certificate expires, or has.

    >>> expires(3.5 * 86400), expires(-1)
    ('expires in 3 days', 'has expired')
    """
    return f"expires in {int(left_s // 86400)} days" if left_s > 0 else "has expired"
