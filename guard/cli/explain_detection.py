"""The part of `guard explain` on detection: what a client is watched for, what it leads to, and where levels end."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from guard.policy.guarantee import MEANING, UNSEEN, WHERE_IT_ENDS

if TYPE_CHECKING:
    from rich.console import Console

    from guard.policy.detection_words import Rule, Words


def detection_json(words: Words) -> dict[str, object]:
    """Return it for machines."""
    from guard.policy.detection_words import as_data

    ladder = [asdict(rule) | {"means": [spec.model_dump(mode="json") for spec in rule.means]} for rule in words.ladder]
    return as_data(words, ladder)


def show_detection(out: Console, words: Words) -> None:
    """Print it."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    out.print("\ndetection", style="bold")
    out.print(f"  {words.profile}")
    for tier in ("structure", "distribution"):
        if kinds := [kind for kind, of in words.on if of == tier]:
            out.print(f"  {tier}: {', '.join(kinds)}")
    for kind, why in words.off:
        out.print(f"  off: {kind} ({why})", style="dim")
    table = Table(title="ladder", title_justify="left")
    for column in ("when", "level", "ln e", "action", "holds"):
        table.add_column(column, overflow="fold")
    for rule in words.ladder:
        table.add_row(*map(Text, _row(rule)))
    out.print(table)
    for said in words.exceptions:
        out.print(f"  exception: {said}")
    for text in (MEANING, "A level does not hold for, or beyond:"):
        out.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)))
    for end in WHERE_IT_ENDS:
        out.print(Padding(Text(f"- {end}", style="dim"), (0, 0, 0, 4)))
    out.print(Padding(Text(UNSEEN, style="dim"), (0, 0, 0, 2)))


def _row(rule: Rule) -> tuple[str, str, str, str, str]:
    from guard.cli.check import describe
    from guard.policy.detection_words import duration

    means = ", ".join(map(describe, rule.means))
    if rule.rows_per_minute is not None:
        means = f"{rule.rows_per_minute} rows a minute"
    threshold = "" if rule.threshold is None else f"{rule.threshold:.2f}"
    action = f"{rule.action}: {means}" if means else rule.action
    return rule.when, rule.level, threshold, action, duration(rule.hold_s)
