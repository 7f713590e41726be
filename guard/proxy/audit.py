"""The audit log of a running Guard: opened from `--audit`, keyed by Guard's secret."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from guard import __version__
from guard.errors import StateError
from guard.proxy.secret import derived

if TYPE_CHECKING:
    from guard.ports import AuditSink
    from guard.telemetry.metrics import Metrics

MAX_MB, KEEP = 64, 16
_MOST_MB, _MOST_KEPT = 4096, 500
_USE = b"guard audit"


class Where(NamedTuple):
    """What `--audit` says.

    Args:
        kind: `file`, `stdout` or `syslog`.
        rest: the path or address.
        max_mb: a file that has grown past so many MiB is rotated.
        keep: rotated files that are kept.
    """

    kind: str
    rest: str
    max_mb: int = MAX_MB
    keep: int = KEEP


def where_of(text: str) -> Where:
    """Read `file:PATH`, `file:PATH?max_mb=64&keep=16`, `stdout` or `syslog:ADDRESS`.

    Raises:
        ValueError: it is none of these.

    >>> where_of("file:/var/log/guard.jsonl?keep=4")
    Where(kind='file', rest='/var/log/guard.jsonl', max_mb=64, keep=4)
    """
    kind, _, rest = text.partition(":")
    if text == "stdout":
        return Where("stdout", "")
    if kind == "syslog" and rest:
        from guard.telemetry.audit_streams import syslog  # noqa: PLC0415 (only where there is an audit log)

        syslog(rest)
        return Where("syslog", rest)
    path, _, query = rest.partition("?")
    if kind != "file" or not path:
        raise ValueError(f"--audit must be file:PATH, stdout or syslog:ADDRESS, got {text}")
    numbers = {"max_mb": MAX_MB, "keep": KEEP}
    for name, value in parse_qsl(query, keep_blank_values=True):
        most = _MOST_MB if name == "max_mb" else _MOST_KEPT
        if name not in numbers or not value.isascii() or not value.isdigit() or not 1 <= int(value) <= most:
            raise ValueError(
                f"--audit file:PATH takes ?max_mb=1 to {_MOST_MB} and &keep=1 to {_MOST_KEPT}, not {name}={value}"
            )
        numbers[name] = int(value)
    return Where("file", path, **numbers)


def open_audit(where: str, secret: bytes, metrics: Metrics, digest: str = "") -> AuditSink:
    """Return the audit log that `where` names.

    Args:
        where: `file:PATH`, `stdout` or `syslog:ADDRESS`.
        secret: Guard's secret, which the signing key is derived from.
        metrics: counts what is dropped, and shows how far the log is.
        digest: of the policy in force.

    Raises:
        OSError: it cannot be opened.
        StateError: `where` is none of these.
    """
    # Only a guard that has an audit log pays for cryptography.
    from guard.telemetry.audit_file import AuditFile  # noqa: PLC0415
    from guard.telemetry.audit_head import Keys  # noqa: PLC0415
    from guard.telemetry.audit_keys import SigningKey, verifies  # noqa: PLC0415
    from guard.telemetry.audit_log import AuditLog  # noqa: PLC0415
    from guard.telemetry.audit_streams import Standard, syslog  # noqa: PLC0415

    try:
        parts = where_of(where)
    except ValueError as error:
        raise StateError(str(error), code="audit_unavailable") from error
    signer = SigningKey(derived(secret, _USE))
    if parts.kind == "file":
        keys = Keys(verifies, frozenset((signer.public,)))
        target = AuditFile(Path(parts.rest), keys, max_bytes=parts.max_mb * 2**20, keep=parts.keep)
    else:
        target = Standard() if parts.kind == "stdout" else syslog(parts.rest)
    about = {"version": __version__, "instance": f"{socket.gethostname()}/{os.getpid()}", "policy": digest}
    made = AuditLog(target, signer, metrics, about)
    metrics.audit(lambda: made.waiting, lambda: made.sequence)
    return made
