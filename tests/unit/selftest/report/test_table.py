"""The table on the terminal: it fits, it survives pipes and poor terminals, and it says verdicts in words."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from guard.selftest.report.table import print_report
from guard.selftest.results import Report
from tests.unit.selftest.report import sample


def printed(report: Report, width: int = 104, *, colour: bool = False, encoding: str = "utf-8") -> str:
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


@pytest.mark.parametrize("width", [80, 104])
def test_names_figures_intervals_and_verdicts_are_whole(width: int) -> None:
    text = printed(sample.report(), width)
    for whole in (
        "tree_path_finding", "membership_threshold", ".963–.981", "accounts", "@3,001", "@193",  # noqa: RUF001
        "✓ held", "✗ not held", "? unresolved", "· not gated", "at least 0.1", "FAILED",
    ):  # fmt: skip
        assert whole in text, whole
    assert ("labels @193" in text) == (width == 104)
    assert ("equation_solving_softmax" if width == 104 else "equation_solving_ ") in text


@pytest.mark.parametrize("width", [80, 104])
def test_no_number_of_a_wide_row_is_cut(width: int) -> None:
    wide = sample.figure("accuracy", 0.939, 0.027, "graded answers weighed up", 1960)
    whole = sample.figure("accuracy", 1.0, 0.06)
    row = replace(
        sample.softmax(), metric="accuracy", undefended=whole, defended=whole, adaptive=wide, verdict="unresolved",
        floors={"label_only": whole, "zero_query": whole}, detected_at={"label_only": 1193, "denied": 3001},
    )  # fmt: skip
    text = printed(replace(sample.report(), attacks=[row]), width)
    for said in ("@1,193", "denied", "@3,001", "unresolved", "1.000", "weighed", ".940–1.060"):  # noqa: RUF001
        assert said in text, said
    assert "denied by the ladder (403)" in " ".join(text.split())


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
