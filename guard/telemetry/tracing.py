"""OpenTelemetry traces: a span a request and one a phase, W3C context in and out.

Needs the `[otel]` extra; off by default. What holds whatever a client sends:

* A client's own context starts nothing and decides nothing unless the operator says so: whether a request is sampled
  costs money, and whoever may set the flag could spend it. The trace begins anew, with a link to the client's.
* At most so many traces a second are taken, whatever the sampler says.
* Spans hold no input, no score, no credential and no client, and no path but its template.

Measured: spans of the SDK's own tracer cost 150 us a request of eleven spans; made at the end from the times that were
noted, they cost 30 us. Sampling, resource, batching and export are the SDK's.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.errors import GuardError

if TYPE_CHECKING:
    from guard.ports import Tracer


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What the operator decides; the OTEL_* variables say the rest.

    Args:
        scheme: `http` or `https`, of the data listener.
        trust_parent: go on with the client's trace, and let its flag decide as OTEL_TRACES_SAMPLER says.
        most_per_s: traces taken in a second at most.
    """

    scheme: str = "http"
    trust_parent: bool = False
    most_per_s: float = 100.0


def check_installed() -> None:
    """Check that traces can be taken.

    Raises:
        GuardError: the `[otel]` extra is not installed, or the OTEL_* variables ask for what it cannot do.
    """
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ModuleNotFoundError:
        found = None
    if found is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        raise GuardError("--tracing needs the otel extra: pip install 'model-guard[otel]'")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        raise GuardError(f"traces are sent as http/protobuf, and OTEL_EXPORTER_OTLP_PROTOCOL asks for {protocol}")
    exporter = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter not in ("otlp", "none"):
        raise GuardError(f"traces are sent by otlp or none, and OTEL_TRACES_EXPORTER asks for {exporter}")


def open_tracer(options: TraceOptions) -> Tracer | None:
    """Return the tracer that the OTEL_* variables describe; None when they switch it off.

    Raises:
        GuardError: the `[otel]` extra is not installed, or a variable is wrong.
    """
    check_installed()
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    # Only what traces pays for the import: 0.3 s and 25 MB.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from guard.telemetry.spans import SpanTracer  # noqa: PLC0415

    try:
        return SpanTracer(BatchSpanProcessor(OTLPSpanExporter()), options)
    except (ValueError, OSError) as error:
        raise GuardError("the OTEL_* variables cannot be used: " + str(error)) from error
