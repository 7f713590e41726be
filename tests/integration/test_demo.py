"""`guard demo` as a newcomer runs it: a real model, a real theft, real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from guard.cli.main import main
from guard.selftest.processes import child
from tests.support.processes import ROOT

COMMAND = [sys.executable, "-m", "guard", "demo"]
NARROW = {**os.environ, "COLUMNS": "120"}


@pytest.fixture(scope="module")
def report() -> str:
    done = subprocess.run(
        [*COMMAND, "--once", "--seed", "0"],
        capture_output=True,
        text=True,
        env=NARROW,
        timeout=240,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.lab
def test_the_theft_through_guard_is_worth_less(report: str) -> None:
    found = {
        title: (int(answers), float(agreed), float(distance))
        for title, answers, agreed, distance in re.findall(
            r"(nobody: own labels|the model itself|through Guard)\s*│\s*(\d+)\s*│\s*([\d.]+)%\s*│\s*([\d.]+)", report
        )
    }
    assert {title: one[0] for title, one in found.items()} == {
        "nobody: own labels": 0,
        "the model itself": 650,
        "through Guard": 650,
    }
    bare, guarded, nobody = (found[t][2] for t in ("the model itself", "through Guard", "nobody: own labels"))
    assert bare < 0.001
    assert bare + 0.02 < guarded < nobody
    assert found["the model itself"][1] == 100.0


@pytest.mark.lab
def test_the_answers_through_guard_lie_on_the_grid(report: str) -> None:
    rows = re.findall(r"│\s*(\d)\s*│\s*([\d.e-]+)\s*│\s*([\d.e-]+)\s*│", report)
    assert [int(digit) for digit, _, _ in rows] == list(range(10))
    bare, guarded = ([float(row[i]) for row in rows] for i in (1, 2))
    assert sum(bare) == pytest.approx(1.0)
    assert sum(guarded) == pytest.approx(1.0)
    assert all(score * 20 == pytest.approx(round(score * 20), abs=1e-9) for score in guarded)
    assert any(score * 20 != pytest.approx(round(score * 20), abs=1e-9) for score in bare)
    assert bare.index(max(bare)) == guarded.index(max(guarded))


@pytest.mark.lab
def test_it_names_the_ports_and_leaves_none_behind(report: str) -> None:
    ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", report)]
    assert len(set(ports)) == 3
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def children(pid: int) -> list[int]:
    """Return the processes below one, as the kernel lists them."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    below = [int(child) for child in text.split()]
    return below + [grand for child in below for grand in children(child)]


@pytest.mark.lab
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_everything_that_it_started(number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "log"
    policy = tmp_path / "policy.yaml"
    # A budget of thirty answers keeps the theft short.
    budget = "{kind: rows, per: client, limit: 30, then: deny}"
    policy.write_text(f"version: 1\nroutes: [{{api: open_inference, budgets: [{budget}]}}]\n")
    command = [*COMMAND, "--policy", str(policy)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=NARROW, cwd=ROOT) as process:
        while "Ctrl-C ends everything" not in log.read_text():
            assert process.poll() is None, log.read_text()
        text = log.read_text()
        below = children(process.pid)
        assert len(below) == 2
        found = re.search(r"the model\s+(\S+)\s+Guard\s+(\S+)\s+console and metrics\s+(\S+)", text)
        assert found is not None
        upstream, guarded, admin = found.groups()
        for url in (upstream + "/v2/health/live", guarded + "/v2/health/live", admin + "/healthz"):
            with urllib.request.urlopen(url, timeout=20) as reply:
                assert reply.status == 200
        process.send_signal(number)
        assert process.wait(30) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)
    for url in (upstream, guarded, admin):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0
    assert "Traceback" not in text


def test_a_policy_that_guard_does_not_start_with_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nmod: enforce\n")
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["demo", "--once", "--policy", str(policy)]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "there is no key mod" in capsys.readouterr().err


def test_a_child_that_does_not_heed_sigterm_is_killed() -> None:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with child([sys.executable, "-c", deaf], patience_s=0.05) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "deaf\n"
    assert process.returncode == -signal.SIGKILL
