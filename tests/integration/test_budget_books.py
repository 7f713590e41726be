"""Operators at work on the ledgers of real guards, on SQLite and on Valkey: while they serve, and after kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.clients import KeepAlive, admin, ask, until
from tests.support.model import model
from tests.support.operators import CLIENT, LAPLACE, MODEL, accounts, operate, policy
from tests.support.processes import guard, process
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.model.ledger import Account
    from tests.support.model import Model
    from tests.support.processes import Guard

TARGET = "/v1/models/m:predict"
REASON = ("--reason", "SEC-412: test traffic")
SECRET = {"GUARD_SECRET": "sixteen characters at least"}
ANYBODY = "client:address:127.0.0.1"
Json = Any  # Any: JSON


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Model]:
    with model(tmp_path / "model") as running:
        yield running


def queries(first: int, rows: int) -> Json:
    """As many different queries."""
    return {"instances": [[float(first + i), 1.0] for i in range(rows)]}


async def answered(running: Guard, first: int, rows: int) -> int:
    return (await ask(running.port, TARGET, queries(first, rows))).status


async def work(*command: str | Path) -> int:
    """Run a command of an operator's beside the loop."""
    return await asyncio.to_thread(operate, *command)


async def looked_up(url: str) -> dict[tuple[str, str], Account]:
    return await asyncio.to_thread(accounts, url)


async def left(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Return the answers that remain, by scope."""
    capsys.readouterr()
    assert await work("budget", "show", "--policy", file, "--state", url, "--format", "json") == 0
    budgets = json.loads(capsys.readouterr().out)["budgets"]
    return {scope["scope"]: scope["left"]["digits"] for budget in budgets for scope in budget["scopes"]}


async def test_a_running_guard_is_looked_at_and_left_alone_until_it_stops(
    tmp_path: Path, upstream: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    url, file = f"sqlite:{tmp_path / 'guard.db'}", policy(tmp_path, MODEL, CLIENT)
    with guard(file, upstream.url, tmp_path / "first", "--state", url) as running:
        assert await answered(running, 0, 3) == 200
        before = await left(url, file, capsys)
        assert await answered(running, 100, 7) == 200
        assert await answered(running, 100, 7) == 200  # a repeat is free
        assert await left(url, file, capsys) == {scope: units - 7 for scope, units in before.items()}
        assert await work("audit", "verify", "--state", url, "--policy", file) == 0
        assert await work("budget", "reset", "--ledger", "digits", "--state", url, *REASON, "--yes") == 3
        assert "stop it first" in capsys.readouterr().err
    assert await work("budget", "reset", "--ledger", "digits", "--state", url, *REASON, "--yes") == 0
    assert await left(url, file, capsys) == {scope: units + 3 for scope, units in before.items()}
    with guard(file, upstream.url, tmp_path / "second", "--state", url) as running:
        assert await answered(running, 200, 2) == 200
        assert await left(url, file, capsys) == {scope: units + 1 for scope, units in before.items()}
    assert await work("audit", "verify", "--state", url) == 0


async def test_after_kill_9_the_ledger_replays(
    tmp_path: Path, upstream: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    url, file = f"sqlite:{tmp_path / 'guard.db'}", policy(tmp_path, MODEL, CLIENT)
    rows = 0

    async def client(port: int, numbers: Iterator[int]) -> None:
        nonlocal rows
        with contextlib.suppress(OSError, EOFError):
            async with KeepAlive(port) as connection:
                while (await connection.ask(TARGET, queries(next(numbers), 1))).status == 200:
                    rows += 1

    with guard(file, upstream.url, tmp_path / "guard", "--state", url) as running:
        load = [asyncio.create_task(client(running.port, count(1000 * i))) for i in range(8)]
        await until(lambda: rows >= 100)
        running.running.kill()
        await asyncio.gather(*load)
    assert await work("audit", "verify", "--state", url) == 0
    (entry,) = (await looked_up(url))["privacy/model", "model"].entries
    assert rows <= entry.rows <= rows + len(load)
    capsys.readouterr()


async def test_a_policy_with_other_terms_waits_for_a_migration(
    tmp_path: Path, upstream: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    url, file = f"sqlite:{tmp_path / 'guard.db'}", policy(tmp_path, CLIENT)
    with guard(file, upstream.url, tmp_path / "first", "--state", url) as running:
        assert await answered(running, 0, 5) == 200
        policy(tmp_path, CLIENT, MODEL, mechanism=LAPLACE)
        reply = await asyncio.to_thread(lambda: admin(running, "/reload", post=True))
        assert (reply.status, b"guard budget migrate" in reply.body) == (409, True)
        assert await answered(running, 100, 5) == 200  # under the old policy
    refused = [
        sys.executable,
        "-m",
        "guard",
        "serve",
        "--policy",
        str(file),
        "--upstream",
        upstream.url,
        "--state",
        url,
    ]
    with process([*refused, "--listen", "127.0.0.1:0"], tmp_path / "refused.log") as ended:
        assert await asyncio.to_thread(ended.wait, 60) == 2
    assert "guard budget migrate" in (tmp_path / "refused.log").read_text()
    assert await work("budget", "migrate", "--policy", file, "--state", url, *REASON) == 0
    after = await left(url, file, capsys)
    with guard(file, upstream.url, tmp_path / "second", "--state", url) as running:
        assert await answered(running, 200, 4) == 200
        assert await left(url, file, capsys) == {scope: units - 4 for scope, units in after.items()}
    assert await work("audit", "verify", "--state", url, "--policy", file) == 0


def fields(server: Valkey, url: str) -> tuple[str, str]:
    """Return the key of the model's counter and the field of one of its journal's entries."""
    del url
    key = "guard:{digits}:c|privacy/model|model|0|0"
    names = server.command("HKEYS", key).decode().split("\r\n")
    return key, next(name for name in names if name.startswith("j") and name[1:].isdigit())


async def test_tampered_keys_are_found(
    tmp_path: Path, upstream: Model, valkey: Valkey, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, MODEL, CLIENT)
    with guard(file, upstream.url, tmp_path / "guard", "--state", valkey.url, env=SECRET) as running:
        for i in range(3):
            assert await answered(running, 10 * i, 2) == 200
        assert await work("audit", "verify", "--state", valkey.url) == 0
        key, entry = fields(valkey, valkey.url)
        kept = valkey.command("HGET", key, entry).decode().split("\r\n")[1]
        for spoil, mend, said in (
            (("HINCRBY", key, "s", "-1"), ("HINCRBY", key, "s", "1"), "the counter says"),
            (("HDEL", key, entry), ("HSET", key, entry, f'"{kept}"'), "the counter says"),
            (
                ("HSET", key, entry, '"' + kept.replace("gaussian(20.0)", "gaussian(25.0)") + '"'),
                ("HSET", key, entry, f'"{kept}"'),
                "gaussian(25.0): 2 rows cost",
            ),
        ):
            valkey.command(*spoil)
            capsys.readouterr()
            assert await work("audit", "verify", "--state", valkey.url) == 1
            out = capsys.readouterr().out
            assert "digits: privacy/model of model: " in out
            assert said in out
            valkey.command(*mend)
            assert await work("audit", "verify", "--state", valkey.url) == 0


async def test_a_reset_under_load_loses_no_charge(
    tmp_path: Path, upstream: Model, valkey: Valkey, capsys: pytest.CaptureFixture[str]
) -> None:
    roomy = MODEL.replace("epsilon: 8", "epsilon: 500")
    file = policy(tmp_path, roomy)
    rows, stopped = 0, False

    async def client(port: int, numbers: Iterator[int]) -> None:
        nonlocal rows
        async with KeepAlive(port) as connection:
            while not stopped:
                rows += (await connection.ask(TARGET, queries(next(numbers), 1))).status == 200

    with guard(file, upstream.url, tmp_path / "guard", "--state", valkey.url, env=SECRET) as running:
        load = [asyncio.create_task(client(running.port, count(10_000 * i))) for i in range(2)]
        await until(lambda: rows >= 50)
        code = await work("budget", "reset", "--ledger", "digits", "--state", valkey.url, *REASON, "--yes")
        stopped = True
        await asyncio.gather(*load)
        assert (await asyncio.to_thread(lambda: admin(running, "/reload", post=True))).status == 200
        rows += await answered(running, 1_000_000, 1) == 200
    assert code in (0, 3), capsys.readouterr().err  # so busy that it gave up, or done: never half of it
    assert await work("audit", "verify", "--state", valkey.url) == 0
    entries = {entry.event: entry for entry in (await looked_up(valkey.url))["privacy/model", "model"].entries}
    assert entries["gaussian(20.0)"].rows >= rows
    assert ("reset" in entries) is (code == 0)


async def test_a_guard_with_the_old_policy_charges_nothing_after_a_migration(
    tmp_path: Path, upstream: Model, valkey: Valkey, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, CLIENT)
    other = policy(tmp_path, CLIENT, mechanism=LAPLACE, name="other.yaml")
    with guard(file, upstream.url, tmp_path / "old", "--state", valkey.url, env=SECRET) as running:
        assert await answered(running, 0, 5) == 200
        assert await work("budget", "migrate", "--policy", other, "--state", valkey.url, *REASON) == 0
        moved = await looked_up(valkey.url)
        assert await answered(running, 100, 5) == 503
        reply = await asyncio.to_thread(lambda: admin(running, "/reload", post=True))
        assert reply.status == 409
        assert await answered(running, 200, 5) == 503  # nor because it has asked for the terms again
        assert await looked_up(valkey.url) == moved
    with guard(other, upstream.url, tmp_path / "new", "--state", valkey.url, env=SECRET) as running:
        before = await left(valkey.url, other, capsys)
        assert await answered(running, 300, 5) == 200
        assert (await left(valkey.url, other, capsys))[ANYBODY] == before[ANYBODY] - 5
    assert await work("audit", "verify", "--state", valkey.url, "--policy", other) == 0
