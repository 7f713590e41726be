"""Traces end to end: a client, a real `guard serve --tracing`, a model that notes its headers, and a collector."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.clients import infer
from tests.support.collector import Collector, collector
from tests.support.processes import Guard, free_port, guard

pytestmark = pytest.mark.real

PHASES = ["identify", "read", "inspect", "decide", "admit", "forward", "read_answer", "release", "observe", "render"]
THEIRS = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{THEIRS}-b7ad6b7169203331-01"
POLICY = """version: 1
routes:
  - name: r
    api: open_inference
    inputs: {size: 2, low: 0, high: 9}
"""


@contextmanager
def noting() -> Generator[tuple[str, list[dict[str, str]]]]:
    """Run a model that answers with two scores; yields its URL and the headers that it was asked with."""
    seen: list[dict[str, str]] = []
    answer = {"outputs": [{"name": "p", "shape": [1, 2], "datatype": "FP64", "data": [0.25, 0.75]}]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65536  # head and body in one piece, or the kernel waits between them

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append({name.lower(): value for name, value in self.headers.items()})
            body = json.dumps(answer).encode()
            self.send_response(500 if "broken" in self.path else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def ask(running: Guard, row: list[float], model: str = "m", **headers: str) -> int:
    body = json.dumps(infer(row)).encode()
    request = urllib.request.Request(f"{running.url}/v2/models/{model}/infer", body, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in span.attributes}


def arrived(kept: Collector, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(kept.spans) < count:
        assert time.monotonic() < deadline, f"{len(kept.spans)} of {count} spans"
        time.sleep(0.01)


def below(kept: Collector, whole: Span) -> list[Span]:
    """Return the phases of a request in their order."""
    found = [span for span in kept.spans if span.parent_span_id == whole.span_id]
    return sorted(found, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))


def test_a_request_is_one_trace_from_the_client_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    options = ("--tracing", "--tracing-trust-parent", "--log-format", "json")
    with (
        noting() as (url, seen),
        collector() as kept,
        guard(tmp_path / "policy.yaml", url, tmp_path, *options, env=kept.environment) as running,
    ):
        assert ask(running, [1.0, 2.0], traceparent=PARENT, tracestate="v=1", baggage="user=alice") == 200
        assert ask(running, [1.0, 99.0]) == 422
        assert ask(running, [1.0, 2.0], model="broken") == 502
        arrived(kept, (len(PHASES) + 1) + (3 + 1) + (6 + 1))

    assert kept.services == {"guard"}
    ok, refused, broken = [span for span in kept.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert ok.trace_id.hex() == THEIRS
    assert ok.parent_span_id.hex() == "b7ad6b7169203331"
    assert ok.trace_state == "v=1"
    assert ok.name == f"POST {attributes(ok)['http.route']}"
    assert attributes(ok)["http.response.status_code"] == 200
    phases = below(kept, ok)
    assert [span.name for span in phases] == [f"guard.{phase}" for phase in PHASES]
    assert {span.status.code for span in phases} == {Status.STATUS_CODE_UNSET}
    forward = phases[PHASES.index("forward")]
    assert forward.kind == Span.SPAN_KIND_CLIENT
    assert seen[0]["traceparent"] == f"00-{THEIRS}-{forward.span_id.hex()}-01"
    assert seen[0]["tracestate"] == "v=1"
    assert "baggage" not in seen[0]

    assert refused.trace_id not in (ok.trace_id, broken.trace_id)
    assert [span.name for span in below(kept, refused)] == ["guard.identify", "guard.read", "guard.inspect"]
    assert [span.status.code for span in below(kept, refused)][-1] == Status.STATUS_CODE_ERROR
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(refused)["http.response.status_code"] == 422
    assert broken.status.code == Status.STATUS_CODE_ERROR
    last = below(kept, broken)[-1]
    assert last.name == "guard.forward"
    assert attributes(last)["error.type"] == attributes(broken)["guard.outcome"] == "upstream_failed"
    assert seen[1]["traceparent"] == f"00-{broken.trace_id.hex()}-{last.span_id.hex()}-01"


def test_the_last_spans_are_sent_before_the_process_ends(tmp_path: Path) -> None:
    with noting() as (url, _), collector() as kept:
        late = kept.environment | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
        options = ("--api", "open_inference", "--tracing")
        with guard("observe", url, tmp_path, *options, env=late) as running:
            assert ask(running, [1.0, 2.0]) == 200
            running.running.send_signal(signal.SIGTERM)
            assert running.running.wait(20) == 0
        assert sum(span.kind == Span.SPAN_KIND_SERVER for span in kept.spans) == 1


def test_a_collector_that_is_away_costs_a_few_lines_of_log_and_no_request(tmp_path: Path) -> None:
    away = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret-of-the-collector",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BSP_MAX_QUEUE_SIZE": "64",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
    }
    options = ("--api", "open_inference", "--tracing", "--tracing-limit", "100000")
    with noting() as (url, seen), guard("observe", url, tmp_path, *options, env=away) as running:
        for _ in range(200):
            assert ask(running, [1.0, 2.0]) == 200
        assert len(seen) == 200
        began_s = time.monotonic()
        running.running.send_signal(signal.SIGTERM)
        assert running.running.wait(20) == 0
        assert time.monotonic() - began_s < 15
        log = running.log.read_text()
    assert "opentelemetry" in log
    assert log.count("opentelemetry") < 20
    assert "secret-of-the-collector" not in log


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None; from guard.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "serve",
        "--tracing",
        "--policy",
        "observe",
        "--upstream",
        "http://127.0.0.1:1",
    ]
    done = subprocess.run([*command, "--state", "memory:"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'model-guard[otel]'" in done.stderr
    assert "Traceback" not in done.stderr
