"""`guard doctor` on what Guard will be started with."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import pytest

from guard.cli.common import one_thread
from guard.cli.doctor import configure
from guard.cli.doctor_front import audit_findings, tls_findings, token_findings, tracing_findings
from guard.cli.findings import Finding
from guard.policy.load import load_plan
from guard.policy.plan import Plan
from tests.support.authorities import Authority

PLAIN = "version: 1\nroutes: [{api: open_inference}]\n"
NAMED = "version: 1\nidentity: [{kind: client_certificate}]\nroutes: [{api: open_inference}]\n"
TOKEN = "a-token-of-the-admin-listener"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one_thread()
    for name in [name for name in os.environ if name.startswith(("GUARD_", "OTEL_"))]:
        monkeypatch.delenv(name)


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args(given)


def plan(folder: Path, policy: str = PLAIN) -> Plan:
    (folder / "policy.yaml").write_text(policy)
    return load_plan(folder / "policy.yaml", api=None, env={})


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_plain_http_off_loopback_is_warned_of(tmp_path: Path) -> None:
    (found,) = tls_findings(options("--listen", "0.0.0.0:9000"), plan(tmp_path))
    assert (found.level, found.what) == ("warn", "tls")
    assert "speaks plain HTTP" in found.message
    assert tls_findings(options(), plan(tmp_path)) == []
    assert levels(tls_findings(options("--listen", "nowhere"), plan(tmp_path))) == ["fail"]


@pytest.mark.parametrize(
    ("days", "level", "words"), [(60, "ok", "59 days"), (10, "warn", "9 days"), (-1, "fail", "has expired")]
)
def test_certificates_are_looked_at(days: int, level: str, words: str, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    Authority(tmp_path, "owner").server(cert, key, days=days)
    (found,) = tls_findings(options("--tls-cert", str(cert), "--tls-key", str(key)), plan(tmp_path))
    assert found.level == level
    assert words in found.message
    key.chmod(0o604)
    findings = tls_findings(options("--tls-cert", str(cert), "--tls-key", str(key)), plan(tmp_path))
    assert "can be read by others" in findings[0].message


def test_certificates_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    given = options("--tls-cert", str(tmp_path / "none"), "--tls-key", str(tmp_path / "none"))
    assert "cannot be read" in tls_findings(given, plan(tmp_path))[0].message
    assert "needs both" in tls_findings(options("--tls-cert", "cert"), plan(tmp_path))[0].message


def test_a_policy_that_waits_for_certificates_nobody_asks_for_is_wrong(tmp_path: Path) -> None:
    owner, cert, key = Authority(tmp_path, "owner"), tmp_path / "cert.pem", tmp_path / "key.pem"
    owner.server(cert, key)
    given = ["--tls-cert", str(cert), "--tls-key", str(key)]
    assert levels(tls_findings(options(*given), plan(tmp_path, NAMED))) == ["fail", "ok"]
    assert levels(tls_findings(options(), plan(tmp_path, NAMED))) == ["fail"]
    given += ["--tls-client-ca", str(owner.file)]
    assert levels(tls_findings(options(*given), plan(tmp_path, NAMED))) == ["ok"]
    assert levels(tls_findings(options(*given), plan(tmp_path))) == ["warn", "ok"]


def test_the_admin_token_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert token_findings(None) == []
    assert "cannot be read" in token_findings(str(file))[0].message
    file.write_text("short")
    assert "at least 16 characters" in token_findings(str(file))[0].message
    file.write_bytes(b"\xff" * 20)
    assert "is no text" in token_findings(str(file))[0].message
    file.write_text(TOKEN + "\n")
    file.chmod(0o604)
    assert levels(token_findings(str(file))) == ["fail"]
    file.chmod(0o640)
    (found,) = token_findings(str(file))
    assert found.level == "ok"
    assert TOKEN not in found.message


def test_the_audit_log_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    assert audit_findings(None, plan(tmp_path)) == audit_findings("stdout", plan(tmp_path)) == []
    assert levels(audit_findings("fil:x", plan(tmp_path))) == ["fail"]
    assert "there is no folder" in audit_findings(f"file:{tmp_path / 'none' / 'log'}", plan(tmp_path))[0].message
    assert "MiB left" in audit_findings(f"file:{file}", plan(tmp_path))[-1].message
    file.touch(0o604)
    file.chmod(0o604)
    assert "can be read by others" in audit_findings(f"file:{file}", plan(tmp_path))[0].message
    assert levels(audit_findings(f"file:{tmp_path}", plan(tmp_path))) == ["fail"]


async def test_tracing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await tracing_findings(options()) == []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert levels(await tracing_findings(options("--tracing"))) == ["ok"]
    assert levels(await tracing_findings(options("--tracing"))) == ["warn"]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert levels(await tracing_findings(options("--tracing"))) == ["fail"]
