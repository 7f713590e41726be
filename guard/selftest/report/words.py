"""How reports say numbers, figures, steps and names: one way in every format."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from guard.selftest.measures import METRICS
from guard.selftest.results import Figure, GateResult, Report, Row

MARKS: dict[str, str] = {"held": "✓", "not held": "✗", "unresolved": "?", "not gated": "·"}
"""Verdicts of rows and gates with their sign: no report tells them by colour alone."""

THREATS: dict[str, str] = {
    "model extraction": "copying the model",
    "model inversion": "reconstructing what the training data look like",
    "attribute inference": "guessing hidden attributes of people",
    "membership inference": "telling who was in the training data",
    "evasion": "fooling the model",
    "covert channel": "smuggling data out through the model",
    "denoising": "averaging the noise away",
    "memorization": "having secrets said that the model has learnt by heart",
}
"""A threat in words that need no training."""

STEPS: dict[str, str] = {"label_only": "labels only", "deny": "refused (429)", "denied": "denied (403)"}
"""Steps that an outsider observes: which budget or which step of a ladder it was, no answer says."""

WAYS: dict[str, str] = {
    "undefended": "without Guard",
    "defended": "published attack through Guard",
    "adaptive": "strongest attacker through Guard",
    "label_only": "labels alone (floor)",
    "zero_query": "never asks (floor)",
}
"""Whose figure it is."""

UTILITY: dict[str, str] = {
    "top1_changed": "share of answers whose top class differs from the model's",
    "mean_l1": "mean L1 between released and true scores",
    "calibration_error": "expected calibration error of the released scores, 15 bins",
    "added_p50_ms": "median latency that Guard adds, in milliseconds",
    "added_p99_ms": "99th percentile of the guarded latencies less that of the direct ones, in milliseconds",
    "refused": "share of honest rows refused, to users who ask little, or denied (403) to one who asks them all",
    "accuracy_lost": "accuracy of the undefended model less that of the released answers",
}

_COUNTS = frozenset({"graded_answers", "partial_answers", "distinct_answers"})


def plain(text: object) -> str:
    r"""Return text without what could drive a terminal, break XML or turn the reading order: each becomes `?`.

    >>> plain("a\x1b[31mb")
    'a?[31mb'
    """
    kept = (" " if c in "\t\r\n" else c for c in str(text))
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp") else c for c in kept)


def without_password(target: str) -> str:
    """Return a URL without the credentials in it; other text as it is.

    >>> without_password("http://me:secret@host:80/v1"), without_password("lab")
    ('http://host:80/v1', 'lab')
    """
    try:
        parts = urlsplit(target)
    except ValueError:
        return re.sub(r"//[^/]*@", "//", target)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else target


def public(report: Report) -> Report:
    """Return a report as it may be shown: no credentials in the target's URL."""
    return replace(report, target=without_password(report.target))


def number(value: float | None, metric: str = "") -> str:
    """Return a value to read: three decimals, counts whole, tiny ones in powers of ten.

    >>> number(0.11549), number(4.1e-15), number(660.0, "graded_answers"), number(float("nan")), number(None)
    ('0.115', '4.1e-15', '660', 'n/a', 'n/a')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if metric in _COUNTS:
        return f"{value:,.0f}"
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"


def interval(low: float, high: float, metric: str = "", between: str = ", ") -> str:
    """Return an interval to read; empty where a figure has none (it was counted, or there is nothing).

    >>> interval(0.1, 0.25), interval(660, 660, "graded_answers")
    ('[0.100, 0.250]', '')
    """
    if low == high or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low, metric)}{between}{number(high, metric)}]"


def measured(figure: Figure | None) -> str:
    """Return a figure with its interval.

    >>> measured(Figure(0.115, 0.108, 0.121, "surrogate_l1"))
    '0.115 [0.108, 0.121]'
    """
    if figure is None:
        return "n/a"
    return f"{number(figure.value, figure.metric)} {interval(figure.low, figure.high, figure.metric)}".rstrip()


def safer(metric: str) -> str:
    """Say which direction is safer; empty for a metric that this version does not know.

    >>> safer("surrogate_l1"), safer("auc")
    ('higher is safer', 'lower is safer')
    """
    return ("higher is safer" if METRICS[metric][0] else "lower is safer") if metric in METRICS else ""


def meaning(metric: str) -> str:
    """Return what a metric is, of an attack or of utility; empty when unknown."""
    return METRICS[metric][1] if metric in METRICS else UTILITY.get(metric, "")


def must_be(gate: GateResult) -> str:
    """Return a gate's bound, such as `at most 0.7`."""
    return f"{'at least' if gate.bound == 'min' else 'at most'} {gate.limit:g}"


def gate_word(gate: GateResult) -> str:
    """Return a gate's verdict: held, not held or unresolved."""
    return "unresolved" if gate.held is None else "held" if gate.held else "not held"


def gate_figure(gate: GateResult, rows: Sequence[Row]) -> str:
    """Return what was measured for a gate, with the interval of the attacker that it came from."""
    value = number(gate.value, gate.metric)
    if gate.value is None:
        return value
    for row in rows:
        for figure in (row.adaptive, *row.attackers) if row.name == gate.subject else ():
            found = metric_of(figure, gate.metric)
            if found is not None and found.value == gate.value:
                return measured(found)
    return value


def metric_of(figure: Figure | None, metric: str) -> Figure | None:
    """Return the same attacker's figure in another metric, or None."""
    if figure is None or figure.metric == metric:
        return figure
    found = figure.measures.get(metric)
    return None if found is None else Figure(*found, metric, figure.wrapper, figure.queries)


def who(figure: Figure) -> str:
    """Return which attacker a figure is: the wrapper's name, or `published`."""
    return plain(figure.wrapper).replace("_", " ") if figure.wrapper else "published"


def steps(row: Row) -> list[str]:
    """Return the steps that came, in order, each with the row at which it came."""
    came = sorted((row.detected_at or {}).items(), key=lambda step: step[1])
    return [f"{STEPS.get(name, plain(name).replace('_', ' '))} from row {at:,}" for name, at in came]


def listed(names: Sequence[str]) -> str:
    """Return names as English lists them.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def pairs(values: Mapping[str, object]) -> str:
    """Return parameters as `name=value, ...`."""
    return ", ".join(f"{plain(name)}={plain(value)}" for name, value in values.items())


def duration(seconds: float) -> str:
    """Return a time span to read.

    >>> duration(7.26), duration(221)
    ('7.3 s', '3 min 41 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
