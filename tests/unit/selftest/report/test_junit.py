"""JUnit: CI shows the figure that fails."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from guard.selftest.report.junit import render
from guard.selftest.results import Report
from tests.unit.selftest.report import sample


def suite(report: Report) -> ET.Element:
    found = ET.fromstring(render(report)).find("testsuite")
    assert found is not None
    return found


def messages(report: Report, kind: str) -> list[str]:
    return [str(trouble.get("message")) for trouble in suite(report).iter(kind)]


def test_a_failing_gate_shows_figure_interval_and_limit() -> None:
    assert messages(sample.report(), "failure") == [
        "membership_lira auc is 0.930 [0.910, 0.950] and must be at most 0.7"
    ]
    assert messages(sample.report(), "error") == [
        "good_words passed could not be judged: nothing was measured",
        "good_words is unresolved: the control reached passed 0.600 and must reach 0.95",
    ]


def test_counts_are_those_of_the_cases() -> None:
    made = suite(sample.report())
    assert (made.get("tests"), made.get("failures"), made.get("errors")) == ("5", "1", "2")


@pytest.mark.parametrize("case", sample.EVERY)
def test_green_only_when_the_self_test_passed(case: str) -> None:
    report = sample.EVERY[case]()
    green = not messages(report, "failure") and not messages(report, "error")
    assert green is (case in ("passing", "live"))
    assert len(suite(report).findall("testcase")) >= 1


def test_a_run_that_did_not_pass_is_never_green() -> None:
    assert messages(sample.passing(passed=False), "error") == ["the self-test did not pass"]


def test_partial_is_the_first_case() -> None:
    first = suite(sample.report(partial=True))[0]
    assert first.find("error") is not None
    assert first.get("name") == "complete"
