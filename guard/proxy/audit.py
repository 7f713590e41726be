"""The audit log of a running Guard: opened from `--audit`, keyed by Guard's secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.ports import AuditSink
    from guard.telemetry.metrics import Metrics


def open_audit(where: str, secret: bytes, metrics: Metrics) -> AuditSink:
    """Return the audit log that `where` names.

    Args:
        where: `file:PATH`, `stdout` or `syslog:ADDRESS`.
        secret: Guard's secret, which the signing key is derived from.
        metrics: counts what is dropped.

    Raises:
        OSError: it cannot be opened.
    """
    raise NotImplementedError
