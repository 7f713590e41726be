"""Who is told of what happens on the way of a request; none of them changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from guard.ports import AuditSink, Tracer
    from guard.proxy.recording import Recording


class Observers(NamedTuple):
    """What `guard serve` was asked to tell.

    Args:
        audit: where decisions and events are put down; None for the log alone.
        tracer: begins traces; None when tracing is off.
        recording: what calibration traffic is written to; None for nothing.
    """

    audit: AuditSink | None = None
    tracer: Tracer | None = None
    recording: Recording | None = None


NOBODY = Observers()
