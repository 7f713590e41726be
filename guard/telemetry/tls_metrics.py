"""Metrics of TLS, there only where TLS is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class TlsMetrics:
    """What is counted of certificates and handshakes.

    Args:
        registry: the process's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "When the first certificate of the server's chain expires."
        self._expiry = Gauge("guard_tls_certificate_expiry_timestamp_seconds", text, registry=registry)
        text = "Reloads of certificates by result."
        self._reloads = Counter("guard_tls_reloads_total", text, ("result",), registry=registry)
        self._reload_ok, self._reload_failed = self._reloads.labels("ok"), self._reloads.labels("failed")
        text = "Handshakes that failed: no TLS, no common version, a client certificate that is not trusted, too slow."
        self._failures = Counter("guard_tls_handshake_failures_total", text, registry=registry)

    def expiry(self, at_s: float) -> None:
        """Say when the certificate in force expires, in seconds since the epoch."""
        self._expiry.set(at_s)

    def reload(self, *, ok: bool) -> None:
        """Count a reload."""
        (self._reload_ok if ok else self._reload_failed).inc()

    def handshake_failed(self) -> None:
        """Count a handshake that failed."""
        self._failures.inc()
