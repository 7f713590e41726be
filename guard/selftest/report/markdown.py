"""The Markdown report, for comments on pull requests: the verdict, the gates, and a table of the attacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from guard.selftest.report import words
from guard.selftest.report.verdict import sentences, status
from guard.selftest.report.words import MARKS, plain
from guard.selftest.results import Figure, Report, Row

_SPECIAL = re.compile(r"([\\`*_\[\]!|~<>&$#]|^[-+=]|^\d+(?=[.)]))")
_LINKED = re.compile(r"(?<=@)|(?<=:)(?=//)|(?<=\bwww)(?=\.)", re.IGNORECASE)
EMPTY = "n/a"


def escape(text: object) -> str:
    r"""Return text that Markdown shows as it is: no markup, no HTML, no link, nobody mentioned.

    >>> escape("a|b <i> @team")
    'a\\|b \\<i\\> @<!-- -->team'
    """
    # A comment in the middle ends what would otherwise link by itself; a digit cannot be escaped, its full stop is.
    shown = _SPECIAL.sub(lambda m: m[1] + "\\" if m[1].isdigit() else "\\" + m[1], plain(text))
    return _LINKED.sub("<!-- -->", shown)


def render(report: Report) -> str:
    """Return the report as Markdown (GitHub's and GitLab's)."""
    parts: list[str] = [f"## Guard attack self-test: {status(report)}"]
    if report.partial:
        parts.append("> **PARTIAL**: the self-test was interrupted; what did not run is missing or unresolved.")
    parts.append("\n".join(f"- {escape(sentence)}" for sentence in sentences(report)))
    if report.gates:
        parts.append("### Gates\n\n" + _gates(report))
    if report.attacks:
        parts.append("### Attacks, with 95% intervals\n\n" + _attacks(report.attacks))
        parts += [_details(report.attacks)]
    if report.utility:
        parts.append("### What honest users pay\n\n" + _utility(report))
    for title, lines in (("Warnings", report.warnings), ("Put in place of the policy's own", report.substitutions)):
        if lines:
            parts.append(f"### {title}\n\n" + "\n".join(f"- {escape(line)}" for line in lines))
    parts.append(_about(report))
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(word: str) -> str:
    return f"{MARKS[word]} {f'**{word}**' if word in ('not held', 'unresolved') else word}"


def _gates(report: Report) -> str:
    rows = [
        [
            f"{escape(gate.subject)}: {escape(gate.metric)}",
            words.must_be(gate),
            words.gate_figure(gate, report.attacks),
            _verdict(words.gate_word(gate)) + (f": {escape(gate.reason)}" if gate.reason else ""),
        ]
        for gate in report.gates
    ]
    return _table(("gate", "must be", "measured", "verdict"), rows)


def _attacks(rows: Sequence[Row]) -> str:
    columns = ("attack", "metric", "without Guard", "published attack", "strongest attacker", "labels only",
               "never asks", "rows", "steps", "verdict")  # fmt: skip
    lines = [
        [
            f"{escape(row.name)} on {escape(row.victim)}",
            f"{escape(row.metric)}, {words.safer(row.metric)}".rstrip(", "),
            words.measured(row.undefended),
            words.measured(row.defended),
            _whose(row.adaptive),
            words.measured(row.floors.get("label_only")),
            words.measured(row.floors.get("zero_query")),
            f"{row.queries:,}",
            escape("; ".join(words.steps(row))) or "none",
            _verdict(row.verdict),
        ]
        for row in rows
    ]
    return _table(columns, lines)


def _whose(figure: Figure | None) -> str:
    return EMPTY if figure is None else f"{words.measured(figure)}, {escape(words.who(figure))}"


def _details(rows: Sequence[Row]) -> str:
    lines = [f"- {escape(r.name)} is unresolved: {escape(r.reason)}" for r in rows if r.verdict == "unresolved"]
    lines += [
        f"- {escape(row.name)}, what would help: {escape(row.helps)}"
        for row in rows
        if row.verdict == "not held" and row.helps
    ]
    return "\n".join(lines)


def _utility(report: Report) -> str:
    columns = ("model", "top-1 changed", "mean L1", "accuracy", "the model's own", "calibration error",
               "the model's own", "added p50 ms", "added p99 ms", "refused", "rows")  # fmt: skip
    rows = [
        [
            escape(u.victim),
            *map(words.number, (u.top1_changed, u.mean_l1, u.accuracy, u.accuracy_before)),
            *map(words.number, (u.calibration_error, u.calibration_error_before)),
            *map(words.number, (u.added_p50_ms, u.added_p99_ms, u.refused)),
            f"{u.rows:,}",
        ]
        for u in report.utility
    ]
    return _table(columns, rows)


def _about(report: Report) -> str:
    facts = {
        "policy": f"{report.policy} (digest {report.digest[:12]})",
        "target": report.target,
        "route": report.route,
        "mode": report.mode,
        "seed": f"{report.seed}, {report.seeds} in all",
        "started": report.started,
        "took": words.duration(report.seconds),
        "hardware": report.hardware,
        **report.versions,
    }
    lines = "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in facts.items())
    return f"<details><summary>How it was run</summary>\n\n{lines}\n\n</details>"
