"""Markdown for pull requests: tables that hold together and text that is shown as it is."""

from __future__ import annotations

import re

import pytest

from guard.selftest.report.markdown import escape, render
from tests.unit.selftest.report import sample


@pytest.mark.parametrize("case", sample.EVERY)
def test_tables_have_as_many_cells_in_every_line(case: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", render(sample.EVERY[case]()), re.MULTILINE):
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_gates_attacks_and_what_would_help_are_told() -> None:
    text = render(sample.report())
    assert text.startswith("## Guard attack self-test: failed")
    assert "| membership\\_lira: auc | at most 0.7 | 0.930 [0.910, 0.950] | ✗ **not held** |" in text
    assert "membership\\_lira, what would help: train without memorising" in text
    assert "good\\_words is unresolved: the control" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1. x", "1\\. x"),
        ("- x", "\\- x"),
        ("www.evil.example", "www<!-- -->.evil.example"),
        ("a@b", "a@<!-- -->b"),
        ("<!-- x", "\\<\\!-- x"),
        ("a\nb", "a b"),
    ],
)
def test_nothing_is_marked_up_by_accident(text: str, shown: str) -> None:
    assert escape(text) == shown
