"""`guard tune` as an operator runs it: what it writes is a policy that `check` accepts and whose self-test passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

GATE = "equation_solving_softmax:surrogate_l1:min=0.03"
POLICY = """version: 1
name: mine
identity: [{kind: api_key, header: x-api-key, keys_file: keys}]
routes:
  - name: first
    api: open_inference
    outputs: {kind: probabilities}
    budgets: [{kind: rows, per: client, limit: 9000, window: 24h, then: deny}]
"""


def guard(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=560, check=False, cwd=ROOT)


@pytest.mark.lab
def test_the_cheapest_policy_that_holds_is_written_checked_and_holds(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(POLICY)
    (tmp_path / "keys").write_text("")
    mine, tuned, plot = (str(tmp_path / name) for name in ("mine.yaml", "tuned.yaml", "front.svg"))
    done = guard("tune", "--policy", mine, "--gate", GATE, "--out", tuned, "--plot", plot)
    assert done.returncode == 0, done.stderr
    assert "chosen" in done.stdout
    assert "<svg" in Path(plot).read_text()
    text = Path(tuned).read_text()
    assert text.startswith("# Made by `guard tune`")
    assert "holds." in text
    assert "kind: grid" in text
    checked = guard("check", tuned)
    assert checked.returncode == 0, checked.stdout
    assert "limit=9000" in checked.stdout
    tested = guard("selftest", "--policy", tuned, "--only", "equation_solving_softmax")
    assert tested.returncode == 0, tested.stdout


def test_an_upstream_out_of_reach_exits_3(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f"[{i}.0, {i % 7}.0]\n" for i in range(80)))
    target = ("--upstream", "http://127.0.0.1:9", "--queries", str(tmp_path / "rows.jsonl"), "--model", "m")
    done = guard("tune", "--policy", "balanced", *target)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--policy is missing"),
        (("--policy", "observe"), "nothing says what must hold"),
        (("--policy", "observe", "--objective", "leakage"), "--max-mean-l1"),
        (("--policy", "observe", "--gate", "equation_solving_softmx:surrogate_l1:min=1"), "--gate cannot be read"),
        (("--policy", "observe", "--gate", "equation_solving_softmax:surrogate_l1"), "has no bound"),
        (("--policy", "observe", "--plot", "x.pdf"), ".svg or .png"),
        (("--policy", "observe", "--upstream", "http://127.0.0.1:9"), "--queries"),
    ],
)
def test_usage_is_told_before_anything_runs(arguments: tuple[str, ...], said: str) -> None:
    done = guard("tune", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
