"""`guard check`: file, line, path and hint for every mistake; a summary when all is well; no secret in any of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guard.cli.check import describe, print_problems
from guard.cli.main import main
from guard.errors import PolicyError, Problem

BAD = """version: 1
routes:
  - name: digits
    api: open_inference
    defences:
      - {kind: top_k, kk: 3}
      - {kind: rond, decimals: 2}
"""
FINE = """version: 1
name: mine
identity: [{kind: api_key, keys_file: keys}]
routes:
  - name: digits
    api: open_inference
    defences: [{kind: round, decimals: 2}]
    budgets: [{kind: rows, limit: 5, window: 90m}, {kind: rows, limit: 9, window: 90}]
"""


def write(folder: Path, text: str, name: str = "policy.yaml") -> str:
    (folder / "keys").write_text("")
    (folder / name).write_text(text)
    return str(folder / name)


def test_every_mistake_is_shown_with_its_place_line_and_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, BAD)
    assert main(["check", path]) == 2
    out = capsys.readouterr().out
    assert f"{path}:6: routes[0].defences[0].kk: there is no key kk here" in out
    assert "    6 |       - {kind: top_k, kk: 3}" in out
    assert "hint: did you mean k?" in out
    assert f"{path}:7: routes[0].defences[1].kind: there is no kind rond here" in out
    assert "did you mean round?" in out
    assert "3 problems" in out


def test_a_fine_policy_gets_a_summary_of_its_routes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, FINE)
    assert main(["check", path]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"{path}: fine. mine, enforce, digest " in captured.out
    assert "digits: open_inference, probabilities, enforce | defences round(decimals=2)" in captured.out
    assert "window=90m" in captured.out
    assert "window=90s" in captured.out


def test_several_policies_are_checked_and_one_bad_one_fails_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(tmp_path, FINE), "strict", write(tmp_path, BAD, "bad.yaml")]) == 2
    out = capsys.readouterr().out
    assert out.count(": fine.") == 2


def test_presets_are_fine_by_name_and_say_what_serve_takes_them_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "observe", "balanced", "strict", "label-only"]) == 0
    out = capsys.readouterr().out
    assert "no API is named" in out
    assert "taken for open_inference" in out
    assert main(["check", "balanced", "--api", "open_inference"]) == 0
    out = capsys.readouterr().out
    assert "no API is named" not in out
    assert "warning: identity: budgets are per client" in out


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--format", "json", write(tmp_path, FINE), write(tmp_path, BAD, "bad.yaml")]) == 2
    fine, bad = json.loads(capsys.readouterr().out)
    assert (fine["ok"], fine["problems"], fine["name"], fine["mode"]) == (True, [], "mine", "enforce")
    assert fine["routes"][0]["defences"] == [{"kind": "round", "mode": "enforce", "decimals": 2}]
    assert any("infer" in endpoint for endpoint in fine["routes"][0]["endpoints"])
    assert bad["ok"] is False
    assert {p["line"] for p in bad["problems"]} == {6, 7}
    assert bad["digest"] is None


def test_detection_is_summed_up_and_its_regrets_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ladder = "[{false_alarm: 1e-2}, {tier: structure, false_alarm: 1e-3, action: deny}]"
    ended = "[{client: alice, skip: [repeats], until: 2020-01-01, reason: a scan}]"
    path = write(tmp_path, FINE + f"    ladder: {ladder}\n    exceptions: {ended}\n")
    assert main(["check", path]) == 0
    out = capsys.readouterr().out
    assert "| ladder alert > deny" in out
    assert f"{path}:9: warning: routes[0].ladder: without a profile" in out
    assert f"{path}:10: warning: routes[0].exceptions[0].until: the exception of alice has ended" in out
    assert main(["check", "--format", "json", path]) == 0
    ((told,),) = [result["routes"] for result in json.loads(capsys.readouterr().out)]
    assert told["levels"] == ["alert: nominal(0.01): no profile", "deny: nominal(0.001): no profile"]
    assert told["off"]["mahalanobis"] == "needs a profile"


def test_contradictions_are_found_as_the_server_finds_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FINE.replace("[{kind: round, decimals: 2}]", "[{kind: round, decimals: 2}, {kind: noise, scale: .1}]")
    assert main(["check", write(tmp_path, text)]) == 2
    assert ":7: routes[0].defences[1]: noise after round" in capsys.readouterr().out


def test_without_a_policy_it_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    assert "which policy?" in capsys.readouterr().err


def test_the_option_is_taken_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--policy", "strict", "--api", "open_inference"]) == 0
    assert "strict: fine" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["value: hunter2", '"value" : hunter2', "value: 'hunter2"])
def test_a_secret_that_was_written_out_is_not_shown(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"version: 1\nroutes: [{{api: open_inference}}]\nupstream_headers:\n  - name: a\n    {line}\n"
    assert main(["check", write(tmp_path, text)]) == 2
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err


def test_a_problem_without_a_readable_line_is_shown_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "a: 1\n")
    found = [
        Problem("gone", "a", 1, "", str(tmp_path / "none.yaml")),
        Problem("short", "a", 9, "", path),
        Problem("nowhere"),
        Problem("top", "routes", 1, "h", path),
    ]
    print_problems(PolicyError(found, path))
    err = capsys.readouterr().err
    assert " | " not in err
    assert f"{path}: nowhere" in err


def test_a_spec_is_described_by_what_was_given() -> None:
    assert describe(3) == "int"


def test_control_characters_of_a_file_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(tmp_path, "version: 2 # \x1b[31m\n")]) == 2
    assert "\x1b" not in capsys.readouterr().out
