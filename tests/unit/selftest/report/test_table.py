"""The table on the terminal: it fits, it survives pipes and poor terminals, and it says verdicts in words."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from guard.selftest.report.table import print_report
from guard.selftest.results import Report
from tests.unit.selftest.report import sample


def printed(report: Report, width: int = 100, *, colour: bool = False, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_report(
        report, Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None)
    )
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("case", sample.EVERY)
def test_it_fits(case: str, width: int) -> None:
    text = printed(sample.EVERY[case](), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 100])
def test_names_figures_intervals_and_verdicts_are_whole(width: int) -> None:
    text = printed(sample.report(), width)
    for whole in (
        "tree_path_finding", "membership_threshold", ".963–.981", "split accounts", "deny @3,001",  # noqa: RUF001
        "labels @193", "✓ held", "✗ not held", "? unresolved", "· not gated", "at least 0.1", "FAILED",
    ):  # fmt: skip
        assert whole in text, whole
    assert ("equation_solving_softmax" if width == 100 else "equation_solving_ ") in text


def test_colour_is_only_for_terminals() -> None:
    assert "\x1b[32m" in printed(sample.report(), colour=True)


def test_hostile_names_cannot_drive_the_terminal_nor_mark_up() -> None:
    text = printed(sample.hostile())
    assert "\x1b" not in text
    assert "[31m" in text
    assert "\u202e" not in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_poor_terminal_loses_no_report(encoding: str) -> None:
    text = printed(sample.report(), encoding=encoding)
    assert "x not held" in text
    assert ".963-.981" in text


def test_partial_comes_first_and_unresolved_rows_say_why() -> None:
    text = printed(sample.report(partial=True))
    assert text.startswith("PARTIAL")
    assert "good_words: the control reached passed 0.600 and must reach 0.95" in text


def test_live_shows_no_credentials_and_no_control() -> None:
    text = printed(sample.live())
    assert "secret" not in text
    assert "guard.example" in text
