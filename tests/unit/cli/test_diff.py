"""`guard diff` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guard.cli.main import main


def test_exit_codes_are_those_of_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "strict", "strict"]) == 0
    assert capsys.readouterr().out == "strict and strict: nothing changes\n"
    assert main(["diff", "balanced", "strict"]) == 1
    out = capsys.readouterr().out
    assert out.index("looser: clients may learn more") < out.index("stricter: clients may learn less")
    assert main(["diff", "strict", "strickt"]) == 2
    assert "did you mean strict" in capsys.readouterr().err


def test_a_refund_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, ledger in (("old", "a"), ("new", "b")):
        text = f"version: 1\nroutes:\n  - ledger: {ledger}\n    budgets: [{{kind: rows, limit: 5}}]\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    assert main(["diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml")]) == 1
    assert "  !! route default: budgets are kept under the ledger b instead of a" in capsys.readouterr().out


def test_json_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "observe", "balanced", "--api", "mlflow", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["old"]["name"] == "observe"
    assert {change["way"] for change in found["changes"]} == {"stricter", "neutral"}
    assert all(change["path"] and change["said"] for change in found["changes"])
    assert found["consequences"]
