"""OpenTelemetry traces: a span a request and one a phase, W3C context in and out.

Needs the `[otel]` extra; off by default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.ports import Tracer


def open_tracer() -> Tracer:
    """Return the tracer that the OTEL_* variables describe.

    Raises:
        GuardError: the `[otel]` extra is not installed.
    """
    raise NotImplementedError
