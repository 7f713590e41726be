"""`guard doctor` on ways around Guard: each is found where it is open, and nothing else is taken for one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from guard.cli.doctor_around import WAYS, Asked, Way, around_findings, asked_of, is_loopback
from guard.cli.findings import Finding
from guard.cli.sockets import bound, speaks_http2
from guard.proxy.load import load_active
from tests.support.processes import free_port

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ASKED = Asked((("POST", "/v2/models/guard-doctor/infer"),))


class Served:
    """A server that answers by path.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[tuple[str, str, bytes]] = []


@contextmanager
def serving(answers: dict[str, tuple[int, bytes]], host: str = "127.0.0.1", port: int = 0) -> Generator[Served]:
    """Answer paths as told, anything else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            made.seen.append((self.command, self.path, body))
            status, answer = answers.get(self.path, (404, b"Not Found. Try another path."))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 -- as the library has it

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer((host, port), Handler) as server:
        made = Served(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def greeting(first: bytes) -> Generator[int]:
    """Answer whatever a connection begins with by `first`; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                with accepted:
                    if accepted.recv(100):
                        accepted.sendall(first)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.message) for finding in findings]


async def test_a_model_on_another_address_is_asked_there_and_quoted() -> None:
    port = free_port()
    with serving({}, host="127.0.0.2", port=port) as other:
        (found,) = await around_findings(f"http://127.0.0.1:{port}", ASKED, lambda: ["127.0.0.2"], ways=())
    assert found.level == "fail"
    assert found.message == (
        f"the model also answers on 127.0.0.2:{port}, around Guard: POST /v2/models/guard-doctor/infer without a "
        "credential is answered with 404; bind it to 127.0.0.1"
    )
    assert other.seen == [("POST", "/v2/models/guard-doctor/infer", b"{}")]


async def test_a_model_on_loopback_only_is_fine() -> None:
    with serving({}) as served:
        (found,) = await around_findings(f"http://127.0.0.1:{served.port}", ASKED, lambda: ["127.0.0.2"], ways=())
    assert (found.level, served.seen) == ("ok", [])


def elsewhere(_: str) -> list[str]:
    """Stand for a name that leads to another machine; tests need no network."""
    return ["192.0.2.7"]


@pytest.mark.parametrize(("credential", "level"), [(False, "warn"), (True, "fail")])
async def test_a_model_across_a_network_that_asks_for_nothing(credential: bool, level: str) -> None:
    with serving({"/v2/models/guard-doctor/infer": (400, b"{}")}) as served:
        asked = replace(ASKED, credential=credential)
        (found,) = await around_findings(f"http://127.0.0.1:{served.port}", asked, ways=(), resolve=elsewhere)
    assert found.level == level
    assert "POST /v2/models/guard-doctor/infer without a credential is answered with 400" in found.message
    assert ("without the credential that Guard adds" in found.message) is credential


@pytest.mark.parametrize("status", [401, 403])
async def test_a_model_that_asks_for_a_credential_is_not_called_open(status: int) -> None:
    with serving({"/v2/models/guard-doctor/infer": (status, b"{}")}) as served:
        asked = replace(ASKED, credential=True)
        (found,) = await around_findings(f"http://127.0.0.1:{served.port}", asked, ways=(), resolve=elsewhere)
    assert found.level == "warn"
    assert "answered" not in found.message
    assert "make sure that only Guard can" in found.message


async def test_a_repository_on_the_models_own_port_is_found() -> None:
    index = WAYS[:1]
    with serving({"/v2/repository/index": (200, b'[{"name": "m"}]')}) as served:
        found = await around_findings(f"http://127.0.0.1:{served.port}", Asked(), ways=index, resolve=elsewhere)
    assert "/v2/repository/index: models can be listed, loaded and unloaded" in found[-1].message
    with serving({"/v2/repository/index": (200, b'{"detail": "[no]"}')}) as served:
        assert (
            len(await around_findings(f"http://127.0.0.1:{served.port}", Asked(), ways=index, resolve=elsewhere)) == 1
        )


HTTP_WAYS = [
    ("scoring by HTTP (Triton)", b'{"name":"triton","extensions":["classification"]}'),
    ("metrics (Triton)", b"# HELP nv_inference_count"),
    ("scoring by HTTP (MLServer, KServe)", b'{"name":"mlserver","version":"1.7","extensions":[]}'),
    ("scoring by HTTP (TorchServe)", b'{"status": "Healthy"}'),
    ("models can be listed, added and removed (TorchServe management)", b'{"models": []}'),
    ("metrics (MLServer, TorchServe)", b"# HELP requests"),
    ("scoring by HTTP (TensorFlow Serving)", b'{"error": "Could not find any versions of model guard-doctor"}'),
    ("scoring by HTTP (MLflow)", b"2.22.1\n"),
    ("text generation (vLLM)", b'{"object":"list","data":[{"id":"m","object":"model","owned_by":"vllm"}]}'),
    ("text generation (llama.cpp)", b'{"object":"list","data":[{"id":"m","object":"model","owned_by":"llamacpp"}]}'),
    ("text generation, and models can be replaced (Ollama)", b'{"version":"0.12.6"}'),
    ("code can be run (Ray dashboard)", b'{"version": "4", "ray_version": "2.9.0"}'),
]


@pytest.mark.parametrize(("what", "answer"), HTTP_WAYS)
async def test_other_doors_are_known_by_what_they_say(what: str, answer: bytes) -> None:
    (way,) = [way for way in WAYS if way.what == what]
    url = f"http://127.0.0.1:{free_port()}"
    with serving({way.path: (200, answer)}) as served:
        found = await around_findings(url, Asked(), lambda: ["127.0.0.1"], ways=(replace(way, port=served.port),))
        own = await around_findings(
            url, Asked(), lambda: ["127.0.0.1"], own=[served.port], ways=(replace(way, port=served.port),)
        )
    level = "warn" if what.startswith("metrics") else "fail"
    message = f"127.0.0.1:{served.port} is open beside Guard: {what}; close it, or let nobody reach it"
    assert told(found)[1:] == [(level, message)]
    assert len(own) == 1
    with serving({}) as stranger:
        assert (
            len(await around_findings(url, ways=(replace(way, port=stranger.port),), addresses=lambda: ["127.0.0.1"]))
            == 1
        )


def test_every_http_way_is_tried_above() -> None:
    assert {what for what, _ in HTTP_WAYS} == {way.what for way in WAYS if way.method and way.port}


async def test_grpc_is_known_by_its_first_frame() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with greeting(SETTINGS) as port:
        assert await speaks_http2("127.0.0.1", port)
        way = Way(port, "scoring by gRPC")
        found = await around_findings(url, Asked(), lambda: ["127.0.0.1"], ways=(way,))
        assert "scoring by gRPC" in found[-1].message
    for first in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00\x00"):
        with greeting(first) as port:
            assert not await speaks_http2("127.0.0.1", port)
    assert not await speaks_http2("127.0.0.1", free_port())


def test_the_policys_scoring_endpoints_are_what_is_asked(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nupstream_headers: [{name: x-key, value: {env: KEY}}]\n"
        "routes: [{name: a, api: kserve_v1}, {name: b, api: open_inference}]\n"
    )
    asked = asked_of(load_active(tmp_path / "policy.yaml", api=None, env={"KEY": "secret"}))
    assert asked == Asked(
        (("POST", "/v1/models/guard-doctor:predict"), ("POST", "/v2/models/guard-doctor/infer")), credential=True
    )


def test_the_kernels_list_is_read(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    four, six = tmp_path / "tcp", tmp_path / "tcp6"
    four.write_text(
        f"{head}   0: 0100007F:1F90 00000000:0000 0A 0:0\n   1: 0500000A:1F90 00000000:0000 0A 0:0\n"
        "   2: 0500000A:1F90 0100000A:9999 01 0:0\n   3: 00000000:1F91 00000000:0000 0A 0:0\n"
    )
    six.write_text(
        f"{head}   0: 00000000000000000000000000000000:1F90 0:0 0A 0:0\n"
        "   1: 0000000000000000FFFF00000500000A:1F91 0:0 0A 0:0\n"
        "   2: 00000000000000000000000001000000:1F90 0:0 0A 0:0\n"
    )
    assert bound(8080, (four, six)) == ["10.0.0.5", "::"]
    assert bound(8081, (four, six)) == ["0.0.0.0", "10.0.0.5"]
    assert bound(8082, (four, tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", True), ("10.0.0.1", False), ("model", False)],
)
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
