"""Putting it together: sockets and signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from pathlib import Path

import pytest

from guard.proxy.listener import bind
from guard.proxy.server import kept
from tests.support.clients import admin, infer, under_way, until
from tests.support.model import model
from tests.support.processes import free_port, guard


def test_an_address_that_is_taken_leaves_no_socket_open() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_both_families_are_bound() -> None:
    with bind("127.0.0.1", 0) as four:
        assert (four.family, four.getblocking()) == (socket.AF_INET, False)
    with bind("::1", 0) as six:
        assert six.family == socket.AF_INET6


async def test_what_runs_beside_requests_outlives_a_bug(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            again.set()
        raise ValueError("a bug")

    with caplog.at_level(logging.ERROR, "guard"):
        task = asyncio.create_task(kept(work, rest_s=0.0))
        await asyncio.wait_for(again.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sum("begins anew" in record.message for record in caplog.records) >= 2


def test_a_state_out_of_reach_is_told_at_start_up_and_requests_fail_closed(tmp_path: Path) -> None:
    options = ["--api", "open_inference", "--state", f"redis://127.0.0.1:{free_port()}"]
    secret = {"GUARD_SECRET": "sixteen characters at least"}
    with guard("balanced", f"http://127.0.0.1:{free_port()}", tmp_path, *options, env=secret) as running:
        assert "state is out of reach" in running.log.read_text()
        assert admin(running, "/healthz").status == 200
        assert admin(running, "/readyz").json["checks"]["state"]["ok"] is False


async def test_a_second_signal_does_not_wait_for_requests_under_way(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nlimits: {drain_s: 600}\nroutes: [{api: open_inference}]\n")
    with model(tmp_path) as behind, guard(policy, behind.url, tmp_path) as running:
        async with under_way(running.port, "/v2/models/slow/infer", infer([1.0, 2.0])):
            await until(lambda: behind.counts()["waiting"] == 1)
            running.running.send_signal(signal.SIGINT)
            await until(lambda: not accepts(running.port))
            assert running.running.poll() is None
            running.running.send_signal(signal.SIGINT)
            assert running.running.wait(20) == 0


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
