"""gRPC at Guard's edge: what metadata, a peer and a certificate are as HTTP has them, and what an error looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from guard.errors import GuardError
from guard.proxy.identity_certificate import Certificate
from guard.proxy.messages import request_id_of
from guard.upstream.grpc import TRAILER, headers_of, metadata_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.ports import Headers
    from guard.proxy.exchange import Exchange, Response

Metadata = tuple[tuple[str, str | bytes], ...]

OK, UNKNOWN, NOT_FOUND, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 2, 5, 12, 13, 14
_CODES: Mapping[int, int] = {
    400: 3,  # INVALID_ARGUMENT
    401: 16,  # UNAUTHENTICATED
    403: 7,  # PERMISSION_DENIED
    404: NOT_FOUND,
    405: UNIMPLEMENTED,
    408: 4,  # DEADLINE_EXCEEDED
    409: 9,  # FAILED_PRECONDITION
    413: 8,  # RESOURCE_EXHAUSTED
    415: 3,
    422: 3,
    429: 8,
    499: 1,  # CANCELLED
    500: INTERNAL,
    502: INTERNAL,
    503: UNAVAILABLE,
    504: 4,
}
"""The status code for HTTP's status of an error. An answer that was withheld (502) is INTERNAL: asking again is charged
again, and UNAVAILABLE says to do so."""
_RETRIABLE = frozenset(("upstream_unreachable", "no_quorum"))
_MOST_PUSHBACK_MS = 2**31 - 1
_MOST_CERTIFICATES = 512
_MOST_PEERS = 4096


@dataclass(slots=True)
class Rpc:
    """One RPC, as far as what it asks does not matter.

    Args:
        headers: its metadata.
        peer: the connection's other end: an address, or empty for a Unix socket.
        certificate: what the client's verified certificate says; None without one.
        left_s: how long the client still waits; None for ever.
        began_s: when it began, by the monotonic clock.
        id: names it in logs: the client's own where it sent a plain one.
    """

    headers: Headers
    peer: str
    certificate: Certificate | None
    left_s: Callable[[], float | None]
    began_s: float
    id: str


@dataclass(slots=True)
class Told:
    """What the client gets.

    Args:
        body: the serialised answer; empty with an error.
        code: gRPC's status code.
        message: says why there is no answer.
        initial: metadata before the answer.
        trailing: metadata behind it.
    """

    body: bytes = b""
    code: int = OK
    message: str = ""
    initial: Metadata = ()
    trailing: Metadata = ()


def rpc_of(context: Any, began_s: float, *, certified: bool) -> Rpc:  # Any: the library's context
    """Read what the library knows of an RPC.

    Args:
        context: the library's.
        began_s: the monotonic clock.
        certified: clients were asked for certificates.
    """
    headers = headers_of(context.invocation_metadata())
    pems = context.auth_context().get("x509_pem_cert") if certified else None
    return Rpc(
        headers,
        peer_of(context.peer()),
        certificate_of_pem(pems[0]) if pems else None,
        context.time_remaining,
        began_s,
        request_id_of(headers),
    )


@lru_cache(_MOST_PEERS)
def _host_of(text: str) -> str:
    return unquote(text).strip("[]")


def peer_of(text: str) -> str:
    """Return the address of a peer as the library writes it; empty for what has none.

    >>> peer_of("ipv4:192.0.2.1:40000"), peer_of("ipv6:%5B2001:db8::1%5D:40000"), peer_of("unix:")
    ('192.0.2.1', '2001:db8::1', '')
    """
    kind, _, rest = text.partition(":")
    return _host_of(rest.rpartition(":")[0]) if kind in ("ipv4", "ipv6") else ""


@lru_cache(_MOST_CERTIFICATES)
def certificate_of_pem(pem: bytes) -> Certificate:
    """Return what a certificate that the handshake has verified says; one that cannot be read names nobody."""
    # Only what asks clients for certificates pays for the import.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import ExtensionOID, NameOID  # noqa: PLC0415

    try:
        found = x509.load_pem_x509_certificate(pem)
        names = x509.GeneralNames([])
        for extension in found.extensions:
            if extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME and isinstance(
                extension.value, x509.SubjectAlternativeName
            ):
                names = extension.value
        subject = found.subject
        return Certificate(
            tuple(str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)),
            tuple(str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
            tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
            tuple(names.get_values_for_type(x509.DNSName)),
            tuple(names.get_values_for_type(x509.RFC822Name)),
        )
    except Exception:  # whatever the library finds wrong with it
        return Certificate()


def code_of(error: GuardError) -> int:
    """Return gRPC's status code of an error.

    >>> code_of(GuardError("busy", code="upstream_busy", status=503)), code_of(GuardError("x", status=418))
    (14, 2)
    """
    return UNAVAILABLE if error.code in _RETRIABLE else _CODES.get(error.status, UNKNOWN)


def told_error(error: GuardError, id_: str, code: int | None = None) -> Told:
    """Return an error as the client gets it.

    Args:
        error: the error.
        id_: the request's; empty to leave it out, as in shadow.
        code: another status code than the error's status has.
    """
    trailing: list[tuple[str, str | bytes]] = [("guard-code", error.code)]
    if error.retry_after_s is not None:
        pushback_ms = min(error.retry_after_s * 1000, _MOST_PUSHBACK_MS)
        trailing += [("retry-after", str(error.retry_after_s)), ("grpc-retry-pushback-ms", str(pushback_ms))]
    if id_:
        trailing.append(("x-request-id", id_))
    return Told(code=code_of(error) if code is None else code, message=error.message, trailing=tuple(trailing))


def told(x: Exchange, response: Response) -> Told:
    """Return what came of an exchange as the client gets it; in shadow, everything that the model said."""
    enforced = x.route.mode == "enforce"
    if x.error is not None:
        return told_error(x.error, x.id if enforced else "")
    if enforced:
        if response.status == 200:
            return Told(response.body, trailing=(("x-request-id", x.id),))
        return told_error(GuardError("internal error"), x.id)
    headers = response.headers
    initial = metadata_of([header for header in headers if not header[0].startswith(TRAILER)])
    trailing = metadata_of([(n.removeprefix(TRAILER), value) for n, value in headers if n.startswith(TRAILER)])
    said = dict(headers)
    if b"grpc-status" in said:
        message = said.get(b"grpc-message", b"").decode("utf-8", "replace")
        return Told(b"", int(said[b"grpc-status"]), message, initial, trailing)
    return Told(response.body, OK, "", initial, trailing)
