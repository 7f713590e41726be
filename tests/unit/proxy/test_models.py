"""The models behind a process: how many a policy needs, what connections they get, whether they are well."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from guard.errors import PolicyError
from guard.policy.plan import Plan
from guard.proxy.load import load_active
from guard.proxy.models import check_models, connections_each, open_upstreams, quorum_of, upstream_ready
from guard.upstream.ensemble import Upstreams
from tests.support.model import model
from tests.support.processes import free_port

JSON = '{name: r, api: json, match: {path: /p}, select: {scores: "$.y"}}'


def plan(folder: Path, *routes: str) -> Plan:
    path = folder / "policy.yaml"
    path.write_text(f"version: 1\nroutes: [{', '.join(routes)}]\n")
    return load_active(path, api=None, env={}).plan


def ensemble(quorum: int, name: str = "r", api: str = "open_inference") -> str:
    return f"{{name: {name}, api: {api}, ensemble: {{aggregate: mean, quorum: {quorum}}}}}"


@pytest.mark.parametrize("route", ["{api: open_inference}", JSON])
async def test_a_model_is_ready_when_its_health_endpoint_or_anything_answers(route: str, tmp_path: Path) -> None:
    made = plan(tmp_path, route)
    with model(tmp_path) as running:
        upstream = open_upstreams((("", running.url),), made)
        assert await upstream_ready(upstream, made) is True
        await upstream.aclose()
    gone = Upstreams([("", f"http://127.0.0.1:{free_port()}")])
    why = await upstream_ready(gone, made)
    assert isinstance(why, str)
    assert "127.0.0.1" not in why
    await gone.aclose()


async def unwell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_a_model_whose_health_endpoint_fails_is_not_ready(tmp_path: Path) -> None:
    async with await asyncio.start_server(unwell, "127.0.0.1", 0) as server:
        upstream = Upstreams([("", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")])
        assert await upstream_ready(upstream, plan(tmp_path, "{api: mlflow}")) == "the model answers 503"
        assert await upstream_ready(upstream, plan(tmp_path, JSON)) is True
        await upstream.aclose()


async def test_an_ensemble_is_ready_with_its_quorum_and_names_who_is_missing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first, second = [stack.enter_context(model(tmp_path / name)) for name in "ab"]
        sick = await stack.enter_async_context(await asyncio.start_server(unwell, "127.0.0.1", 0))
        urls = (
            ("a", first.url),
            ("b", second.url),
            ("c", f"http://127.0.0.1:{sick.sockets[0].getsockname()[1]}"),
            ("d", f"http://127.0.0.1:{free_port()}"),
        )
        made = plan(tmp_path, ensemble(2))
        upstream = open_upstreams(urls, made)
        assert await upstream_ready(upstream, made) is True
        upstream.quorum = 3
        why = await upstream_ready(upstream, made)
        assert why == ("2 of 4 models answer; not c (the model answers 503), d (upstream cannot be reached); quorum 3")
        await upstream.aclose()


def test_a_policy_must_fit_the_number_of_models(tmp_path: Path) -> None:
    check_models(plan(tmp_path, "{api: mlflow}"), 1)
    check_models(plan(tmp_path, ensemble(1)), 1)
    made = plan(tmp_path, ensemble(3), ensemble(2, "s", "mlflow"))
    assert quorum_of(made) == 3
    check_models(made, 3)
    with pytest.raises(PolicyError) as caught:
        check_models(plan(tmp_path, ensemble(3), "{name: s, api: mlflow}"), 2)
    few, lone = caught.value.problems
    assert (few.path, few.message) == ("routes[0].ensemble.quorum", "route r needs the answers of 3 models")
    assert (lone.path, lone.message) == ("routes[1].ensemble", "route s asks one model, and --upstream names 2")


@pytest.fixture
def files() -> Generator[tuple[int, int]]:
    """Lower this process's bound of open files, and put it back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        yield before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_to_many_models_fit_into_the_open_files_that_there_may_be(files: tuple[int, int]) -> None:
    hard = files[1]
    assert connections_each(256, 1) == 256
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
    assert connections_each(8, 10) == 8
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 512
    assert connections_each(32, 20) == 32
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 128 + 32 * 21
    each = connections_each(10**5, 4000)
    assert each == 1 or 128 + 10**5 + each * 4000 <= hard
