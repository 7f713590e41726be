"""`guard serve`: what it refuses to start with, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from guard.cli.main import main
from guard.cli.serve_options import address, join
from tests.support.clients import admin
from tests.support.model import model
from tests.support.processes import ROOT, free_port, guard


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GUARD_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9000", ("::1", 9000)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert address(text, "--listen") == expected


@pytest.mark.parametrize("text", ["", "9000", "host:", "host:port", "host:65536", "host:-1", "http://host:80/"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="--listen must be HOST:PORT"):
        address(text, "--listen")


def test_addresses_are_written_as_they_are_read() -> None:
    assert join(("::1", 9000)) == "[::1]:9000"
    assert join(("127.0.0.1", 9000)) == "127.0.0.1:9000"


NO_MODEL = ["--policy", "observe", "--api", "mlflow", "--state", "memory:"]
ENFORCED = ["--policy", "balanced", "--api", "mlflow", "--state", "memory:"]
BASE = [*NO_MODEL, "--upstream", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--upstream", "http://127.0.0.1:1"], 2, "--policy is missing"),
        (["--policy", "observe"], 2, "--upstream is missing"),
        ([*BASE, "--listen", "9000"], 2, "--listen must be HOST:PORT"),
        ([*BASE, "--admin", "0.0.0.0:9001"], 2, "off loopback it needs"),
        ([*BASE, "--admin", "[::]:9001"], 2, "off loopback it needs"),
        ([*BASE, "--admin-token-file", "/nowhere"], 2, "/nowhere"),
        ([*BASE, "--admin-token-file", "/dev/null"], 2, "at least 16 characters"),
        ([*BASE, "--admin-token-file", sys.executable], 2, "is no text"),
        ([*BASE, "--tls-cert", "cert.pem"], 2, "needs both --tls-cert and --tls-key"),
        ([*BASE, "--tls-client-ca", "ca.pem"], 2, "needs both --tls-cert and --tls-key"),
        ([*BASE, "--admin-tls"], 2, "needs both --tls-cert and --tls-key"),
        ([*BASE, "--tls-cert", "a", "--tls-key", "b", "--tls-client-required"], 2, "needs --tls-client-ca"),
        ([*BASE, "--tls-cert", "/nowhere", "--tls-key", "/nowhere"], 2, "/nowhere cannot be read"),
        ([*NO_MODEL, "--upstream", "127.0.0.1:8080"], 2, "--upstream must be http://"),
        ([*NO_MODEL, "--upstream", "ftp://model"], 2, "--upstream must be http://"),
        ([*NO_MODEL, "--upstream", "http://127.0.0.1:9000"], 2, "round in circles"),
        ([*NO_MODEL, "--upstream", "https://127.0.0.1", "--listen", "127.0.0.1:443"], 2, "round in circles"),
        ([*NO_MODEL, "--upstream", "http://127.0.0.1", "--listen", "127.0.0.1:80"], 2, "round in circles"),
        ([*NO_MODEL, "--upstream", "a=http://127.0.0.1:1", "--upstream", "b=http://localhost:9000"], 2, "in circles"),
        ([*NO_MODEL, "--upstream", "http://127.0.0.1:1", "--upstream", "b=http://127.0.0.1:2"], 2, "needs a name"),
        ([*NO_MODEL, "--upstream", "a=http://127.0.0.1:1", "--upstream", "b=http://127.0.0.1:2"], 2, "asks one model"),
        ([*NO_MODEL, "--upstream-file", "/nowhere"], 2, "/nowhere"),
        ([*NO_MODEL, "--grpc-listen", ":0"], 2, "--grpc-upstream is missing"),
        ([*BASE, "--grpc-listen", ":0"], 2, "needs both --grpc-listen and --grpc-upstream"),
        ([*NO_MODEL, "--grpc-upstream", "grpc://127.0.0.1:1"], 2, "needs both --grpc-listen and --grpc-upstream"),
        ([*NO_MODEL, "--grpc-listen", ":x", "--grpc-upstream", "grpc://127.0.0.1:1"], 2, "--grpc-listen must be"),
        ([*NO_MODEL, "--grpc-listen", ":0", "--grpc-upstream", "http://127.0.0.1:1"], 2, "must be grpc://HOST:PORT"),
        ([*NO_MODEL, "--grpc-listen", ":2", "--grpc-upstream", "grpc://127.0.0.1:2"], 2, "round in circles"),
        ([*ENFORCED, "--grpc-listen", ":0", "--grpc-upstream", "grpc://127.0.0.1:1"], 2, "no route of the policy can"),
        ([*BASE, "--policy", "balancd"], 2, "balanced"),
        ([*BASE, "--api", "mlflw"], 2, "mlflow"),
    ],
)
def test_what_it_does_not_start_with(
    arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == code
    assert told in capsys.readouterr().err


def test_a_quorum_of_more_models_than_there_are_is_a_bad_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nroutes: [{name: votes, api: mlflow, ensemble: {aggregate: vote, quorum: 3}}]\n")
    models = ["--upstream", "a=http://127.0.0.1:1", "--upstream", "b=http://127.0.0.1:2"]
    options = ["--listen", "127.0.0.1:0", "--admin", "off"]
    assert main(["serve", *NO_MODEL, *models, "--policy", str(policy), *options]) == 2
    told = capsys.readouterr().err
    assert "route votes needs the answers of 3 models" in told
    assert "--upstream names 2" in told


def test_a_state_or_secret_that_cannot_be_used_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = ["--listen", "127.0.0.1:0", "--admin", "off"]
    assert main(["serve", *BASE, *free, "--state", f"sqlite:{tmp_path / 'nowhere' / 'guard.db'}"]) == 3
    assert main(["serve", *BASE, *free, "--secret-file", str(tmp_path / "nowhere")]) == 3
    assert main(["serve", *BASE, *free, "--state", "redis://127.0.0.1:1"]) == 3
    assert "GUARD_SECRET" in capsys.readouterr().err


def test_an_address_that_is_taken_is_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", *BASE, "--listen", f"127.0.0.1:{port}", "--admin", "off"]) == 3
    assert "cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_on_a_signal_and_leaves_no_port(number: signal.Signals, tmp_path: Path) -> None:
    with guard("observe", f"http://127.0.0.1:{free_port()}", tmp_path, "--api", "mlflow") as running:
        running.running.send_signal(number)
        assert running.running.wait(20) == 0
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", running.port))
    assert "Traceback" not in running.log.read_text()


def test_without_an_admin_listener_there_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "guard", "serve", *BASE, "--listen", "127.0.0.1:0", "--admin", "off"]
    with log.open("wb") as out, subprocess.Popen(command, stderr=out, cwd=ROOT) as process:
        while "is guarded on" not in log.read_text():
            assert process.poll() is None, log.read_text()
        process.terminate()
        assert process.wait(20) == 0
    assert "admin" not in log.read_text()


def test_a_reload_that_the_models_do_not_fit_leaves_the_old_policy_in_force(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    text = "version: 1\nname: {}\nroutes: [{{api: mlflow, ensemble: {{aggregate: mean, quorum: {}}}}}]\n"
    policy.write_text(text.format("first", 2))
    models = "a=http://127.0.0.1:1 b=http://127.0.0.1:2,c=http://127.0.0.1:3"
    with guard(policy, models, tmp_path) as running:
        assert "an ensemble of 3 models is guarded on" in running.log.read_text()
        policy.write_text(text.format("second", 4))
        refused = admin(running, "/reload", post=True)
        assert refused.status == 409
        assert "needs the answers of 4 models" in refused.json["problems"][0]
        policy.write_text(text.format("third", 3))
        assert admin(running, "/reload", post=True).json["name"] == "third"


def test_readiness_names_the_models_that_do_not_answer(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nroutes: [{api: open_inference, ensemble: {aggregate: mean, quorum: 2}}]\n")
    with model(tmp_path) as one, model(tmp_path / "b") as two:
        models = tmp_path / "models"
        models.write_text(f"# three\na={one.url}\nb={two.url}\nc=http://127.0.0.1:{free_port()} # gone\n")
        with guard(policy, None, tmp_path, "--upstream-file", str(models)) as running:
            assert admin(running, "/readyz").status == 200
            policy.write_text(policy.read_text().replace("quorum: 2", "quorum: 3"))
            assert admin(running, "/reload", post=True).status == 200
            why = admin(running, "/readyz").json["checks"]["upstream"]["why"]
            assert why == "2 of 3 models answer; not c (upstream cannot be reached); quorum 3"


def test_warnings_of_the_policy_are_told_at_start_up(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nroutes: [{api: mlflow, budgets: [{kind: rows, per: client, limit: 9}]}]\n")
    with guard(policy, f"http://127.0.0.1:{free_port()}", tmp_path) as running:
        assert "WARNING guard: " in running.log.read_text()
        reply = admin(running, "/readyz")
        assert reply.status == 503
        assert reply.json["checks"]["state"] == {"ok": True}
        assert reply.json["checks"]["upstream"]["ok"] is False


@pytest.mark.parametrize(
    ("option", "value"),
    [("--tracing-limit", "0"), ("--tracing-limit", "many"), ("--log-level", "loud"), ("--log-format", "xml")],
)
def test_values_that_are_none_are_told(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *BASE, option, value]) == 2
    assert option in capsys.readouterr().err
