"""An attack's part of the HTML report: what it is, the published figure beside ours, every attacker, charts, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from guard.selftest.report import plots, words
from guard.selftest.report.markup import chip, sentence_list, stacked, table, verdict_cell
from guard.selftest.report.words import WAYS, plain
from guard.selftest.results import Figure, Row


def attack_section(row: Row, name: str) -> str:
    """Return an attack's article.

    Args:
        row: its results.
        name: prefix of its charts' ids, unique on the page.
    """
    at = f"attack-{_text(row.name)}"
    heading = f'<h3 id="{at}">{_text(row.name)} <small>{_text(row.title)}</small></h3>'
    chips = verdict_cell(row.verdict) + chip("", row.threat) + chip("", row.atlas) + chip("", f"on {row.victim}")
    return f'<article aria-labelledby="{at}">{heading}<p>{chips}</p>{"".join(_parts(row, name))}</article>'


def _text(value: object) -> str:
    return escape(plain(value))


def _parts(row: Row, name: str) -> Iterable[str]:
    if row.verdict == "unresolved":
        yield f'<p class="banner"><strong>Unresolved.</strong> {_text(row.reason) or "No reason was given."}</p>'
    yield _facts(row)
    if row.verdict == "not held" and row.helps:
        yield f'<p class="helps"><strong>What would help:</strong> {_text(row.helps.rstrip("."))}.</p>'
    yield from _charts(row, name)
    yield _figures(row)
    if row.notes:
        yield f"<details><summary>Notes ({len(row.notes)})</summary>{sentence_list(row.notes)}</details>"


def _facts(row: Row) -> str:
    control = {True: "met", False: "not met", None: "no control"}[row.control_met]
    facts = (
        ("Published", f"{_text(row.published)} <cite>{_text(row.source)}</cite>"),
        ("Here, without Guard", f"{words.measured(row.undefended)} {_text(row.metric)}{_means(row)}"),
        ("Must reach there", f"{_text(row.criterion) or 'nothing stated'}: {control}"),
        ("Through Guard", _through(row)),
        ("Parameters", _text(words.pairs(row.parameters)) or "none"),
        ("Steps observed", escape("; ".join(words.steps(row))) or "none"),
    )
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{told}</dd>" for term, told in facts) + "</dl>"


def _means(row: Row) -> str:
    meaning = ", ".join(filter(None, (words.meaning(row.metric), words.safer(row.metric))))
    return f" ({_text(meaning)})" if meaning else ""


def _through(row: Row) -> str:
    if row.adaptive is None:
        return "n/a"
    return (
        f"published attack {words.measured(row.defended)}; strongest {words.measured(row.adaptive)} "
        f"({_text(words.who(row.adaptive))}). The published attack asked {row.queries:,} rows; all runs together took "
        f"{words.duration(row.seconds)}"
    )


def _charts(row: Row, name: str) -> Iterable[str]:
    against = f"{row.metric} against rows asked. The bar at a line's end is its 95% interval."
    charts = (
        (plots.queries(row, f"{name}-q"), against),
        (plots.roc(row, f"{name}-r"), "ROC curve. The dashed line marks 1% of non-members accused."),
        (plots.prototypes(row, f"{name}-p"), "Each image is scaled from its own darkest to its lightest pixel."),
        (plots.attackers(row, f"{name}-a"), "The strongest attackers, with 95% intervals."),
    )
    drawn = "".join(
        f"<figure>{chart}<figcaption>{_text(caption)}</figcaption></figure>" for chart, caption in charts if chart
    )
    if drawn:
        yield f'<div class="charts">{drawn}</div>'


def _figures(row: Row) -> str:
    shown: list[tuple[str, Figure]] = []
    if row.undefended is not None:
        shown.append((WAYS["undefended"], row.undefended))
    through = [(f"through Guard: {words.who(figure)}", figure) for figure in row.attackers]
    shown += through[: plots.STRONGEST]
    shown += [(WAYS[floor], figure) for floor in ("label_only", "zero_query") if (figure := row.floors.get(floor))]
    if not shown:
        return "<p>No attacker was measured.</p>"
    strongest = _table(row, f"The strongest attackers of {plain(row.name)}, with 95% intervals", shown)
    rest = through[plots.STRONGEST :]
    if not rest:
        return strongest
    others = _table(row, f"The other attackers of {plain(row.name)}, strongest first", rest)
    return f"{strongest}<details><summary>The other attackers ({len(rest)})</summary>{others}</details>"


def _table(row: Row, title: str, shown: Sequence[tuple[str, Figure]]) -> str:
    metrics = list(dict.fromkeys([row.metric, *(m for _, figure in shown for m in figure.measures)]))
    rows = [
        (_text(who), *(stacked(words.metric_of(figure, m)) for m in metrics), f"{figure.queries:,}")
        for who, figure in shown
    ]
    columns: Sequence[str] = ("attacker", *map(plain, metrics), "rows")
    return table(title, columns, rows)
