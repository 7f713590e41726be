"""The systemd unit: verified, rated, and its own command run to see that what it forbids is never asked for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import ask, infer
from tests.support.debian import program
from tests.support.model import model
from tests.support.processes import ROOT, Guard, process

pytestmark = pytest.mark.real
UNIT = ROOT / "deploy" / "systemd" / "guard.service"
POLICY = """version: 1
name: host
routes:
  - name: digits
    api: open_inference
    inputs: {kind: vector, size: 2}
    detectors: default
    ladder: [{tier: any, false_alarm: 1.0e-3, action: alert}]
    defences: [{kind: grid, step: auto}]
    budgets: [{kind: rows, per: client, limit: 100}]
"""
SECRETS = ("noise-secret", "admin-token")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program("systemd-analyze", "systemd")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def members(group: str) -> set[str]:
    """Return the system calls of a group, and of those that it names."""
    found: set[str] = set()
    for line in analyze("syscall-filter", group).stdout.splitlines()[1:]:
        name = line.strip()
        found |= members(name) if name.startswith("@") else {name} if name and not name.startswith("#") else set()
    return found


def test_systemd_understands_every_line_and_finds_little_to_attack(tmp_path: Path) -> None:
    unit = tmp_path / "guard.service"
    unit.write_text(UNIT.read_text().replace("/opt/guard/bin/guard", sys.executable))  # it must be there
    verified = analyze("verify", str(unit))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    unit.write_text(unit.read_text() + "NoNewPriviliges=yes\n")
    assert "Unknown key" in analyze("verify", str(unit)).stderr  # it would say so
    rated = analyze("security", "--offline=yes", str(UNIT)).stdout
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated)
    assert level is not None
    assert float(level[1]) < 1.5


def test_secrets_are_handed_on_and_not_in_the_unit() -> None:
    assert settings("LoadCredential") == [f"{name}:/etc/guard/{name}" for name in SECRETS]
    given = dict(line.split("=", 1) for line in settings("Environment"))
    assert (given["GUARD_SECRET_FILE"], given["GUARD_ADMIN_TOKEN_FILE"]) == ("%d/noise-secret", "%d/admin-token")
    assert float(settings("TimeoutStopSec")[0]) > 20  # limits.drain_s


def child(running: subprocess.Popen[bytes]) -> int:
    """Return the process that strace has started."""
    return int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text())


async def test_guard_asks_the_kernel_for_nothing_that_the_unit_forbids(tmp_path: Path) -> None:
    for name in SECRETS:
        (tmp_path / name).write_text(name * 4)
    (tmp_path / "policy.yaml").write_text(POLICY)
    lines = " ".join(settings("Environment"))
    for inside in ("%d", "/etc/guard", "/var/lib/guard"):
        lines = lines.replace(inside, str(tmp_path))
    env = dict(pair.split("=", 1) for pair in lines.split())
    env |= {"GUARD_LISTEN": "127.0.0.1:0", "GUARD_ADMIN": "127.0.0.1:0"}
    (started,) = settings("ExecStart")
    assert started.split() == ["/opt/guard/bin/guard", "serve"]
    log, trace = tmp_path / "guard.log", tmp_path / "trace"
    strace = [str(program("strace", "strace")), "-f", "-qq", "-o", str(trace)]
    with model(tmp_path) as upstream:
        env["GUARD_UPSTREAM"] = upstream.url
        with process([*strace, sys.executable, "-m", "guard", "serve"], log, env) as running:
            guard = Guard(running, log)
            for number in range(20):
                assert (await ask(guard.port, "/v2/models/m/infer", infer([1.0, float(number)]))).status == 200
            inner = child(running)
            os.kill(inner, signal.SIGHUP)
            os.kill(inner, signal.SIGTERM)
            assert running.wait(30) == 0
    calls = trace.read_text(errors="replace").splitlines()
    asked = {found[1] for line in calls if (found := re.match(r"\d+ +(\w+)\(", line))}
    assert {"accept4", "epoll_pwait", "fdatasync"} & asked
    allowed, (kept_out,) = (
        members("@system-service"),
        [line[2:] for line in settings("SystemCallFilter") if "~" in line],
    )
    # This test may run as root, and only as root SQLite gives its files to the directory's owner.
    assert asked - (allowed - members(kept_out)) - {"fchown"} == set()
    assert not [line for line in calls if "PROT_WRITE|PROT_EXEC" in line]  # MemoryDenyWriteExecute
    families = set(re.findall(r"socket\((AF_\w+)", "\n".join(calls)))
    assert families <= set(settings("RestrictAddressFamilies")[0].split())
