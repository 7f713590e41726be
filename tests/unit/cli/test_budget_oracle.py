"""A plan is held against opacus: agreement is said, disagreement printed instead of the plan, silence is neither."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING

import pytest

from guard.cli.common import Exit
from tests.support.plans import USEFUL, document, plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.plans import Capture

FAKE = """#!{python}
import json, os, sys
request = json.loads(sys.stdin.readline())
assert request["answers"] == 1000 and request["noise_multipliers"] == [20.648], request
figures = {{
    "opacus": "9.9", "notes": [],
    "rdp": {{"epsilon": 8.52, "answers": 897, "noise_multiplier": 21.8}},
    "prv": {{"epsilon": 8.04, "error": 0.04, "noise_multiplier": 20.8}},
}}
{more}
print(json.dumps(figures))
"""


def fake(folder: Path, more: str = "") -> str:
    """Make an interpreter that gives an oracle's answer, whatever it is told to run."""
    path = folder / "python"
    path.write_text(FAKE.format(python=sys.executable, more=more))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_plan_that_opacus_agrees_with_says_so(capsys: Capture, tmp_path: Path) -> None:
    code, out, err = plan(capsys, *USEFUL, "--oracle-python", fake(tmp_path))
    assert code == Exit.OK
    assert "asking opacus" in err
    assert "opacus 9.9: epsilon of 1,000 answers is 7.96 to 8.04" in " ".join(out.split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("figures['prv']['epsilon'] = 8.2", ("7.9998", "8.12")),
        ("figures['prv']['noise_multiplier'] = 22", ("20.648", "21.67")),
        ("figures['rdp']['epsilon'] = 7.5", ("7.9998", "7.5")),
        ("figures['rdp']['answers'] = 1100", ("1,000", "1,100")),
    ],
)
def test_a_plan_that_opacus_disagrees_with_is_not_printed(
    more: str, words: tuple[str, str], capsys: Capture, tmp_path: Path
) -> None:
    svg = tmp_path / "plan.svg"
    code, out, err = plan(capsys, *USEFUL, "--oracle-python", fake(tmp_path, more), "--svg", str(svg))
    assert (code, out) == (Exit.FAILED, "")
    assert not svg.exists()
    assert "disagree, so no plan is printed" in err
    assert all(word in err for word in words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("figures = {'error': 'opacus cannot be imported: gone'}", "opacus cannot be imported: gone"),
        ("figures['prv']['epsilon'] = float('nan')", "no number"),
        ("figures['rdp']['epsilon'] = '8'", "not the oracle's"),
        ("del figures['prv']", "not the oracle's"),
        ("figures = []", "not the oracle's"),
        ("print('hello'); sys.exit()", "gave no answer"),
        ("figures = {'error': sorted(n for n in os.environ if n.startswith('GUARD_'))}", ": []"),
    ],
)
def test_an_oracle_that_was_named_and_cannot_be_compared_is_out_of_reach(
    more: str, words: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_SECRET", "never to be passed on")
    code, out, err = plan(capsys, *USEFUL, "--oracle-python", fake(tmp_path, more))
    assert (code, out) == (Exit.UNREACHABLE, "")
    assert words in err
    assert "pip install torch" in err


def test_an_interpreter_that_is_not_there_or_lacks_opacus_is_out_of_reach(capsys: Capture) -> None:
    for python, words in (("/nowhere/python", "cannot be started"), (sys.executable, "opacus cannot be imported")):
        code, _, err = plan(capsys, *USEFUL, "--oracle-python", python)
        assert code == Exit.UNREACHABLE
        assert words in err


def test_what_opacus_has_no_figure_for_is_told_and_is_no_agreement(capsys: Capture, tmp_path: Path) -> None:
    more = "figures['rdp']['epsilon'] = figures['prv']['epsilon'] = None; figures['notes'] = ['too small']"
    said = document(capsys, *USEFUL, "--oracle-python", fake(tmp_path, more))
    assert said["cross_check"]["status"] == "failed"
    assert any("too small" in line for line in said["cross_check"]["said"])


def test_without_opacus_a_plan_says_that_nobody_checked_it(capsys: Capture) -> None:
    assert "not cross-checked: pip install torch==2.13.0 then model-guard[dp]" in plan(capsys, *USEFUL)[1]
    laplace = document(capsys, *USEFUL, "--mechanism", "dp_laplace", "--oracle-python", "/nowhere/python")
    assert laplace["cross_check"]["status"] == "not Gaussian"
