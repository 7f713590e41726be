"""`guard doctor` on a running Guard whose admin listener asks for a token, or serves TLS; a log that is all JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from guard.cli.main import main
from tests.support.authorities import Authority
from tests.support.model import model
from tests.support.processes import free_port, guard

pytestmark = pytest.mark.real

PLAIN = "version: 1\nroutes: [{api: open_inference}]\n"
TOKEN = "a-token-of-the-admin-listener"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GUARD_")]:
        monkeypatch.delenv(name)


def test_an_admin_listener_that_asks_for_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.yaml").write_text(PLAIN)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for file, text in ((right, TOKEN), (wrong, TOKEN.upper())):
        file.write_text(text)
        file.chmod(0o600)
    base = ["doctor", "--policy", str(tmp_path / "policy.yaml"), "--state", "memory:", "--admin"]
    with model(tmp_path) as behind:
        token = ("--admin-token-file", str(right))
        with guard(tmp_path / "policy.yaml", behind.url, tmp_path / "guard", *token) as running:
            assert main([*base, running.admin]) == 0
            assert "asks for a token; give --admin-token-file" in capsys.readouterr().out
            assert main([*base, running.admin, "--admin-token-file", str(wrong)]) == 1
            assert "knows another token" in capsys.readouterr().out
            assert main([*base, running.admin, *token]) == 0
            out = capsys.readouterr().out
            assert "asks for its token" in out
            assert "clients: 0 seen lately" in out
            assert TOKEN not in out
            assert TOKEN not in running.log.read_text()
    assert main([*base, f"127.0.0.1:{free_port()}"]) == 3


def test_an_admin_listener_behind_tls_is_known_by_the_certificate_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    Authority(tmp_path, "owner").server(cert, key)
    Authority(tmp_path, "stranger").server(other, tmp_path / "other.key")
    (tmp_path / "policy.yaml").write_text(PLAIN)
    served = ("--tls-cert", str(cert), "--tls-key", str(key), "--admin-tls")
    base = ["doctor", "--policy", str(tmp_path / "policy.yaml"), "--state", "memory:", "--admin"]
    with guard(tmp_path / "policy.yaml", f"http://127.0.0.1:{free_port()}", tmp_path / "guard", *served) as running:
        assert main([*base, running.admin, *served]) == 0
        assert "clients: 0 seen lately" in capsys.readouterr().out
        assert main([*base, running.admin, "--tls-cert", str(other), "--tls-key", str(tmp_path / "other.key")]) == 3
        assert main([*base, running.admin]) == 3


def test_a_log_of_json_is_json_from_the_first_line(tmp_path: Path) -> None:
    options = ("--api", "open_inference", "--log-format", "json", "--admin-token-file", str(tmp_path / "token"))
    (tmp_path / "token").write_text("a-token-of-the-admin-listener")
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nidentity: [{kind: client_certificate}]\nroutes: [{api: open_inference}]\n"
    )
    with guard(tmp_path / "policy.yaml", f"http://127.0.0.1:{free_port()}", tmp_path, *options) as running:
        running.running.send_signal(signal.SIGTERM)
        assert running.running.wait(20) == 0
    told = [json.loads(line) for line in running.log.read_text().splitlines()]
    assert any("names nobody" in line["event"] for line in told)
    assert "is guarded on http://127.0.0.1:" in told[-1]["event"]
    assert "a-token-of-the-admin-listener" not in running.log.read_text()
