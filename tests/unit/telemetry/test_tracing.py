"""Traces: what is recorded, what goes upstream, and what a client may decide."""

from __future__ import annotations

import logging
import re
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from guard.errors import GuardError, UpstreamError
from guard.model.exchange import Reply
from guard.ports import Headers
from guard.proxy.observers import Observers
from guard.telemetry.logs import trace_id
from guard.telemetry.spans import SpanTracer
from guard.telemetry.tracing import TraceOptions, check_installed, open_tracer
from tests.support.fakes import Guarded, Seen

PHASES = ["identify", "read", "inspect", "decide", "admit", "forward", "read_answer", "release", "observe", "render"]
TARGET = "/v1/models/m:predict"
BODY = b'{"instances":[[1234.5]]}'
THEIRS = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = (b"traceparent", f"00-{THEIRS}-b7ad6b7169203331-01".encode())
UNSAMPLED = (b"traceparent", f"00-{THEIRS}-b7ad6b7169203331-00".encode())
STATE = (b"tracestate", b"vendor=opaque")
POLICY = "version: 1\nmode: {}\nroutes: [{{name: r, api: kserve_v1}}]\n"


PLAIN = TraceOptions()
TRUSTING = TraceOptions(trust_parent=True)
ALWAYS = ParentBased(ALWAYS_ON)


class Traced:
    """Guard without sockets, whose spans are kept."""

    def __init__(
        self,
        folder: Path,
        options: TraceOptions = PLAIN,
        sampler: Sampler = ALWAYS,
        mode: str = "enforce",
    ) -> None:
        self.now_s = 0.0
        self.kept = InMemorySpanExporter()
        self.tracer = SpanTracer(SimpleSpanProcessor(self.kept), options, sampler, lambda: self.now_s)
        self.guarded = Guarded(POLICY.format(mode), folder, observers=Observers(tracer=self.tracer))
        self.guarded.upstream.answer = lambda _: Reply(200, [], b'{"predictions":[[0.8765,0.1235]]}')

    async def ask(self, *headers: tuple[bytes, bytes], target: str = TARGET, body: bytes = BODY) -> int:
        return (await self.guarded.ask("POST", target, body, list(headers))).status

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.kept.get_finished_spans())

    @property
    def sent(self) -> dict[bytes, bytes]:
        """Headers of the last request that the model saw."""
        return dict(self.guarded.upstream.seen[-1].headers)


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def test_a_request_is_a_server_span_and_a_span_a_phase_in_order(tmp_path: Path) -> None:
    made = Traced(tmp_path)
    assert await made.ask() == 200
    *phases, whole = made.spans
    assert [span.name for span in phases] == [f"guard.{phase}" for phase in PHASES]
    assert whole.name == "POST /v1/models/{model}:predict"
    assert whole.kind is SpanKind.SERVER
    assert dict(whole.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{model}:predict",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "guard.route": "r",
        "guard.rows": 1,
        "guard.verdict": "allow",
        "guard.mode": "enforce",
        "guard.outcome": "ok",
    }
    assert all(span.parent == whole.context for span in phases)
    assert {ids(span)[0] for span in made.spans} == {ids(whole)[0]}
    assert len({ids(span)[1] for span in made.spans}) == len(PHASES) + 1
    bounds = [(span.start_time or 0, span.end_time or 0) for span in phases]
    assert all(began <= ended for began, ended in bounds)
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert (whole.start_time or 0) <= bounds[0][0]
    assert (whole.end_time or 0) == bounds[-1][1]
    assert {span.status.status_code for span in made.spans} == {StatusCode.UNSET}
    assert whole.resource.attributes["service.name"] == "guard"


async def test_the_model_is_told_of_the_span_that_asks_it(tmp_path: Path) -> None:
    made = Traced(tmp_path)
    await made.ask()
    (forward,) = [span for span in made.spans if span.name == "guard.forward"]
    assert forward.kind is SpanKind.CLIENT
    trace, span = ids(forward)
    assert made.sent[b"traceparent"].decode() == f"00-{trace}-{span}-01"
    assert b"tracestate" not in made.sent


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_clients_context_is_linked_to_and_decides_nothing(mode: str, tmp_path: Path) -> None:
    made = Traced(tmp_path, mode=mode)
    await made.ask(UNSAMPLED, STATE)
    whole = made.spans[-1]
    trace, _ = ids(whole)
    assert trace != THEIRS
    assert whole.parent is None
    assert [f"{link.context.trace_id:032x}" for link in whole.links] == [THEIRS]
    assert made.sent[b"traceparent"].decode().startswith(f"00-{trace}-")
    assert b"tracestate" not in made.sent


async def test_a_clients_flag_buys_no_sampling_and_is_not_handed_on(tmp_path: Path) -> None:
    made = Traced(tmp_path, sampler=ParentBased(ALWAYS_OFF))
    await made.ask(SAMPLED)
    assert made.spans == []
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", made.sent[b"traceparent"].decode())
    assert THEIRS not in made.sent[b"traceparent"].decode()


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_trusted_clients_trace_goes_on(mode: str, tmp_path: Path) -> None:
    made = Traced(tmp_path, TRUSTING, mode=mode)
    await made.ask(SAMPLED, STATE)
    whole = made.spans[-1]
    assert whole.parent is not None
    assert whole.parent.is_remote
    assert f"{whole.parent.span_id:016x}" == "b7ad6b7169203331"
    assert not whole.links
    assert {ids(span)[0] for span in made.spans} == {THEIRS}
    assert made.sent[b"traceparent"].decode().startswith(f"00-{THEIRS}-")
    assert made.sent[b"tracestate"] == b"vendor=opaque"
    made.kept.clear()
    await made.ask(UNSAMPLED)
    assert made.spans == []
    assert made.sent[b"traceparent"].decode().startswith(f"00-{THEIRS}-")
    assert made.sent[b"traceparent"].endswith(b"-00")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"traceparent", b"")],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01")],
        [(b"traceparent", SAMPLED[1].replace(b"00-", b"ff-", 1))],
        [(b"traceparent", SAMPLED[1].upper())],
        [(b"traceparent", SAMPLED[1] + b"-more")],
        [(b"traceparent", SAMPLED[1] + b" " * 600)],
        [(b"traceparent", b"\xff\x00\r\n")],
        [SAMPLED, SAMPLED],
    ],
)
async def test_a_malformed_context_is_no_context(
    headers: Headers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Traced(tmp_path, TRUSTING)
    with caplog.at_level(logging.DEBUG):
        await made.ask(*headers)
    assert made.spans[-1].parent is None
    assert not made.spans[-1].links
    assert ids(made.spans[-1])[0] != THEIRS
    assert caplog.records == []


@pytest.mark.parametrize("state", [b"x" * 513, b"a=" + b"b" * 600, b"a=1,a=2" * 100])
async def test_a_state_that_is_too_long_is_dropped(state: bytes, tmp_path: Path) -> None:
    made = Traced(tmp_path, TRUSTING)
    await made.ask(SAMPLED, (b"tracestate", state))
    assert ids(made.spans[-1])[0] == THEIRS
    assert b"tracestate" not in made.sent


async def test_no_more_traces_are_taken_than_the_limit_whoever_asks(tmp_path: Path) -> None:
    made = Traced(tmp_path, TraceOptions(trust_parent=True, most_per_s=5))
    for _ in range(20):
        await made.ask(SAMPLED)
    assert len(made.spans) == 5 * (len(PHASES) + 1)
    assert made.sent[b"traceparent"].endswith(b"-00")
    made.now_s = 0.4
    for _ in range(20):
        await made.ask(SAMPLED)
    assert len(made.spans) == 7 * (len(PHASES) + 1)
    made.now_s = 1000.0
    for _ in range(20):
        await made.ask()
    assert len(made.spans) == 12 * (len(PHASES) + 1)


async def test_what_fails_is_marked_where_it_failed(tmp_path: Path) -> None:
    def fail(_: Seen) -> Reply:
        raise UpstreamError("the model is away", code="upstream_unreachable")

    made = Traced(tmp_path)
    made.guarded.upstream.answer = fail
    assert await made.ask() == 502
    *phases, whole = made.spans
    assert [span.name for span in phases][-1] == "guard.forward"
    assert [span.name for span in phases if span.status.status_code is StatusCode.ERROR] == ["guard.forward"]
    assert (phases[-1].attributes or {})["error.type"] == "upstream_unreachable"
    assert whole.status.status_code is StatusCode.ERROR
    assert (whole.attributes or {})["error.type"] == "upstream_unreachable"
    assert (whole.attributes or {})["guard.outcome"] == "upstream_unreachable"


async def test_what_the_client_did_wrong_is_no_error_of_the_server(tmp_path: Path) -> None:
    made = Traced(tmp_path)
    assert await made.ask(body=b"{") == 400
    assert made.spans[-1].status.status_code is StatusCode.UNSET
    assert made.spans[-2].status.status_code is StatusCode.ERROR


async def test_no_span_holds_an_input_a_score_a_client_or_a_path(tmp_path: Path) -> None:
    made = Traced(tmp_path)
    target = TARGET.replace("/m:", "/secret-name:") + "?feature=5678.5"
    assert await made.ask((b"x-api-key", b"k-secret"), (b"user-agent", b"agent-secret"), target=target) == 200
    told = " ".join(str(span.to_json()) for span in made.spans)
    assert "guard.forward" in told
    for secret in ("1234.5", "5678.5", "0.8765", "192.0.2.1", "secret"):
        assert secret not in told


async def test_log_lines_can_name_the_trace(tmp_path: Path) -> None:
    made = Traced(tmp_path)
    seen: list[str] = []

    def note(_: Seen) -> Reply:
        seen.append(trace_id.get())
        return Reply(200, [], b'{"predictions":[[0.9,0.1]]}')

    made.guarded.upstream.answer = note
    await made.ask()
    assert seen == [ids(made.spans[-1])[0]]
    made.tracer.sampler = ALWAYS_OFF
    await made.ask()
    assert seen[1] == ""


async def test_what_no_endpoint_matches_has_no_route(tmp_path: Path) -> None:
    made = Traced(tmp_path, mode="shadow")
    await made.ask(target="/anything/at/all")
    assert made.spans[-1].name == "POST"
    assert "http.route" not in (made.spans[-1].attributes or {})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "asks for grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "asks for http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "asks for zipkin"),
    ],
)
def test_what_it_cannot_send_is_refused(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(GuardError, match=told):
        check_installed()


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_variables_can_switch_it_off(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert open_tracer(PLAIN) is None


def test_a_variable_that_is_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(GuardError, match="OTEL_"):
        open_tracer(PLAIN)


def test_the_service_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "guard-of-fraud")
    tracer = SpanTracer(SimpleSpanProcessor(InMemorySpanExporter()), PLAIN)
    assert tracer.resource.attributes["service.name"] == "guard-of-fraud"
