"""Spans by OpenTelemetry's SDK; see `guard.telemetry.tracing` for what holds of them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, cast

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.url_attributes import URL_SCHEME
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from guard import __version__
from guard.telemetry.logs import trace_id
from guard.telemetry.tracing import TraceOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.sampling import Sampler

    from guard.ports import Headers, Trace

Attributes = dict[str, str | int | float | bool]

_FLUSH_S = 3.0
"""How long the end of the process waits for the last spans."""
_MOST_CHARACTERS = 512
"""Of `traceparent` and of `tracestate`: what is longer is taken for none."""
_SCOPE = InstrumentationScope("guard", __version__)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_ERROR = StatusCode.ERROR
_OK = Status()


class SpanTracer:
    """Begins traces.

    Args:
        processor: takes finished spans; never waits.
        options: the operator's.
        sampler: decides which requests are traced; None for what OTEL_TRACES_SAMPLER says.
        monotonic_s: the clock of `most_per_s`.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        options: TraceOptions,
        sampler: Sampler | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in os.environ
        given = {"service.version": __version__} | ({} if named else {"service.name": "guard"})
        provider = TracerProvider(sampler, Resource.create(given), shutdown_on_exit=False)
        self.sampler, self.ids, self.resource = provider.sampler, provider.id_generator, provider.resource
        self.processor = processor
        self.options = options
        self._propagator = TraceContextTextMapPropagator()
        self._monotonic_s = monotonic_s
        self._left, self._at_s = options.most_per_s, monotonic_s()

    def begin(self, headers: Headers, route: str, method: str, template: str) -> Trace:
        """Return the trace of one request; one that is not sampled costs little and says so to the model."""
        parent = self._parent(headers)
        trusted = parent if self.options.trust_parent else None
        links = (
            [] if parent is None or trusted is not None else [Link(SpanContext(parent.trace_id, parent.span_id, True))]
        )
        context = Context() if trusted is None else set_span_in_context(NonRecordingSpan(trusted), Context())
        number = self.ids.generate_trace_id() if trusted is None else trusted.trace_id
        name = f"{method} {template}" if template else method
        attributes: Attributes = {HTTP_REQUEST_METHOD: method, URL_SCHEME: self.options.scheme, "guard.route": route}
        if template:
            attributes[HTTP_ROUTE] = template
        said = self.sampler.should_sample(context, number, name, SpanKind.SERVER, attributes, links)
        sampled = said.decision.is_sampled() and self._allowed()
        own = SpanContext(
            number,
            self.ids.generate_span_id(),
            False,
            _SAMPLED if sampled else TraceFlags(0),
            said.trace_state,
        )
        if not sampled:
            trace_id.set("")
            return Unsampled(own)
        trace_id.set(f"{number:032x}")
        added = cast("Attributes", said.attributes)  # pyright: ignore[reportUnknownMemberType]  # of the sampler's own
        return SpanTrace(self, own, trusted, links, name, {**attributes, **added})

    def close(self) -> None:
        """Send what is waiting, for a few seconds at most."""
        ending = threading.Thread(target=self.processor.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(_FLUSH_S)

    def _parent(self, headers: Headers) -> SpanContext | None:
        """Return the client's context; None unless it stands once and is well formed."""
        parents = [value for name, value in headers if name == b"traceparent"]
        if len(parents) != 1 or len(parents[0]) > _MOST_CHARACTERS:
            return None
        carrier = {"traceparent": parents[0].decode("latin-1")}
        state = b",".join([value for name, value in headers if name == b"tracestate"])
        if 0 < len(state) <= _MOST_CHARACTERS and self.options.trust_parent:
            carrier["tracestate"] = state.decode("latin-1")
        found = get_current_span(self._propagator.extract(carrier, Context())).get_span_context()
        return found if found.is_valid else None

    def _allowed(self) -> bool:
        """Take one trace from this second's; a second's worth can be saved."""
        now_s = self._monotonic_s()
        most = self.options.most_per_s
        self._left = min(max(most, 1.0), self._left + (now_s - self._at_s) * most)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Unsampled:
    """A request that is not traced; the model is told so.

    Args:
        context: what the model is told.
    """

    def __init__(self, context: SpanContext) -> None:
        self._context = context

    def enter(self, phase: str) -> None:
        """Do nothing."""

    def fail(self, code: str) -> None:
        """Do nothing."""

    def headers(self) -> Headers:
        """Return what carries the context to the model."""
        return carried(self._context, self._context.span_id)

    def end(self, outcome: str, attributes: Mapping[str, str | int | float | bool]) -> None:
        """Do nothing."""


class SpanTrace:
    """The spans of one request: times are noted on the way, and spans are made of them at the end.

    Args:
        tracer: that began it.
        context: the request's span.
        parent: the client's span, where it is trusted.
        links: to the client's span, where it is not.
        name: the request's span's.
        attributes: likewise.
    """

    def __init__(
        self,
        tracer: SpanTracer,
        context: SpanContext,
        parent: SpanContext | None,
        links: list[Link],
        name: str,
        attributes: Attributes,
    ) -> None:
        self._tracer = tracer
        self._context = context
        self._parent = parent
        self._links = links
        self._name = name
        self._attributes = attributes
        self._began_ns = time.time_ns()
        self._phases: list[_Phase] = []

    def enter(self, phase: str) -> None:
        """Note that a phase begins."""
        self._phases.append(_Phase(phase, time.time_ns(), self._tracer.ids.generate_span_id()))

    def fail(self, code: str) -> None:
        """Note that the phase that is open has failed."""
        if self._phases:
            self._phases[-1].code = code

    def headers(self) -> Headers:
        """Return what carries the trace to the model: the span that is open is the parent of the model's."""
        return carried(self._context, self._phases[-1].span_id if self._phases else self._context.span_id)

    def end(self, outcome: str, attributes: Mapping[str, str | int | float | bool]) -> None:
        """Hand all spans over."""
        ended_ns = time.time_ns()
        for number, phase in enumerate(self._phases):
            until_ns = self._phases[number + 1].began_ns if number + 1 < len(self._phases) else ended_ns
            self._hand_over_phase(phase, until_ns)
        made: Attributes = {**self._attributes, **attributes, "guard.outcome": outcome}
        status = made.get(HTTP_RESPONSE_STATUS_CODE, 0)
        # As the conventions have it: what the client did wrong is no error of the server.
        failed = outcome == "aborted" or (isinstance(status, int) and status >= 500)
        if failed:
            made[ERROR_TYPE] = outcome
        self._tracer.processor.on_end(
            ReadableSpan(
                self._name,
                self._context,
                self._parent,
                self._tracer.resource,
                made,
                links=self._links,
                kind=SpanKind.SERVER,
                status=Status(_ERROR) if failed else _OK,
                start_time=self._began_ns,
                end_time=ended_ns,
                instrumentation_scope=_SCOPE,
            )
        )

    def _hand_over_phase(self, phase: _Phase, until_ns: int) -> None:
        own = self._context
        self._tracer.processor.on_end(
            ReadableSpan(
                f"guard.{phase.name}",
                SpanContext(own.trace_id, phase.span_id, False, own.trace_flags, own.trace_state),
                own,
                self._tracer.resource,
                {ERROR_TYPE: phase.code} if phase.code else {},
                kind=SpanKind.CLIENT if phase.name == "forward" else SpanKind.INTERNAL,
                status=Status(_ERROR) if phase.code else _OK,
                start_time=phase.began_ns,
                end_time=until_ns,
                instrumentation_scope=_SCOPE,
            )
        )


class _Phase:
    """What is noted of one phase."""

    __slots__ = ("began_ns", "code", "name", "span_id")

    def __init__(self, name: str, began_ns: int, span_id: int) -> None:
        self.name = name
        self.began_ns = began_ns
        self.span_id = span_id
        self.code = ""


def carried(context: SpanContext, span_id: int) -> Headers:
    """Return the W3C headers of a span of a trace."""
    made = [(b"traceparent", b"00-%032x-%016x-%02x" % (context.trace_id, span_id, context.trace_flags & 1))]
    state = context.trace_state.to_header()
    return [*made, (b"tracestate", state.encode("ascii"))] if state else made
