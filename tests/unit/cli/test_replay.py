"""`guard replay` as a user meets it: options, exit codes, reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guard.cli.main import main
from tests.support.replays import record, some


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(record(tmp_path_factory.mktemp("cli"), some(12)))


def test_it_prints_what_would_change(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", recorded, "--policy", "label-only", "--api", "open_inference"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Replay under label-only, beside recorded\n")
    assert "12 requests, 48 rows, 3 clients" in out
    assert "replayed from bodies" in out


def test_a_gate_that_holds_fails_the_command(recorded: str, capsys: pytest.CaptureFixture[str]) -> None:
    gates = ["--fail-if", "shift_mean>0.01", "--fail-if", "top1_changed>0"]
    assert main(["replay", recorded, "--policy", "label-only", "--against", "observe", *gates]) == 1
    said = capsys.readouterr().err
    assert "--fail-if shift_mean>0.01: it is" in said
    assert "top1_changed" not in said


def test_reports_are_written(recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {kind: tmp_path / "deep" / f"r.{kind}" for kind in ("html", "json", "markdown", "text")}
    reports = [f"{kind}={path}" for kind, path in files.items()]
    options = ["--policy", "strict", "--against", "strict", "--from", "sketches", "--format", "json"]
    assert main(["replay", recorded, *options, "--report", *reports]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(files["json"].read_text())
    assert {**printed, "requests_per_second": 0} == {**written, "requests_per_second": 0}
    assert printed["policies"]["old"]["name"] == "strict (old)"
    assert printed["source"]["kind"] == "sketches"
    assert files["html"].read_text().startswith("<!doctype html>")
    assert files["markdown"].read_text().startswith("# Replay under strict")
    assert files["text"].read_text().startswith("Replay under strict")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--policy", "strickt"], 2, "strict"),
        (["--policy", "strict", "--fail-if", "refussed>0"], 2, "refused"),
        (["--policy", "strict", "--report", "pdf=x"], 2, "html"),
        (["--policy", "strict", "--limit", "0"], 2, "--limit"),
        (["--policy", "strict", "--since", "tomorrow"], 2, "2026-11-24"),
        (["--policy", "strict", "--since", "2999-01-01"], 5, "in that time"),
        (["--policy", "strict", "--route", "other"], 5, "route other"),
        (["--policy", "strict", "--secret-file", "/nowhere"], 2, "/nowhere"),
        ([], 2, "--policy"),
    ],
)
def test_what_is_wrong_is_said(
    recorded: str, options: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", recorded, *options]) == code
    assert said in capsys.readouterr().err


def test_another_secret_than_the_recordings_is_refused(
    recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("another secret, long enough")
    assert main(["replay", recorded, "--policy", "strict", "--secret-file", str(tmp_path / "secret")]) == 2
    assert "not the one that the recordings were made with" in capsys.readouterr().err


def test_an_empty_or_missing_directory_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path), "--policy", "strict"]) == 5
    assert "guard serve --record DIR" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "no"), "--policy", "strict"]) == 2
    assert "is no directory of recordings" in capsys.readouterr().err
    (tmp_path / "x.rec").write_bytes(b"not a recording\n")
    assert main(["replay", str(tmp_path), "--policy", "strict"]) == 2
    assert "x.rec: not a recording" in capsys.readouterr().err
