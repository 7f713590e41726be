"""Hot reload of a running Guard under load: nothing fails, nothing is mixed, nothing is refunded."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import KeepAlive, admin, ask, infer, metric, spent, until
from tests.support.model import Model, model
from tests.support.processes import Guard, guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RELOADS = 1000
ANYBODY = "address:127.0.0.1"
TARGET = "/v2/models/m/infer"
ROW = infer([0.45, 1.1])


def policy(step: int | None, decimals: int, limit: int = 10**6) -> str:
    """Return a policy whose snapping changes what the model is asked, and whose rounding changes its answer."""
    inputs = f"kind: vector, size: 2, low: 0, high: 4, step: {step}" if step else "kind: vector, size: 2"
    return f"""version: 1
name: step-{step or 0}-decimals-{decimals}
routes:
  - name: digits
    api: open_inference
    inputs: {{{inputs}}}
    defences: [{{kind: round, decimals: {decimals}}}]
    budgets: [{{kind: rows, per: client, limit: {limit}}}]
"""


COARSE, FINE = policy(1, 1), policy(None, 3, limit=2 * 10**6)
INVALID = (COARSE.replace("round", "rond"), "version: [", COARSE.replace("digits", "d", 1) + "  - name: d\n", "")


def reloads(running: Guard, result: str) -> float:
    return metric(running, "guard_policy_reloads_total", result=result) or 0.0


def replace(path: Path, text: str) -> None:
    """Write a file as an editor or a deployment would: at once."""
    other = path.with_suffix(".new")
    other.write_text(text)
    os.replace(other, path)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Model]:
    with model(tmp_path) as running:
        yield running


async def ask_until(stopped: asyncio.Event, port: int, bodies: Counter[bytes]) -> None:
    async with KeepAlive(port) as connection:
        while not stopped.is_set():
            got = await connection.ask(TARGET, ROW)
            assert got.status == 200, got
            bodies[got.body] += 1


async def body_under(running: Guard, path: Path, text: str) -> bytes:
    """Return the answer under a policy."""
    replace(path, text)
    assert admin(running, "/reload", post=True).status == 200
    return (await ask(running.port, TARGET, ROW)).body


@pytest.mark.lab
async def test_a_thousand_reloads_under_load(tmp_path: Path, upstream: Model) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(COARSE)
    with guard(path, upstream.url, tmp_path) as running:
        coarse, fine = [await body_under(running, path, text) for text in (COARSE, FINE)]
        mixed = {await body_under(running, path, text) for text in (policy(1, 3), policy(None, 1))}
        assert len({coarse, fine} | mixed) == 4  # half of each would be noticed
        before, asked = (reloads(running, "ok"), reloads(running, "failed")), upstream.counts()["requests/m"]
        bodies: Counter[bytes] = Counter()
        replace(path, FINE)
        admin(running, "/reload", post=True)
        stopped = asyncio.Event()
        load = [asyncio.create_task(ask_until(stopped, running.port, bodies)) for _ in range(4)]
        await asyncio.to_thread(reload_often, running, path)
        stopped.set()
        await asyncio.gather(*load)
        assert set(bodies) == {coarse, fine}
        assert min(bodies.values()) > 100
        assert upstream.counts()["requests/m"] - asked == bodies.total()
        assert spent(running, ANYBODY, "rows/client") == bodies.total() + 4
        # The watcher may have noticed a change before it was told.
        assert reloads(running, "ok") - before[0] >= RELOADS - RELOADS // 10
        assert reloads(running, "failed") - before[1] >= RELOADS // 10


def reload_often(running: Guard, path: Path) -> None:
    """Put one policy after the other in force; one in ten is none, and leaves the one before."""
    for number in range(RELOADS):
        if number % 10 == 5:
            replace(path, INVALID[number // 10 % len(INVALID)])
            refused = admin(running, "/reload", post=True)
            assert (refused.status, refused.json["ok"]) == (409, False)
            assert refused.json["problems"]
            assert admin(running, "/policy").json["name"] == "step-1-decimals-1"  # what the even ones put in force
        else:
            replace(path, FINE if number % 2 else COARSE)
            assert admin(running, "/reload", post=True).status == 200


def config_map(folder: Path, version: int, text: str) -> None:
    """Put a file in place as the kubelet does: a new directory, and one rename of the symlink to it."""
    made = folder / f"..version_{version}"
    made.mkdir(parents=True)
    (made / "policy.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(made.name)
    os.replace(folder / "..data_tmp", folder / "..data")
    if not (folder / "policy.yaml").is_symlink():
        (folder / "policy.yaml").symlink_to("..data/policy.yaml")
    shutil.rmtree(folder / f"..version_{version - 1}", ignore_errors=True)


async def test_a_config_map_swap_is_noticed_by_itself(tmp_path: Path, upstream: Model) -> None:
    folder = tmp_path / "mounted"
    config_map(folder, 1, COARSE)
    with guard(folder / "policy.yaml", upstream.url, tmp_path) as running:
        for version, text in enumerate((FINE, COARSE), 2):
            name = text.split()[3]
            config_map(folder, version, text)
            await until(lambda name=name: admin(running, "/policy").json["name"] == name)
        config_map(folder, 4, INVALID[0])
        await until(lambda: reloads(running, "failed") == 1)
        assert admin(running, "/policy").json["name"] == COARSE.split()[3]
        assert reloads(running, "ok") == 2


def limits(**given: int) -> str:
    return f"{policy(None, 3)}limits: {given}\n"


async def test_limits_follow_a_reload(tmp_path: Path, upstream: Model) -> None:
    path, large, slow = tmp_path / "policy.yaml", infer(*[[1.0, 2.0]] * 100), "/v2/models/slow/infer"
    path.write_text(limits(answer_bytes=1024, concurrency=1, drain_s=600))
    with guard(path, upstream.url, tmp_path) as running:
        async with KeepAlive(running.port) as one, KeepAlive(running.port) as two, KeepAlive(running.port) as three:
            assert (await one.ask(TARGET, large)).status == 502
            await body_under(running, path, limits(answer_bytes=10**6, concurrency=3, drain_s=1))
            assert (await one.ask(TARGET, large)).status == 200
            for connection in (one, two, three):
                await connection.send(slow, ROW)
            await until(lambda: upstream.counts()["waiting"] == 3)
            upstream.release()
            assert [(await connection.receive()).status for connection in (one, two, three)] == [200] * 3
            await body_under(running, path, limits(answer_bytes=1024, concurrency=1, drain_s=1))
            assert (await one.ask(TARGET, large)).status == 502
            await one.send(slow, ROW)
            await until(lambda: upstream.counts()["waiting"] == 1)
            assert (await two.ask(TARGET, ROW)).status == 503
            running.running.send_signal(signal.SIGTERM)
            assert (await one.receive()).status == 503  # after the one second that is in force now


async def test_sighup_reloads(tmp_path: Path, upstream: Model) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(COARSE)
    with guard(path, upstream.url, tmp_path) as running:
        running.running.send_signal(signal.SIGHUP)  # nothing has changed that the watcher could notice
        await until(lambda: reloads(running, "ok") == 1)
        assert (await ask(running.port, TARGET, ROW)).status == 200
