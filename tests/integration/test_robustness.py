"""A running Guard between bad models, bad clients and operators: every failure ends as documented."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import PATIENCE_S, KeepAlive, admin, ask, infer, metric, spent, under_way, until
from tests.support.model import Model, model
from tests.support.processes import Guard, free_port, guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANYBODY = "address:127.0.0.1"
ROW = infer([1.0, 2.0])
POLICY = """version: 1
limits: {LIMITS}
routes:
  - {name: v2, api: open_inference, ledger: all, budgets: [{kind: rows, per: client, limit: 100000}]}
  - {name: v1, api: kserve_v1, ledger: all, budgets: [{kind: rows, per: client, limit: 100000}]}
  - {name: other, api: mlflow, ledger: all}
"""
V1_ROW = {"instances": [[1.0, 2.0]]}
APIS = [("/v2/models/{}/infer", ROW), ("/v1/models/{}:predict", V1_ROW)]


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Model]:
    with model(tmp_path) as running:
        yield running


def policy(folder: Path, limits: str = "") -> Path:
    path = folder / "policy.yaml"
    path.write_text(POLICY.replace("LIMITS", limits))
    return path


@pytest.fixture
def running(tmp_path: Path, upstream: Model) -> Iterator[Guard]:
    with guard(policy(tmp_path, "upstream_timeout_s: 0.3"), upstream.url, tmp_path) as started:
        yield started


@pytest.fixture
def patient(tmp_path: Path, upstream: Model) -> Iterator[Guard]:
    with guard(policy(tmp_path, "concurrency: 2"), upstream.url, tmp_path) as started:
        yield started


# -- bad models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "document"), APIS, ids=["open_inference", "kserve_v1"])
@pytest.mark.parametrize(("name", "status"), [("slow", 504), ("reset", 502), ("half", 502)])
async def test_what_breaks_behind_guard_is_a_clean_error_and_asked_once(
    running: Guard, upstream: Model, target: str, document: object, name: str, status: int
) -> None:
    async with KeepAlive(running.port) as connection:
        assert (await connection.ask(target.format("m"), document)).status == 200
        got = await connection.ask(target.format(name), document)
        assert (got.status, got.headers["content-type"], set(got.json)) == (status, "application/json", {"error"})
        assert isinstance(got.json["error"], str)
        assert str(upstream.port) not in got.json["error"]
        assert (await connection.ask(target.format("m"), document)).status == 200
    assert upstream.counts()[f"requests/{name}"] == 1
    assert spent(running, ANYBODY, "rows/client") == 3  # it may have been seen, so it stays charged


async def test_an_answer_packed_unasked_is_read(running: Guard) -> None:
    plain, packed = [await ask(running.port, f"/v2/models/{name}/infer", ROW) for name in ("m", "gzip")]
    assert (packed.status, packed.json["outputs"]) == (200, plain.json["outputs"])
    assert "content-encoding" not in packed.headers


async def test_connections_that_the_model_closes_while_idle_fail_no_client(running: Guard, upstream: Model) -> None:
    async with KeepAlive(running.port) as connection:
        for number in range(200):
            closes = number % 3 != 2
            got = await connection.ask(f"/v2/models/{'closing' if closes else 'm'}/infer", ROW)
            assert got.status == 200, (number, got)
            while closes and upstream.counts()["closed"] < number - number // 3 + 1:
                await asyncio.sleep(0)
    counts = upstream.counts()
    assert (counts["requests/closing"], counts["requests/m"]) == (134, 66)


async def test_a_model_that_is_down_is_told_apart_from_guard(tmp_path: Path) -> None:
    with guard(policy(tmp_path), f"http://127.0.0.1:{free_port()}", tmp_path) as running:
        got = await ask(running.port, "/v2/models/m/infer", ROW)
        assert (got.status, set(got.json)) == (502, {"error"})
        assert admin(running, "/healthz").status == 200
        ready = admin(running, "/readyz")
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert [name for name, check in ready.json["checks"].items() if not check["ok"]] == ["upstream"]
        assert spent(running, ANYBODY, "rows/client") == 0  # nobody saw it: refunded
        assert metric(running, "guard_budget_charges_total", route="v2", budget="rows/client") == 0


# -- bad clients -------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_cancels_the_call_to_the_model(patient: Guard, upstream: Model) -> None:
    async with under_way(patient.port, "/v2/models/slow/infer", ROW):
        await until(lambda: upstream.counts()["waiting"] == 1)
    await until(lambda: upstream.counts()["left"] == 1)
    assert (await ask(patient.port, "/v2/models/m/infer", ROW)).status == 200
    assert spent(patient, ANYBODY, "rows/client") == 2
    assert metric(patient, "guard_requests_total", route="v2", outcome="aborted") == 1


async def test_more_than_fits_is_shed_and_the_rest_is_served(patient: Guard, upstream: Model) -> None:
    target = "/v2/models/slow/infer"
    async with under_way(patient.port, target, ROW) as one, under_way(patient.port, target, ROW) as other:
        await until(lambda: upstream.counts()["waiting"] == 2)
        shed = await ask(patient.port, "/v2/models/m/infer", ROW)
        assert (shed.status, set(shed.json)) == (503, {"error"})
        assert int(shed.headers["retry-after"]) >= 1
        assert admin(patient, "/healthz").status == 200
        upstream.release()
        assert [(await served.receive()).status for served in (one, other)] == [200, 200]
    assert (await ask(patient.port, "/v2/models/m/infer", ROW)).status == 200
    assert upstream.counts()["requests/m"] == 1
    assert spent(patient, ANYBODY, "rows/client") == 3  # what was shed was not charged


async def test_what_is_refused_unread_speaks_its_own_api(tmp_path: Path, upstream: Model) -> None:
    with guard(policy(tmp_path, "body_bytes: 1024"), upstream.url, tmp_path) as running:
        targets = {"/v2/models/m/infer": {"error"}, "/invocations": {"error_code", "message"}}
        for target, members in targets.items():
            got = await ask(running.port, target, {"inputs": [[0.0] * 1000]})
            assert (got.status, set(got.json)) == (413, members)
    assert upstream.counts().total() == 0


# -- signals -----------------------------------------------------------------------------------------------------------


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_sigterm_drains(patient: Guard, upstream: Model) -> None:
    async with under_way(patient.port, "/v2/models/slow/infer", ROW) as connection, KeepAlive(patient.port) as idle:
        await until(lambda: upstream.counts()["waiting"] == 1)
        patient.running.send_signal(signal.SIGTERM)
        await until(lambda: refuses(patient.port))
        assert await idle.reader.read() == b""  # an idle connection is closed
        assert patient.running.poll() is None
        upstream.release()
        got = await connection.receive()
        assert (got.status, len(got.json["outputs"][0]["data"])) == (200, 5)
        assert await asyncio.to_thread(patient.running.wait, PATIENCE_S) == 0
    assert "Traceback" not in patient.log.read_text()


async def test_draining_ends_in_time_and_says_so(tmp_path: Path, upstream: Model) -> None:
    with guard(policy(tmp_path, "drain_s: 1"), upstream.url, tmp_path) as running:
        async with under_way(running.port, "/v1/models/slow:predict", V1_ROW) as connection:
            await until(lambda: upstream.counts()["waiting"] == 1)
            running.running.send_signal(signal.SIGTERM)
            got = await connection.receive()
            assert (got.status, set(got.json), got.headers["retry-after"]) == (503, {"error"}, "1")
            assert await asyncio.to_thread(running.running.wait, PATIENCE_S) == 0
        assert "Traceback" not in running.log.read_text()


async def test_ctrl_c_ends_an_idle_guard_quietly(running: Guard) -> None:
    async with KeepAlive(running.port) as connection:
        assert (await connection.ask("/v2/models/m/infer", ROW)).status == 200
        before = running.log.read_text()
        running.running.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(running.running.wait, PATIENCE_S) in (0, 130)
    assert running.log.read_text() == before


async def test_a_second_ctrl_c_does_not_wait_for_the_model(patient: Guard, upstream: Model) -> None:
    async with under_way(patient.port, "/v2/models/slow/infer", ROW) as connection:
        await until(lambda: upstream.counts()["waiting"] == 1)
        patient.running.send_signal(signal.SIGINT)
        await until(lambda: refuses(patient.port))
        patient.running.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(patient.running.wait, PATIENCE_S) in (0, 130)
        with contextlib.suppress(ConnectionError):
            got = await connection.reader.read()
            assert got == b"" or got.startswith(b"HTTP/1.1 502 ")
    assert upstream.counts()["waiting"] == 0
    assert "Traceback" not in patient.log.read_text()


# -- start-up ----------------------------------------------------------------------------------------------------------


def refused_start(folder: Path, *options: str, **given: str) -> tuple[int, str]:
    """Start Guard where it cannot; return its exit code and what it says."""
    settings = {"policy": str(policy(folder)), "upstream": "http://127.0.0.1:1", "listen": "127.0.0.1:0"}
    settings |= {"admin": "127.0.0.1:0", "state": "memory:"} | given
    command = [sys.executable, "-m", "guard", "serve", *[f"--{name}={value}" for name, value in settings.items()]]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=30, check=False, env=os.environ)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_in_use_is_named(tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = refused_start(tmp_path, **{which: place})
    assert code == 3
    assert place in said
    assert "in use" in said


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "127.0.0.1:8080", "http://", "http://127.0.0.1:99999"])
def test_an_upstream_that_is_no_url_is_a_usage_error(tmp_path: Path, url: str) -> None:
    code, said = refused_start(tmp_path, upstream=url)
    assert code == 2
    assert "--upstream" in said


def test_a_second_guard_on_the_same_file_does_not_start(tmp_path: Path, running: Guard) -> None:
    code, said = refused_start(tmp_path, state=f"sqlite:{tmp_path / 'guard.db'}")
    assert code == 3
    assert f"guard.db is in use: another guard (process {running.running.pid}) has it" in said
