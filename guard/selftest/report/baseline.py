"""Compares a self-test with an earlier one: what got worse for the defender beyond chance.

Two attackers' figures differ when their 95% intervals do not overlap. Utility has no interval of its own: shares get
Wilson's, means of a bounded quantity the widest that their bounds allow (Bhatia and Davis 2000), so that noise raises
no alarm. Added latency is compared on the same hardware only, and coarsely.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from guard.selftest.measures import METRICS, safer_higher
from guard.selftest.report.json_report import Unreadable, parse
from guard.selftest.report.words import measured, metric_of, number, plain
from guard.selftest.results import Figure, Report, Row, Utility

Z = 1.959964
"""Of a 95% interval."""
ROUNDING = 1e-9
SLOWER_MS = 1.0
SLOWER_SHARE = 0.5


@dataclass(frozen=True)
class Regression:
    """Something that got worse.

    Args:
        subject: the attack's name, or `utility`.
        victim: on which model.
        metric: which figure.
        before: the old figure as text.
        now: the new one.
        message: the whole in a sentence.
    """

    subject: str
    victim: str
    metric: str
    before: str
    now: str
    message: str

    def __str__(self) -> str:
        return self.message


def load(path: str | Path) -> Report:
    """Return an earlier JSON report.

    Raises:
        Unreadable: the file cannot be read, is no report, or one of another schema version.
    """
    try:
        return parse(Path(path).read_text("utf-8"))
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path}: it is no text in UTF-8") from error
    except Unreadable as error:
        raise Unreadable(f"{path}: {error}") from error


def compare(old: Report, new: Report, asked: Collection[str] | None = None) -> list[Regression]:
    """Return what got worse for the defender.

    Args:
        old: the baseline.
        new: the self-test of now.
        asked: attacks that the new one was asked to run (`--only`); None for all. Others are not missed.
    """
    rows = {(row.name, row.victim): row for row in new.attacks}
    found: list[Regression] = []
    for row in old.attacks:
        if asked is None or row.name in asked:
            found += _attack(row, rows.get((row.name, row.victim)))
    models = {utility.victim: utility for utility in new.utility}
    for utility in old.utility:
        if utility.victim in models:
            found += _utility(utility, models[utility.victim], same_machine=old.hardware == new.hardware)
    return found


def mismatches(old: Report, new: Report) -> list[str]:
    """Return what makes the comparison doubtful, a sentence each."""
    found = [
        f"the baseline's {what} is {plain(getattr(old, what))}, this self-test's is {plain(getattr(new, what))}"
        for what in ("policy", "route", "target", "mode", "seed", "seeds")
        if getattr(old, what) != getattr(new, what)
    ]
    found += [f"the {which} was interrupted" for which, r in (("baseline", old), ("self-test", new)) if r.partial]
    rows = {(row.name, row.victim): row for row in new.attacks}
    for row in old.attacks:
        now = rows.get((row.name, row.victim))
        tried = {figure.wrapper for figure in now.attackers} if now else set[str]()
        if now and (gone := sorted({figure.wrapper for figure in row.attackers} - tried)):
            names = ", ".join(plain(name) or "published" for name in gone)
            found.append(f"{row.name}: attackers of the baseline that did not run: {names}")
    return found


def _attack(old: Row, new: Row | None) -> list[Regression]:
    was_held = old.verdict == "held"
    before = measured(old.adaptive)

    def worse(now: str, message: str) -> list[Regression]:
        return [Regression(old.name, old.victim, old.metric, before, now, message)]

    if new is None:
        return worse("missing", f"{old.name} on {old.victim} was held and did not run") if was_held else []
    if new.verdict == "unresolved":
        reason = plain(new.reason) or "no reason given"
        return worse("unresolved", f"{old.name} was held and is unresolved: {reason}") if was_held else []
    then, now = old.adaptive, _strongest(new, old.metric)
    if then is None or math.isnan(then.value) or old.metric not in METRICS:
        return []
    if now is None:
        return worse("missing", f"{old.name} was held and {old.metric} is not measured any more") if was_held else []
    if not _beyond(now, then):
        return []
    return worse(
        measured(now), f"{old.name} {old.metric}: the strongest attacker gets {measured(now)}, before {measured(then)}"
    )


def _strongest(row: Row, metric: str) -> Figure | None:
    found = [one for figure in (row.adaptive, *row.attackers) if (one := metric_of(figure, metric)) is not None]
    found = [figure for figure in found if not math.isnan(figure.value)]
    if not found:
        return None
    return (min if safer_higher(metric) else max)(found, key=lambda figure: figure.value)


def _beyond(now: Figure, then: Figure) -> bool:
    if safer_higher(now.metric):
        return now.high < then.low - ROUNDING
    return now.low > then.high + ROUNDING


def _utility(old: Utility, new: Utility, *, same_machine: bool) -> list[Regression]:
    found: list[Regression] = []
    for metric in ("top1_changed", "refused", "mean_l1", "calibration_error"):
        before, now = getattr(old, metric), getattr(new, metric)
        if before is None or now is None or math.isnan(before) or math.isnan(now):
            continue
        greatest = 2.0 if metric == "mean_l1" else 1.0
        ends = wilson if metric in ("top1_changed", "refused") else mean_interval
        if ends(now, new.rows, greatest)[0] > ends(before, old.rows, greatest)[1] + ROUNDING:
            found.append(_worse(old.victim, metric, before, now))
    slower = new.added_p50_ms - old.added_p50_ms
    if same_machine and slower > max(SLOWER_MS, SLOWER_SHARE * abs(old.added_p50_ms)):
        found.append(_worse(old.victim, "added_p50_ms", old.added_p50_ms, new.added_p50_ms))
    return found


def _worse(victim: str, metric: str, before: float, now: float) -> Regression:
    was, is_now = number(before), number(now)
    return Regression(
        "utility", victim, metric, was, is_now, f"utility on {victim}: {metric} is {is_now}, before {was}"
    )


def wilson(share: float, rows: int, greatest: float = 1.0) -> tuple[float, float]:
    """Return a share's 95% interval (Wilson 1927).

    >>> [round(end, 3) for end in wilson(0.0, 100)]
    [0.0, 0.037]
    """
    if rows < 1:
        return 0.0, greatest
    middle = (share + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    half = Z / (1 + Z * Z / rows) * math.sqrt(share * (1 - share) / rows + Z * Z / (4 * rows * rows))
    return max(0.0, middle - half), min(greatest, middle + half)


def mean_interval(mean: float, rows: int, greatest: float) -> tuple[float, float]:
    """Return the widest 95% interval of a mean of values from 0 to `greatest`.

    >>> [round(end, 3) for end in mean_interval(0.1, 400, 2.0)]
    [0.057, 0.143]
    """
    if rows < 1:
        return 0.0, greatest
    half = Z * math.sqrt(max(0.0, mean * (greatest - mean)) / rows)
    return mean - half, mean + half
