"""`guard doctor`: one test for each thing that it finds."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from guard.cli.doctor_around import around_findings
from guard.cli.doctor_state import secret_findings, state_findings
from guard.cli.durability import durability_findings
from guard.cli.findings import Finding, redacted
from guard.cli.main import main
from guard.cli.sockets import own_addresses, reaches
from guard.policy.load import load_plan
from tests.support.clients import KeepAlive, infer
from tests.support.processes import free_port, guard
from tests.support.valkey import Valkey

SECRET = "sixteen characters at least"
POLICY = "version: 1\nname: looked-at\nroutes: [{api: open_inference}]\n"


@contextmanager
def answering(body: bytes = b"{}", host: str = "127.0.0.1", apart_s: float = 0.0, port: int = 0) -> Generator[int]:
    """Run a server that answers everything with `body`, whose clock is `apart_s` ahead; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", email.utils.formatdate(time.time() + apart_s, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GUARD_SECRET", "GUARD_POLICY", "GUARD_UPSTREAM", "GUARD_STATE", "GUARD_ADMIN", "GUARD_SECRET_FILE"):
        monkeypatch.delenv(name, raising=False)


def doctor(folder: Path, *options: str, policy: str = POLICY) -> int:
    (folder / "policy.yaml").write_text(policy)
    state = [] if "--state" in options else ["--state", f"sqlite:{folder / 'guard.db'}"]
    return main(["doctor", "--policy", str(folder / "policy.yaml"), *state, *options])


def test_a_healthy_deployment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as port:
        assert doctor(tmp_path, "--upstream", f"http://127.0.0.1:{port}") == 0
    out = capsys.readouterr().out
    assert "policy: looked-at, enforce, 1 route(s), digest" in out
    assert f"upstream: http://127.0.0.1:{port} answers" in out
    assert "ok    clock: " in out
    assert "around: the model answers on loopback only" in out
    assert "can be written" in out
    assert f"will be made at {tmp_path / 'guard.secret'}" in out
    assert not {"fail", "down"} & set(out.split())


def test_without_an_upstream_it_says_what_it_did_not_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(tmp_path) == 0
    assert "upstream: not looked at: --upstream is missing" in capsys.readouterr().out


def test_a_model_that_does_not_answer_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path, "--upstream", f"http://127.0.0.1:{free_port()}") == 3
    assert "down  upstream: http://127.0.0.1:" in capsys.readouterr().out


def test_of_an_ensemble_it_names_the_models_that_do_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = "version: 1\nroutes: [{api: open_inference, ensemble: {aggregate: mean, quorum: 2}}]\n"
    with answering() as a, answering(apart_s=3600) as b:
        models = [f"a=http://127.0.0.1:{a}", f"b=http://127.0.0.1:{b}", f"c=http://127.0.0.1:{free_port()}"]
        options = [word for url in models for word in ("--upstream", url)]
        assert doctor(tmp_path, *options, policy=policy) == 0
        out = capsys.readouterr().out
        assert "warn  upstream: 2 of 3 models answer, quorum 2" in out
        assert "warn  upstream: c: " in out
        assert "warn  clock: b: " in out
        assert out.count("around: ") == 1
        assert doctor(tmp_path, *options, policy=policy.replace("quorum: 2", "quorum: 3")) == 3
        assert "down  upstream: 2 of 3 models answer, quorum 3" in capsys.readouterr().out
        assert doctor(tmp_path, *options, policy=policy.replace("quorum: 2", "quorum: 4")) == 3
        assert "needs the answers of 4 models; --upstream names 3" in capsys.readouterr().out
        assert doctor(tmp_path, *options[:4]) == 1
        assert "asks one model, and --upstream names 2" in capsys.readouterr().out


def test_a_url_that_is_none_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path, "--upstream", "model:8080") == 2
    assert "http://" in capsys.readouterr().err


def test_a_bad_policy_is_exit_2_and_names_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path, policy="version: 1\nroutes: [{api: nosuch}]\nmod: enforce\n") == 2
    told = capsys.readouterr().err
    assert "nosuch" in told
    assert "did you mean" in told
    assert main(["doctor"]) == 2
    assert "--policy is missing" in capsys.readouterr().err


def test_budgets_per_client_without_identity_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    routes = "routes: [{api: mlflow, budgets: [{kind: rows, per: client, limit: 100}]}]\n"
    assert doctor(tmp_path, policy=f"version: 1\n{routes}") == 0
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warn") and "identity" in line]
    assert warned
    identity = "identity: [{kind: api_key, header: x-api-key, keys_file: keys}]\n"
    (tmp_path / "keys").write_text(f"alice:{'0' * 64}\n")
    (tmp_path / "keys").chmod(0o600)
    assert doctor(tmp_path, policy=f"version: 1\n{identity}{routes}") == 0
    assert "identity" not in capsys.readouterr().out


def test_clocks_that_disagree_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(apart_s=3600) as port:
        assert doctor(tmp_path, "--upstream", f"http://127.0.0.1:{port}") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "clock:" in line)
    assert line.startswith("warn")
    assert "s apart from the model's" in line


async def test_a_model_that_answers_on_another_address_too_can_be_reached_around() -> None:
    port = free_port()
    with answering(port=port), answering(host="127.0.0.2", port=port):
        url = f"http://127.0.0.1:{port}"
        (found,) = await around_findings(url, addresses=lambda: ["127.0.0.3", "127.0.0.2"])
        assert found.level == "fail"
        assert f"127.0.0.2:{port}" in found.message
        assert (await around_findings(url, addresses=lambda: ["127.0.0.3"]))[0].level == "ok"
    with answering() as port:
        assert (await around_findings(f"http://localhost:{port}"))[0].level == "ok"


@pytest.mark.parametrize("url", ["http://192.0.2.7:8080", "https://model.example", "http://[2001:db8::1]:80"])
async def test_a_model_across_a_network_is_warned_of(url: str) -> None:
    (found,) = await around_findings(url, addresses=list)
    assert found.level == "warn"
    assert "make sure that only Guard can" in found.message


async def test_only_what_accepts_a_connection_is_reached() -> None:
    with answering() as port:
        assert await reaches("127.0.0.1", port)
    assert not await reaches("127.0.0.1", free_port())


def test_own_addresses_leave_loopback_out() -> None:
    for address in own_addresses():
        socket.getaddrinfo(address, None, flags=socket.AI_NUMERICHOST)
        assert not address.startswith("127.")
        assert address != "::1"


def test_a_state_that_another_guard_holds_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as port, guard("observe", f"http://127.0.0.1:{port}", tmp_path, "--api", "open_inference") as one:
        state = f"sqlite:{tmp_path / 'guard.db'}"
        assert doctor(tmp_path, "--state", state, "--admin", one.admin) == 0
        out = capsys.readouterr().out
        assert "is in use" in out
        assert "if that is the Guard you are asking about, all is well" in out
        assert "ok    clients: 0 seen lately" in out
        assert "ok    secret: " in out
        assert "mode 0600" in out


async def test_a_state_of_another_program_is_down(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("not a ledger, and longer than a header of SQLite would be" * 50)
    assert (await state_findings(f"sqlite:{tmp_path / 'other.db'}"))[0].level == "down"
    assert (await state_findings("nosuch:"))[0].level == "down"
    assert (await state_findings(f"sqlite:{tmp_path / 'nowhere' / 'guard.db'}"))[0].level == "down"
    (found,) = await state_findings(f"redis://127.0.0.1:{free_port()}")
    assert found.level == "down"


async def test_a_state_in_memory_is_a_warning() -> None:
    (found,) = await state_findings("memory:")
    assert found.level == "warn"
    assert "forgotten at every restart" in found.message


def test_no_password_is_printed() -> None:
    assert redacted("redis://user:hunter2@redis:6379/0") == "redis://user:***@redis:6379/0"
    assert redacted("sqlite:guard.db") == "sqlite:guard.db"


def level(findings: list[Finding]) -> str:
    (found,) = findings
    assert found.what == "secret"
    return found.level


def test_a_secret_that_others_can_read_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "guard.secret"
    path.write_text(SECRET)
    for mode, expected in ((0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")):
        path.chmod(mode)
        assert level(secret_findings("memory:", str(path))) == expected
        assert level(secret_findings(f"sqlite:{tmp_path / 'guard.db'}", None)) == expected


def test_a_secret_that_is_too_short_or_missing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "short"
    path.write_text("short")
    path.chmod(0o600)
    assert level(secret_findings("memory:", str(path))) == "fail"
    assert level(secret_findings("memory:", str(tmp_path / "nowhere"))) == "fail"
    assert level(secret_findings("redis://redis", None)) == "fail"
    assert level(secret_findings("memory:", None)) == "warn"
    monkeypatch.setenv("GUARD_SECRET", "short")
    assert level(secret_findings("redis://redis", None)) == "fail"
    monkeypatch.setenv("GUARD_SECRET", SECRET)
    assert level(secret_findings("redis://redis", None)) == "ok"


def test_a_failing_look_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    assert doctor(tmp_path, "--secret-file", str(secret)) == 1
    assert "chmod 600" in capsys.readouterr().out


@pytest.mark.parametrize("body", [b"hello", b"[]", b"{}", b'{"known": "many"}'])
def test_an_admin_that_is_no_guard_is_down(body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(body) as port:
        assert doctor(tmp_path, "--admin", f"127.0.0.1:{port}") == 3
    assert "this is not a Guard's admin listener" in capsys.readouterr().out
    assert doctor(tmp_path, "--admin", f"127.0.0.1:{free_port()}") == 3


async def _ask_often(port: int, times: int) -> None:
    async with KeepAlive(port) as connection:
        for _ in range(times):
            await connection.ask("/v2/models/ok/infer", infer([1.0, 2.0]))


def test_an_ingress_in_front_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with guard("observe", f"http://127.0.0.1:{free_port()}", tmp_path, "--api", "open_inference") as running:
        asyncio.run(_ask_often(running.port, 999))
        assert doctor(tmp_path, "--state", "memory:", "--admin", running.admin) == 0
        assert "ok    clients: 1 seen lately" in capsys.readouterr().out
        asyncio.run(_ask_often(running.port, 1))
        assert doctor(tmp_path, "--state", "memory:", "--admin", running.admin) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if "clients:" in line)
        assert line.startswith("warn")
        assert "address:127.0.0.1" in line
        assert "trusted_proxies" in line


# -- what a state may lose ---------------------------------------------------------------------------------------------

CLAIM = """version: 1
name: claims
routes:
  - name: digits
    api: kserve_v1
    outputs: {kind: probabilities, classes: [a, b]}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 1000}
    defences: [{kind: dp_gaussian, noise_multiplier: 20.0}]
    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6}]
"""
ACCEPTED = CLAIM.replace("records: 1000", "records: 1000, accept_lost_writes: one host without failover")
DURABLE = "what was charged survives a crash and a power cut"


def look(url: str, policy: str, folder: Path) -> list[Finding]:
    (folder / "claims.yaml").write_text(policy)
    plan = load_plan(folder / "claims.yaml", api="kserve_v1", env={})
    return asyncio.run(durability_findings(url, plan))


def test_sqlite_loses_nothing(tmp_path: Path) -> None:
    assert look(f"sqlite:{tmp_path / 'guard.db'}", CLAIM, tmp_path) == [Finding("ok", "durability", DURABLE)]


def test_a_state_that_cannot_be_asked_is_told_of_elsewhere(tmp_path: Path) -> None:
    assert look("redis://127.0.0.1:1", CLAIM, tmp_path) == []
    assert look("unknown:", CLAIM, tmp_path) == []


def test_memory_cannot_bear_a_claim_and_is_no_news_without_one(tmp_path: Path) -> None:
    (found,) = look("memory:", CLAIM, tmp_path)
    assert (found.level, found.what) == ("fail", "durability")
    assert "digits claim(s) differential privacy and does not accept that in words" in found.message
    assert look("memory:", POLICY, tmp_path) == []


def test_redis_is_told_what_to_set_and_a_claim_fails_without(tmp_path: Path) -> None:
    with Valkey(tmp_path / "valkey", "--appendonly", "no", "--maxmemory", "100mb") as server:
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        (plain,) = look(server.url, POLICY, tmp_path)
        (claimed,) = look(server.url, CLAIM, tmp_path)
        (accepted,) = look(server.url, ACCEPTED, tmp_path)
        assert (plain.level, claimed.level, accepted.level) == ("warn", "fail", "warn")
        advice = "; set appendonly yes and appendfsync always, maxmemory-policy noeviction"
        assert all(advice in found.message for found in (plain, claimed, accepted))
        assert "accept_lost_writes" in claimed.message
        assert accepted.message.endswith("; digits accepts it: one host without failover")
        for setting in (("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")):
            server.command("CONFIG", "SET", *setting)
        assert look(server.url, CLAIM, tmp_path) == [Finding("ok", "durability", DURABLE)]


def test_doctor_fails_where_a_claim_cannot_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Valkey(tmp_path / "valkey", "--appendfsync", "everysec") as server:
        (tmp_path / "secret").write_text(SECRET)
        (tmp_path / "secret").chmod(0o600)
        options = ("--state", server.url, "--secret-file", str(tmp_path / "secret"))
        assert doctor(tmp_path, *options, policy=CLAIM) == 1
        assert "; set appendfsync always" in capsys.readouterr().out
        assert doctor(tmp_path, *options) == 0
