"""`guard serve` with gRPC alone: one process, started as it is deployed, that drains on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.clients import admin, metric
from tests.support.grpc_messages import output, request
from tests.support.grpc_models import POLICY, Client, model
from tests.support.processes import guard

BODY = request(("x", "FP32", [[1.0, 2.0]]))


async def test_guard_serves_grpc_alone(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with model() as served:
        options = ("--grpc-listen", "127.0.0.1:0", "--grpc-upstream", f"grpc://127.0.0.1:{served.port}")
        with guard(tmp_path / "policy.yaml", None, tmp_path / "guard", "--state", "memory:", *options) as running:
            assert running.url == f"grpc://{running.grpc}", "nothing is served over HTTP but the admin listener"
            async with Client(running.grpc) as client:
                assert output((await client.ask(BODY)).body, "p") == pytest.approx([0.7, 0.2, 0.1])
            ready = await asyncio.to_thread(admin, running, "/readyz")
            assert ready.json["checks"]["upstream"]["ok"] is True
            counted = await asyncio.to_thread(metric, running, "guard_requests_total", outcome="ok", route="r")
            assert counted == 1
            running.running.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.running.wait, 15) == 0
