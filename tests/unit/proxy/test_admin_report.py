from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from guard.proxy.admin_report import MOST_BYTES, ReportFile, summary
from guard.selftest.results import Figure, GateResult, Report, Row, Utility, as_data


def report() -> Report:
    held = GateResult("copy", "surrogate_l1", "min", 0.05, 0.125, True)
    failed = GateResult("utility", "mean_l1", "max", 0.01, 0.02, False)
    unknown = GateResult("lira", "auc", "max", 0.7, None, None, "no shadow models")
    figure = Figure(0.125, 0.1, 0.15, "surrogate_l1")
    row = Row(
        name="copy",
        title="copy it",
        threat="model extraction",
        atlas="AML.T0024.002",
        source="somebody 2016",
        published="99%",
        victim="digits",
        parameters={},
        metric="surrogate_l1",
        queries=650,
        undefended=None,
        defended=figure,
        adaptive=figure,
        attackers=[figure],
        floors={"zero_query": figure},
        control_met=True,
        criterion="a distance",
        detected_at=None,
        gates=[held],
        held=True,
        verdict="held",
    )
    return Report(
        policy="bank",
        digest="ab" * 32,
        target="lab",
        route="r",
        mode="quick",
        seed=0,
        seeds=1,
        started="2026-11-26T09:00:00+00:00",
        seconds=60.0,
        versions={},
        hardware="2 cores",
        substitutions=[],
        attacks=[row],
        utility=[Utility("digits", 0.0, 0.01, None, None, 1.0, 2.0, 0.0, 100)],
        gates=[held, failed, unknown],
        passed=False,
    )


def test_a_report_in_short() -> None:
    found = summary(json.loads(json.dumps(as_data(report()))))
    assert (found["policy"], found["digest"], found["passed"]) == ("bank", "ab" * 32, False)
    assert found["gates"] == {"passed": 1, "failed": 1, "unresolved": 1}
    assert [(gate["subject"], gate["value"]) for gate in found["failed"]] == [("utility", 0.02), ("lira", None)]
    (attack,) = found["attacks"]
    assert (attack["undefended"], attack["adaptive"]["value"]) == (None, 0.125)
    assert attack["floors"]["zero_query"] == {"value": 0.125, "low": 0.1, "high": 0.15}
    assert found["utility"][0]["added_p99_ms"] == 2.0


async def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    file = ReportFile(path)
    assert await file.look() == {"problem": "report.json cannot be read: No such file or directory"}
    path.write_text(json.dumps(as_data(report())))
    first = await file.look()
    assert first is not None
    assert first["policy"] == "bank"
    assert await file.look() is first
    path.write_text(json.dumps({**as_data(report()), "policy": "other"}))
    second = await file.look()
    assert second is not None
    assert second["policy"] == "other"
    path.unlink()
    assert "problem" in (await file.look() or {})


async def test_without_a_file_there_is_nothing_to_show() -> None:
    assert await ReportFile(None).look() is None


def broken(**members: Any) -> str:  # Any: JSON
    return json.dumps({**as_data(report()), **members})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        broken(gates=[{}]),
        broken(attacks=[3]),
        broken(policy=3),
        broken(attacks=[{"floors": []}]),
    ],
)
async def test_what_is_no_report_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    assert await ReportFile(path).look() == {
        "problem": "report.json is not a report of guard selftest --report json=report.json"
    }


@pytest.mark.parametrize("value", ["0.1", True, [], {}])
def test_a_figure_that_is_no_number_is_refused(value: object) -> None:
    data = json.loads(broken())
    data["attacks"][0]["adaptive"]["value"] = value
    with pytest.raises(TypeError):
        summary(data)


async def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), MOST_BYTES + 1)
    assert await ReportFile(path).look() == {"problem": "report.json is larger than 16 MB"}


def test_texts_and_lists_are_cut() -> None:
    data = json.loads(broken(policy="x" * 5000))
    data["attacks"] *= 200
    found = summary(data)
    assert (len(found["policy"]), len(found["attacks"])) == (200, 64)
