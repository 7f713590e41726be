"""Who asks: names the client of a request from what the policy trusts, and nothing else.

The rules that hold for every source:

* Sources are asked in the policy's order, and the first whose header (or client certificate) is present decides: it
  names the client, or the request is refused (401). A wrong credential never falls through to another source, nor to
  the address. Sources that read the same header are asked together, because they look at the same credential.
* A header that carries a credential must stand once.
* Names of different sources never meet, so budgets never mix: a key's name stands as it is and holds no colon; others
  begin with `jwt:`, `jwt[ISSUER]:`, `certificate:` or `address:`.
* Every refusal reads the same. Why stands in the exception's cause, for the log.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from guard.errors import Denied, PolicyError, Problem
from guard.model.client import Client
from guard.proxy.identity_address import Addresses
from guard.proxy.identity_certificate import CertificateNames
from guard.proxy.identity_keys import KeySource, read_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guard.policy.schema import AnyIdentity, ApiKeyIdentity, ClientCertificateIdentity, JwtIdentity
    from guard.ports import Headers
    from guard.proxy.identity_certificate import Certificate

_ALWAYS_STRIPPED = frozenset((b"authorization", b"cookie", b"proxy-authorization"))
_MAX_FILE_BYTES = 16 * 2**20
_CERTIFICATE = b""
"""Stands among the headers, in the policy's order, for the client certificate: no header has an empty name."""


class Source(Protocol):
    """Reads one kind of credential."""

    def find(self, value: bytes) -> Client | None:
        """Return the client that a header's value names; None when it names nobody.

        Args:
            value: the header's value, a leading `Bearer ` and white space around it taken off; never empty.
        """
        ...


class Identity:
    """Names clients. Immutable once loaded, so that requests of one plan agree.

    Args:
        sources: (header in lower case, source), in the policy's order; an empty header for what reads certificates.
        addresses: names those who bring no credential.
        forward: credential headers that the policy lets through.
        files: what was read, so that a change is noticed.
        warnings: what the operator should know.
    """

    def __init__(
        self,
        sources: Iterable[tuple[bytes, Source | CertificateNames]] = (),
        addresses: Addresses | None = None,
        forward: Iterable[bytes] = (),
        files: Iterable[Path] = (),
        warnings: Iterable[str] = (),
    ) -> None:
        grouped: dict[bytes, tuple[Source, ...]] = {}
        self._certificates: CertificateNames | None = None
        for header, source in sources:
            if isinstance(source, CertificateNames):
                self._certificates = source
                grouped[_CERTIFICATE] = ()
            else:
                grouped[header] = (*grouped.get(header, ()), source)
        self._sources = grouped
        self._addresses = addresses or Addresses()
        self.forward = frozenset(forward)
        self.strip: frozenset[bytes] = (_ALWAYS_STRIPPED | frozenset(grouped)) - self.forward - {_CERTIFICATE}
        self.files: tuple[Path, ...] = tuple(dict.fromkeys(files))
        self.warnings: tuple[str, ...] = tuple(warnings)

    @classmethod
    def load(cls, specs: tuple[AnyIdentity, ...], *, wall_s: Callable[[], float] = time.time) -> Identity:
        """Read the files that the policy names.

        Args:
            specs: the policy's `identity`.
            wall_s: seconds since the epoch, against which tokens expire.

        Raises:
            PolicyError: every mistake in every file at once, with file and line.
        """
        loader = _Loader(wall_s)
        for index, spec in enumerate(specs):
            loader.add(f"identity[{index}]", spec)
        if loader.problems:
            files = {problem.file for problem in loader.problems}
            raise PolicyError(loader.problems, files.pop() if len(files) == 1 else "")
        # A header that two sources read goes through only if both say so.
        forward = {header for header, lets in loader.forward.items() if all(lets)}
        return cls(loader.sources, loader.addresses, forward, loader.files, loader.warnings)

    def identify(self, headers: Headers, peer: str, certificate: Certificate | None = None) -> Client:
        """Return the client that a request comes from.

        Args:
            headers: names in lower case.
            peer: the connection's other end: an address, or empty for a Unix socket.
            certificate: what the client's verified certificate says; None without one.

        Raises:
            Denied: 401 `unknown_credential`, a credential is there but wrong.
        """
        sources = self._sources
        if sources:
            found: dict[bytes, bytes] = {}
            for name, value in headers:
                if name in sources:
                    if name in found:
                        raise unknown_credential()
                    found[name] = value
            if found or (certificate is not None and self._certificates is not None):
                return self._by_credential(found, certificate)
        return self._addresses.find(headers, peer)

    def _by_credential(self, found: dict[bytes, bytes], certificate: Certificate | None) -> Client:
        for header, sources in self._sources.items():
            if header == _CERTIFICATE and certificate is not None and self._certificates is not None:
                client = self._certificates.find(certificate)
                if client is not None:
                    return client
                break
            value = found.get(header)
            if value is None:
                continue
            if value[:7].lower() == b"bearer ":
                value = value[7:]
            value = value.strip()
            if value:
                for source in sources:
                    client = source.find(value)
                    if client is not None:
                        return client
            break
        raise unknown_credential()

    def by_address(self, headers: Headers, peer: str) -> Client:
        """Return the client that the address alone names: for a request in shadow whose credential is wrong."""
        return self._addresses.find(headers, peer)


def unknown_credential() -> Denied:
    """Return the one refusal that every wrong credential gets."""
    return Denied("the credential is not known", code="unknown_credential", status=401)


class _Loader:
    """Gathers sources, mistakes and warnings while the policy's identity is read."""

    def __init__(self, wall_s: Callable[[], float]) -> None:
        self.wall_s = wall_s
        self.sources: list[tuple[bytes, Source | CertificateNames]] = []
        self.addresses: Addresses | None = None
        self.forward: dict[bytes, list[bool]] = {}
        self.files: list[Path] = []
        self.warnings: list[str] = []
        self.problems: list[Problem] = []
        self._key_names: dict[str, Path] = {}
        self._namespaces: list[tuple[str | None, str]] = []

    def add(self, at: str, spec: AnyIdentity) -> None:
        """Load one source."""
        if self.addresses is not None:
            message = "an address names everybody, so this source is never asked"
            self.problems.append(Problem(message, at, hint="put address last"))
            return
        match spec.kind:
            case "address":
                self.addresses = Addresses(spec.trusted_proxies)
            case "api_key":
                self._add_keys(f"{at}.keys_file", spec)
            case "jwt":
                self._add_jwt(at, spec)
            case "client_certificate":
                self._add_certificate(at, spec)

    def _add_keys(self, at: str, spec: ApiKeyIdentity) -> None:
        path = Path(spec.keys_file)
        data = self._read(at, path, secret=True)
        if data is None:
            return
        clients, problems = read_keys(data)
        self._report(at, path, problems)
        for name in sorted({client.name for client in clients.values()}):
            if self._key_names.setdefault(name, path) != path:
                self.warnings.append(f"{name} is in {self._key_names[name]} and in {path}: one client with one budget")
        if not clients and not problems:
            self.warnings.append(f"{path} holds no key: everybody who brings one is refused")
        self._source(spec.header, spec.forward, KeySource(clients))

    def _add_jwt(self, at: str, spec: JwtIdentity) -> None:
        # Only policies that know tokens pay for the import: 150 ms and 15 MB.
        from guard.proxy.identity_jwt import JwtSource, read_key_set  # noqa: PLC0415

        path = Path(spec.jwks_file)
        data = self._read(f"{at}.jwks_file", path, secret=False)
        if data is None:
            return
        keys, problems, warnings = read_key_set(data, spec.algorithms)
        self._report(f"{at}.jwks_file", path, problems)
        self.warnings += [f"{path}: {warning}" for warning in warnings]
        # The same subject of two issuers is two people. The first issuer's names stay when another is added.
        space = (spec.issuer, spec.claim)
        if self._namespaces and None in (spec.issuer, self._namespaces[0][0]):
            hint = "write issuer: on every jwt source"
            self.problems.append(
                Problem("two jwt sources would name different clients alike", f"{at}.issuer", hint=hint)
            )
        if space not in self._namespaces:
            self._namespaces.append(space)
        label = spec.issuer if spec.claim == "sub" else f"{spec.issuer} {spec.claim}"
        suffix = "" if space == self._namespaces[0] else f"[{label}]"
        self._source(spec.header, spec.forward, JwtSource(spec, keys, suffix, self.wall_s))

    def _add_certificate(self, at: str, spec: ClientCertificateIdentity) -> None:
        if any(header == _CERTIFICATE for header, _ in self.sources):
            message = "a connection has one certificate, which the first source decides on, so this one is never asked"
            self.problems.append(Problem(message, at, hint="keep one client_certificate source"))
            return
        self.sources.append((_CERTIFICATE, CertificateNames(spec)))

    def _source(self, header: str, forward: bool, source: Source) -> None:
        name = header.lower().encode("ascii")
        self.sources.append((name, source))
        self.forward.setdefault(name, []).append(forward)

    def _report(self, at: str, path: Path, problems: list[Problem]) -> None:
        self.problems += [replace(problem, path=at, file=str(path)) for problem in problems]

    def _read(self, at: str, path: Path, *, secret: bool) -> bytes | None:
        """Read a file, and look at who else may; None when that was not possible."""
        self.files.append(path)
        try:
            # A named pipe would block for ever; O_NONBLOCK opens it at once, and it is refused below.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_FILE_BYTES:
                    return self._unreadable(at, path, "is not a file of at most 16 MiB")
                data = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            return self._unreadable(at, path, f"cannot be read: {error.strerror}")
        if status.st_mode & 0o022:
            self.warnings.append(f"{path} can be written by others, who can so become any client: chmod 600")
        elif secret and status.st_mode & 0o044:
            self.warnings.append(f"{path} can be read by others: chmod 600")
        return data

    def _unreadable(self, at: str, path: Path, why: str) -> None:
        self.problems.append(Problem(f"{path} {why}", at, file=str(path)))
