"""Two Guards on one real Valkey: one budget, one noise, and no answers while the state is lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.clients import PATIENCE_S, KeepAlive, admin, ask, infer, metric, spent
from tests.support.model import Model, model
from tests.support.processes import Guard, guard
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 900
CLIENTS = ("alice", "bob", "carol", "dave")
POLICY = f"""version: 1
identity:
  - {{kind: api_key, header: x-api-key, keys_file: KEYS}}
routes:
  - name: digits
    api: open_inference
    match: {{path: /v2/models/digits/infer}}
    budgets: [{{kind: rows, per: client, limit: {LIMIT}}}]
  - name: noisy
    api: open_inference
    match: {{path: /v2/models/noisy/infer}}
    defences: [{{kind: noise, mechanism: gaussian, scale: 0.02, reuse: query}}]
  - name: free
    api: open_inference
"""
DIGITS, NOISY, FREE = (f"/v2/models/{name}/infer" for name in ("digits", "noisy", "free"))
ROW = infer([1.0, 2.0])
Pair = tuple[Guard, Guard]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "keys").write_text("".join(f"{c}:{hashlib.sha256(c.encode()).hexdigest()}\n" for c in CLIENTS))
    (folder / "policy.yaml").write_text(POLICY.replace("KEYS", str(folder / "keys")))
    return folder / "policy.yaml"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with model(tmp_path_factory.mktemp("model")) as running:
        yield running


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def guards(
    policy: Path, upstream: Model, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Guard, Guard]]:
    folder, secret = tmp_path_factory.mktemp("guards"), {"GUARD_SECRET": "one secret for all of them"}
    with (
        guard(policy, upstream.url, folder / "a", "--state", valkey.url, env=secret) as a,
        guard(policy, upstream.url, folder / "b", "--state", valkey.url, env=secret) as b,
    ):
        yield a, b


async def spend_all(port: int, key: str, number: int) -> int:
    """Ask batches of one to three rows, in the end single rows, until the budget is spent; return the rows answered."""
    answered, rows = 0, number
    async with KeepAlive(port, key) as connection:
        while True:
            rows = rows % 3 + 1
            got = await connection.ask(DIGITS, infer(*[[1.0, 2.0]] * rows))
            assert got.status in (200, 429), got
            if got.status == 200:
                answered += rows
            elif rows == 1:
                return answered


async def test_together_they_answer_exactly_the_limit(guards: Pair, upstream: Model) -> None:
    before = upstream.counts()["rows/digits"]
    ports = [guards[number % 2].port for number in range(12)]
    answered = await asyncio.gather(*[spend_all(port, "alice", number) for number, port in enumerate(ports)])
    assert sum(answered) == upstream.counts()["rows/digits"] - before == LIMIT
    assert min(sum(answered[0::2]), sum(answered[1::2])) > 0  # both took part
    assert [spent(one, "alice", "rows/client") for one in guards] == [LIMIT, LIMIT]


async def test_who_is_denied_by_one_is_denied_by_the_other(guards: Pair) -> None:
    a, b = guards
    assert await spend_all(a.port, "bob", 0) == LIMIT
    denied = await ask(b.port, DIGITS, ROW, "bob")
    assert (denied.status, set(denied.json)) == (429, {"error"})
    assert (await ask(b.port, DIGITS, ROW, "carol")).status == 200


async def test_the_same_query_gets_the_same_noise_from_both(guards: Pair) -> None:
    a, b = guards
    first = (await ask(a.port, NOISY, ROW, "alice")).body
    assert (await ask(b.port, NOISY, ROW, "alice")).body == first
    clean = (await ask(a.port, FREE, ROW, "alice")).body
    others = [await ask(b.port, NOISY, ROW, "bob"), await ask(b.port, NOISY, infer([1.0, 2.5]), "alice")]
    scores = [json.dumps(json.loads(body)["outputs"]) for body in (first, clean, *[other.body for other in others])]
    assert len(set(scores)) == 4


async def test_a_lost_state_closes_what_has_a_budget_and_comes_back(
    guards: Pair, upstream: Model, valkey: Valkey
) -> None:
    a, b = guards
    assert await spend_all(a.port, "dave", 0) == LIMIT
    async with KeepAlive(a.port, "carol") as connection:
        assert (await connection.ask(DIGITS, ROW)).status == 200
        had = spent(a, "carol", "rows/client")
        before, errors = upstream.counts(), metric(a, "guard_state_errors_total") or 0
        valkey.kill()
        for _ in range(3):
            got = await connection.ask(DIGITS, ROW)
            assert (got.status, set(got.json)) == (503, {"error"})
        assert upstream.counts() == before
        assert metric(a, "guard_state_errors_total") == errors + 3
        ready = admin(a, "/readyz")
        assert (ready.status, ready.json["checks"]["state"]["ok"]) == (503, False)
        assert (await connection.ask(FREE, ROW)).status == 200  # nothing to charge: nothing was lost
        valkey.start()
        async with asyncio.timeout(PATIENCE_S):
            while (got := await connection.ask(DIGITS, ROW)).status != 200:
                assert got.status == 503
    assert spent(a, "carol", "rows/client") == had + 1
    async with asyncio.timeout(PATIENCE_S):  # the other one had no part in it
        while (got := await ask(b.port, DIGITS, ROW, "dave")).status == 503:
            pass
    assert got.status == 429  # the restart gave nothing back


def test_without_a_secret_it_does_not_start_on_a_shared_state(policy: Path, upstream: Model, valkey: Valkey) -> None:
    command = [sys.executable, "-m", "guard", "serve", "--policy", str(policy), "--upstream", upstream.url]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", valkey.url]
    env = {name: value for name, value in os.environ.items() if name != "GUARD_SECRET"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode in (2, 3)
    assert "GUARD_SECRET or --secret-file" in done.stderr
    assert "Traceback" not in done.stderr
