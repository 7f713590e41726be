"""The self-test's table for the terminal: what each attacker got, then gates, utility and the verdict in words.

Verdicts are told in words as well as in colour, so that a pipe or a colour-blind reader misses nothing. Below 104
columns the floors share a column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from guard.selftest.report import words
from guard.selftest.report.verdict import Status, sentences, status
from guard.selftest.report.words import MARKS, plain
from guard.selftest.results import Figure, Report, Row

STYLES: dict[str, str] = {
    "held": "green",
    "not held": "red",
    "unresolved": "yellow",
    "not gated": "dim",
}
STATUS_STYLES: dict[Status, str] = {
    "passed": "bold green",
    "failed": "bold red",
    "partial": "bold yellow",
    "nothing ran": "bold yellow",
    "no gates": "bold",
}
WIDE = 104
NAME_WIDTH = {True: 20, False: 24}
"""Of the attack's column, by whether the table is narrow: what leaves room for everything else."""
STEP_WIDTH = {True: 10, False: 12}
"""Of what is said beside a verdict: a narrow terminal would cut the end of `labels @193`, which is a number then."""
FLOOR_WIDTH = 11
"""Of the floors' column in a narrow table: `labels 1.000` takes two lines."""
LEGEND = (
    "without: the attack on the model itself. published: the published attack through Guard. strongest: the best "
    "attacker through Guard who knows the policy. labels: the floor of an attacker who reads labels only. never: the "
    "floor of one who never asks. ↑ higher is safer, ↓ lower is safer. @: the row from which answers were labels, "
    "or were refused because a budget was spent (429), or denied by the ladder (403)."
)
_ASCII = str.maketrans({"–": "-", "↑": "^", "↓": "v", "✓": "+", "✗": "x", "·": "."})  # noqa: RUF001 (an en dash)


def print_report(report: Report, console: Console) -> None:
    """Print a report.

    Args:
        report: the results.
        console: where; its width chooses the layout, and one without colour gets none.
    """
    narrow = console.width < WIDE
    for part in _parts(words.public(report), narrow):
        console.print(_encodable(part, console), highlight=False, emoji=False)


def _parts(report: Report, narrow: bool) -> Iterable[RenderableType]:
    if report.partial:
        yield Text("PARTIAL: the self-test was interrupted; what did not run is missing or unresolved", "bold yellow")
    about = f"{plain(report.policy)} (digest {plain(report.digest)[:12]}) on {plain(report.target)}"
    yield Text(f"{about}, route {plain(report.route)}, {report.mode}, seed {report.seed}", "bold")
    if report.attacks:
        yield _attacks(report.attacks, narrow)
        yield from _reasons(report.attacks)
    if report.gates:
        yield _gates(report, narrow)
    if report.utility:
        yield _utility(report, narrow)
    yield from _listed("Put in place of the policy's own", report.substitutions, "dim")
    yield from _listed("Warnings", report.warnings, "yellow")
    word = status(report)
    yield Text(f"\n{word.upper()}", STATUS_STYLES[word]).append(f" in {words.duration(report.seconds)}", "dim")
    for sentence in sentences(report):
        yield Text(sentence)


def _table(title: str, columns: Iterable[tuple[str, bool]], *, narrow: bool = False, caption: str = "") -> Table:
    """Return an empty table; `columns` are names with whether they are aligned to the right."""
    table = Table(
        title=Text(title, "bold"),
        title_justify="left",
        caption=Text(caption, "dim") if caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0) if narrow else (0, 1, 0, 0),
        show_edge=False,
    )
    for name, right in columns:
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    return table


def _attacks(rows: Sequence[Row], narrow: bool) -> Table:
    floors = [("floors", False)] if narrow else [("labels", False), ("never", False)]
    names = [("attack", False), ("without", False), ("published", False), ("strongest", False), *floors]
    title = "\nWhat attackers got, with 95% intervals"
    table = _table(title, [*names, ("verdict", False)], narrow=narrow, caption=LEGEND)
    table.columns[0].min_width = min(NAME_WIDTH[narrow], max(len(row.name) for row in rows))
    table.columns[3].max_width = 15 if not narrow else 12 if any(row.verdict == "unresolved" for row in rows) else 13
    for row in rows:
        label, zero = row.floors.get("label_only"), row.floors.get("zero_query")
        table.add_row(
            _attack(row, NAME_WIDTH[narrow]),
            _cell(row.undefended),
            _cell(row.defended),
            _cell(row.adaptive, who=True),
            *([_both_floors(label, zero)] if narrow else [_cell(label), _cell(zero)]),
            _verdict(row, narrow),
        )
        table.add_section()
    return table


def _attack(row: Row, width: int) -> Text:
    """Return name, victim, metric and rows, on lines of at most `width` where words allow."""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(words.safer(row.metric).partition(" ")[0], "")
    parts = [f"on {plain(row.victim)}", f"{plain(row.metric)}{arrow}", f"{row.queries:,} rows"]
    text = Text("\n".join(_filled([f"{part}_" for part in plain(row.name).split("_")], width, ""))[:-1], "bold")
    return text.append("\n" + "\n".join(_filled(parts, width, ", ")), "not bold dim")


def _filled(parts: Iterable[str], width: int, between: str) -> list[str]:
    lines = [""]
    for part in parts:
        joined = lines[-1] + (between if lines[-1] else "") + part
        if len(joined) - (part.endswith("_")) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def _cell(figure: Figure | None, *, who: bool = False) -> Text:
    """Return a figure, its interval and whose it is, a line each."""
    if figure is None:
        return Text("n/a", "dim")
    value, low, high = (_short(end, figure.metric) for end in (figure.value, figure.low, figure.high))
    text = Text(value)
    if words.interval(figure.low, figure.high) and {low, high} != {value}:
        text.append(f"\n{low}–{high}", "dim")  # noqa: RUF001 (an en dash)
    if who:
        text.append(f"\n{words.who(figure)}")
    return text


def _short(value: float | None, metric: str = "") -> str:
    """Return a value without its leading zero; what is tiny reads <.001."""
    number = words.number(value, metric)
    if "e-" in number:
        return f"{'>-' if number.startswith('-') else '<'}.001"
    return number.replace("0.", ".", 1) if number.lstrip("-").startswith("0.") else number


def _both_floors(label: Figure | None, zero: Figure | None) -> Text:
    lines = [
        line
        for name, figure in (("labels", label), ("never", zero))
        if figure is not None
        for line in _filled([name, _short(figure.value, figure.metric)], FLOOR_WIDTH, " ")
    ]
    return Text("\n".join(lines)) if lines else Text("n/a", "dim")


def _verdict(row: Row, narrow: bool) -> Text:
    text = Text(f"{MARKS[row.verdict]} {row.verdict}", STYLES[row.verdict])
    for step, at in sorted((row.detected_at or {}).items(), key=lambda item: item[1]):
        name = {"label_only": "labels", "deny": "refused"}.get(step, plain(step).replace("_", " "))
        text.append("\n" + "\n".join(_filled([name, f"@{at:,}"], STEP_WIDTH[narrow], " ")), "not bold default")
    return text


def _reasons(rows: Sequence[Row]) -> Iterable[Text]:
    unresolved = [row for row in rows if row.verdict == "unresolved"]
    if unresolved:
        lines = [f"? {plain(row.name)}: {plain(row.reason) or 'no reason given'}" for row in unresolved]
        yield Text("\n".join(["\nUnresolved, and why", *lines]), "yellow")
    by_help: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict == "not held" and row.helps:
            by_help.setdefault(plain(row.helps), []).append(plain(row.name))
    if by_help:
        lines = [f"✗ {', '.join(names)}: {helps}" for helps, names in by_help.items()]
        yield Text("\n".join(["\nWhat would help where it is not held", *lines]))


def _gates(report: Report, narrow: bool) -> Table:
    table = _table("\nGates", [("gate", False), ("must be", False), ("measured", False), ("verdict", False)])
    for gate in report.gates:
        word = words.gate_word(gate)
        verdict = Text(f"{MARKS[word]} {word}", STYLES[word])
        if gate.reason:
            verdict.append(f"\n{plain(gate.reason)}", "not bold default")
        subject = _filled([f"{part}_" for part in plain(gate.subject).split("_")], NAME_WIDTH[narrow], "")
        name = Text("\n".join(subject)[:-1], "bold").append(f"\n{plain(gate.metric)}", "not bold dim")
        table.add_row(name, words.must_be(gate), words.gate_figure(gate, report.attacks), verdict)
    return table


def _utility(report: Report, narrow: bool) -> Table:
    names = ("top-1 changed", "mean L1", "acc.", "own acc.", "ECE", "own ECE", "+p50 ms", "+p99 ms", "refused", "rows")
    title = "\nWhat honest users pay, on held-out data"
    table = _table(title, [("model", False), *((name, True) for name in names)], narrow=narrow)
    for u in report.utility:
        latency = ["n/a" if math.isnan(v) else f"{v:.2f}" for v in (u.added_p50_ms, u.added_p99_ms)]
        paid = (u.top1_changed, u.mean_l1, u.accuracy, u.accuracy_before)
        shown = [_short(v) for v in (*paid, u.calibration_error, u.calibration_error_before)]
        table.add_row(Text(plain(u.victim)), *shown, *latency, _short(u.refused), f"{u.rows:,}")
    return table


def _listed(title: str, sentences_: Iterable[str], style: str) -> Iterable[Text]:
    lines = [f"  {plain(sentence)}" for sentence in sentences_]
    if lines:
        yield Text("\n".join([f"\n{title}", *lines]), style)


def _encodable(part: RenderableType, console: Console) -> RenderableType:
    """Return a part that the console's encoding can take: a report is never lost to a terminal's character set."""
    if console.encoding.lower().startswith("utf"):
        return part
    with console.capture() as captured:
        console.print(Group(part), highlight=False, emoji=False, end="")
    text = captured.get().translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)
    return Text.from_ansi(text)
