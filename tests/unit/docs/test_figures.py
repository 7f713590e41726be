"""The threat model's figures are those of the self-test's table."""

from __future__ import annotations

import re

from tests.support.pages import DOCS

_ROW = re.compile(r"^\|[^|]*`(\w+)`[^|]*\|(.*)\|$", re.MULTILINE)


def rows(page: str, after: str, before: str) -> dict[str, list[str]]:
    """Return a table's cells behind the first, by the name in code in the first."""
    part = (DOCS / page).read_text(encoding="utf-8").split(after)[1].split(before)[0]
    return {match[1]: [cell.strip() for cell in match[2].split("|")] for match in _ROW.finditer(part)}


def ends(cell: str) -> list[str]:
    return [end for end in cell.split(" to ") if end]


def same(shown: str, measured: str) -> bool:
    """Say whether a cell shows what was measured, rounded to as many decimals as it has."""
    if not ends(shown):
        return not ends(measured)
    decimals = len(ends(shown)[0].partition(".")[2])
    rounded = [round(float(end), decimals) for end in ends(measured)]
    return sorted({float(end) for end in ends(shown)}) == sorted(set(rounded))


def test_figures_of_the_threat_model_are_the_self_tests() -> None:
    measured = rows("selftest.md", "## All attacks, three presets", "## The attacks")
    shown = rows("threat-model.md", "## What each defence buys", "### Model extraction")

    assert len(shown) >= 10
    for attack, (_, without, balanced, strict, labels, never) in shown.items():
        _, *row = measured[attack]
        for cell, source in zip((without, labels, never, balanced, strict), row, strict=False):
            assert same(cell, source), (attack, cell, source)


def test_another_figure_would_be_seen() -> None:
    assert same(".86", "0.858 to 0.862")
    assert same(".94 to .96", "0.939 to 0.961")
    assert not same(".95 to .96", "0.939 to 0.961")
    assert not same("", "0.5")
