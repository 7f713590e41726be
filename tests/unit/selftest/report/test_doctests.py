"""The examples in the reports' docstrings hold."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["words", "verdict", "json_report", "baseline", "svg", "markdown"])
def test_doctests_hold(module: str) -> None:
    result = doctest.testmod(import_module(f"guard.selftest.report.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
