"""`guard selftest` as an operator runs it: real processes, exit codes, reports, an interrupt, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.selftest.lab.registry import victim
from guard.selftest.processes import lab
from tests.support.processes import ROOT

GATED = """version: 1
extends: balanced
name: gated
selftest:
  gates:
    - {{attack: equation_solving_softmax, metric: surrogate_l1, min: {least}}}
    - {{utility: top1_changed, max: 0.0}}
"""


def start(arguments: Sequence[str], mark: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "guard", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120", "LAB_MARK": mark},
        start_new_session=True,
    )


def guard(*arguments: str) -> tuple[int, str, str]:
    running = start(arguments)
    out, err = running.communicate(timeout=240)
    return running.returncode, out, err


def policy(folder: Path, least: float) -> str:
    path = folder / f"gated-{least}.yaml"
    path.write_text(GATED.format(least=least))
    return str(path)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    folder = tmp_path_factory.mktemp("held")
    reports = [f"--report={name}={folder / f'r.{name}'}" for name in ("json", "html", "junit", "markdown")]
    only = ("--quick", "--only", "equation_solving_softmax")
    code, out, err = guard("selftest", "--policy", policy(folder, 0.01), *only, *reports)
    assert err
    return code, out, folder


@pytest.mark.lab
def test_gates_that_hold_exit_0(held: tuple[int, str, Path]) -> None:
    code, out, _ = held
    assert code == 0
    assert "equation_solving_softmax" in out


@pytest.mark.lab
def test_the_reports_say_what_was_found(held: tuple[int, str, Path]) -> None:
    folder = held[2]
    report: Any = json.loads((folder / "r.json").read_text())  # Any: JSON
    assert (report["policy"], report["passed"], report["partial"], report["seed"]) == ("gated", True, False, 0)
    (row,) = report["attacks"]
    assert row["control_met"] is True
    assert row["undefended"]["value"] < 1e-6
    assert row["undefended"]["value"] < row["adaptive"]["value"] <= row["defended"]["value"]
    assert row["adaptive"]["value"] < row["floors"]["zero_query"]["value"]
    assert row["floors"]["zero_query"]["queries"] == 0
    assert {gate["metric"] for gate in report["gates"]} == {"surrogate_l1", "top1_changed"}
    assert [user["victim"] for user in report["utility"]] == ["breast_cancer", "digits", "digits_mlp"]
    assert all(user["top1_changed"] == 0.0 and user["refused"] == 0.0 for user in report["utility"])
    assert "<html" in (folder / "r.html").read_text()
    assert "<testsuite" in (folder / "r.junit").read_text()
    assert r"equation\_solving\_softmax" in (folder / "r.markdown").read_text()


@pytest.mark.lab
def test_a_gate_that_fails_exits_1_and_a_baseline_that_was_better_too(held: tuple[int, str, Path]) -> None:
    folder = held[2]
    code, out, _ = guard("selftest", "--policy", policy(folder, 1.5), "--quick", "--only", "equation_solving_softmax")
    assert code == 1
    assert "not held" in out
    open_policy = folder / "open.yaml"
    open_policy.write_text("version: 1\nroutes: [{api: open_inference, outputs: {kind: probabilities}}]\n")
    arguments = ("selftest", "--policy", str(open_policy), "--quick", "--only", "equation_solving_softmax")
    code, _, err = guard(*arguments, "--baseline", str(folder / "r.json"))
    assert code == 1
    assert "worse than the baseline" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--policy", "strict", "--only", "equation_solving_softmx"), 2, "did you mean equation_solving_softmax?"),
        (("--policy", "strict", "--report", "pdf=x"), 2, "pdf"),
        (("--policy", "strict", "--baseline", "/nowhere.json"), 2, "/nowhere.json"),
        (("--policy", "strict", "--route", "digits"), 2, "there is no route called digits"),
        (("--policy", "strict", "--upstream", "http://127.0.0.1:9"), 2, "--queries"),
        ((), 2, "--policy is missing"),
    ],
)
def test_usage_is_told_before_anything_runs(arguments: tuple[str, ...], code: int, said: str) -> None:
    found, _, err = guard("selftest", *arguments)
    assert found == code
    assert said in err


def test_an_upstream_out_of_reach_exits_3(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps([float(i), float(i % 7)]) + "\n" for i in range(80)))
    target = ("--upstream", "http://127.0.0.1:9", "--queries", str(rows), "--model", "m")
    code, _, err = guard("selftest", "--policy", "balanced", *target)
    assert code == 3, err


@pytest.mark.lab
def test_a_preset_holds_on_a_model_of_ones_own_as_far_as_it_can_be_asked_there(tmp_path: Path) -> None:
    model, rows, path = victim("digits", 0), tmp_path / "rows.jsonl", tmp_path / "r.json"
    assert isinstance(model.test_x, np.ndarray)
    rows.write_text("".join(json.dumps(row.tolist()) + "\n" for row in model.test_x))
    with lab(0) as url:
        target = ("--upstream", url, "--queries", str(rows), "--model", "digits", "--quick")
        only = ("--only", "equation_solving_softmax")
        code, out, err = guard("selftest", "--policy", "balanced", *target, f"--report=json={path}")
        assert code == 0, out + err
        assert guard("selftest", "--policy", "balanced", *target, *only, "--only", "good_words")[0] == 0
    report: Any = json.loads(path.read_text())  # Any: JSON
    assert report["target"] == url
    assert {row["victim"] for row in report["attacks"]} == {url}
    assert "tree_partial_inputs" not in {row["name"] for row in report["attacks"]}
    assert any("tree_partial_inputs and its gates" in warning for warning in report["warnings"])
    assert [user["victim"] for user in report["utility"]] == [url]


def marked(mark: str) -> list[int]:
    """Return the processes that carry a mark in their environment."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.lab
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_partial_report_and_no_process(tmp_path: Path, number: signal.Signals) -> None:
    mark, path = uuid.uuid4().hex, tmp_path / "r.json"
    only = ("--only", "equation_solving_softmax", "--only", "retrain_uniform", "--only", "hopskipjump")
    running = start(("selftest", "--policy", "balanced", *only, f"--report=json={path}", "--seed", "7"), mark)
    deadline = time.monotonic() + 120
    assert running.stderr is not None
    # The first cell that is done says so in a line of its own; a dozen are still to come.
    assert running.stderr.readline()
    assert time.monotonic() < deadline
    running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == 130
    report: Any = json.loads(path.read_text())  # Any: JSON
    assert report["partial"] is True
    assert report["passed"] is False
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert marked(mark) == []
