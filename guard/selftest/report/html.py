"""The HTML report: one file that needs nothing else, no script, and says so in a Content-Security-Policy of its own.

A reader who decides finds the verdict first; gates, attacks with all their attackers and charts, prices, what was put
in place of the policy's own, versions and how to read it follow.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files

from guard.selftest.report import plots, words
from guard.selftest.report.attack_section import attack_section
from guard.selftest.report.markup import chip, nowrap, sentence_list, stacked, table, verdict_cell
from guard.selftest.report.verdict import SAID, Threatened, sentences, status, threats
from guard.selftest.report.words import THREATS, plain
from guard.selftest.results import Report

HOW_TO_READ: tuple[tuple[str, str], ...] = (
    ("Strongest attacker", "Who has read Guard's source and this policy: the best of the published attack, other ways "
     "to use the same answers, and wrappers (averaging, several accounts, falling back to labels). Gates and verdicts "
     "are about this one."),
    ("95% interval", "In brackets: bootstrap over rows, images or targets; over several seeds the figure is their mean "
     "and the interval spans theirs. A figure without one was counted, or is the same for every row."),
    ("Without Guard", "The control: the same attack on the model itself. An attack that does not reach its criterion "
     "there proves nothing through Guard: its row is unresolved, and the run fails."),
    ("Labels alone, never asks", "Floors. Labels alone: what an attacker gets who reads the top class and nothing "
     "else; a policy that keeps the top class and refuses nothing does no better. Never asks: what an attacker gets "
     "from data of their own."),
    ("Gain that is left", "0% is an attacker who learns nothing (the never-asks floor, or chance), 100% the attack "
     "without Guard; above 100% a wrapper outdoes the published attack."),
    ("Held", "Every gate of the attack holds."),
    ("Not held", "A gate does not hold, or the attack has no gate: nothing was promised, and the figures say what an "
     "attacker gets."),
    ("Unresolved", "It could not be judged; the row says why."),
    ("Not measurably harder", "The intervals with and without Guard overlap."),
)  # fmt: skip


def render(report: Report) -> str:
    """Return the report as one HTML page."""
    title = f"Guard self-test of {plain(report.policy)}: {status(report)}"
    main = "".join(_sections(report))
    return page(
        title,
        f'<a class="skip" href="#main">Skip to the verdict</a>{_header(report)}<main id="main">{main}</main>',
    )


def page(title: str, body: str) -> str:
    """Return a whole page that loads nothing and runs nothing.

    Args:
        title: text.
        body: markup.
    """
    style = stylesheet()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{style}</style>"
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'


@lru_cache
def stylesheet() -> str:
    """Return the page's style sheet."""
    return (files("guard.selftest.report") / "report.css").read_text("utf-8")


def _sections(report: Report) -> Iterable[str]:
    yield _verdict(report)
    yield _section("gates", "Gates", _gates(report))
    yield _section("attacks", "Attacks", _attacks(report))
    yield _section("utility", "What honest users pay", _utility(report))
    yield _section("substitutions", "Put in place of the policy's own", _substitutions(report))
    yield _section("versions", "How it was run", _about(report))
    yield _section("reading", "How to read this", _reading(report))


def _section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(title)}</h2>{content}</section>'


def _header(report: Report) -> str:
    links = (("gates", "Gates"), ("attacks", "Attacks"), ("utility", "Utility"), ("substitutions", "Substitutions"),
             ("versions", "Versions"), ("reading", "How to read this"))  # fmt: skip
    items = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in links)
    about = f"Policy <strong>{_text(report.policy)}</strong> on {_text(report.target)}, route {_text(report.route)}"
    return (
        f'<header><p class="kicker">Guard attack self-test</p><p class="about">{about}</p>'
        f'<nav aria-label="Sections"><ul>{items}</ul></nav></header>'
    )


def _text(value: object) -> str:
    return escape(plain(value))


def _verdict(report: Report) -> str:
    word = status(report)
    parts: list[str] = []
    if report.partial:
        parts.append(
            '<p class="banner" role="alert"><strong>Partial.</strong> The self-test was interrupted: what did not run '
            "is missing or unresolved.</p>"
        )
    heading = f'<h1 id="verdict-h"><span class="status {word.replace(" ", "-")}">{word}</span></h1>'
    parts.append(heading + "".join(f'<p class="lead">{_text(sentence)}</p>' for sentence in sentences(report)))
    if report.warnings:
        parts.append(f"<h2>Warnings</h2>{sentence_list(report.warnings)}")
    if judged := threats(report):
        rows = [_threat(threatened) for threatened in judged]
        columns = ("threat", "by its worst attack", "which attack", "without Guard", "strongest attacker")
        parts.append(table("What an attacker can still do", columns, rows))
    return f'<section id="verdict" aria-labelledby="verdict-h">{"".join(parts)}</section>'


def _threat(threatened: Threatened) -> Sequence[str]:
    row = threatened.worst
    name = THREATS.get(threatened.threat, threatened.threat)
    verb, rest = SAID[threatened.effect]
    return (
        f"{_text(name[:1].upper() + name[1:])}",
        chip(f"effect-{threatened.effect}", f"{verb} {rest}"),
        f'<a href="#attack-{_text(row.name)}">{_text(row.name)}</a> on {_text(row.victim)}',
        stacked(row.undefended, row.metric),
        stacked(row.adaptive, words.who(row.adaptive) if row.adaptive else ""),
    )


def _gates(report: Report) -> str:
    if not report.gates:
        return "<p>The policy has none: nothing was held to a limit.</p>"
    rows = [
        (
            _subject(gate.subject, report),
            f'{_text(gate.metric)}<span class="sub">{_text(words.meaning(gate.metric))}</span>',
            nowrap(words.must_be(gate)),
            nowrap(words.gate_figure(gate, report.attacks)),
            verdict_cell(words.gate_word(gate), gate.reason),
        )
        for gate in report.gates
    ]
    return table("Gates of the policy", ("of", "figure", "must be", "measured, strongest attacker", "verdict"), rows)


def _subject(subject: str, report: Report) -> str:
    if any(row.name == subject for row in report.attacks):
        return f'<a href="#attack-{_text(subject)}">{_text(subject)}</a>'
    return _text(subject)


def _attacks(report: Report) -> str:
    if not report.attacks:
        return "<p>No attack ran.</p>"
    rows = [
        (
            f'<a href="#attack-{_text(row.name)}">{_text(row.name)}</a>'
            f'<span class="sub">on {_text(row.victim)}, {row.queries:,} rows</span>',
            verdict_cell(row.verdict)
            + "".join(f'<span class="sub">{escape(step)}</span>' for step in words.steps(row)),
            f'{_text(row.metric)}<span class="sub">{words.safer(row.metric)}</span>',
            stacked(row.undefended),
            stacked(row.defended),
            stacked(row.adaptive, words.who(row.adaptive) if row.adaptive else ""),
            stacked(row.floors.get("label_only")),
            stacked(row.floors.get("zero_query")),
        )
        for row in report.attacks
    ]
    columns = ("attack", "verdict, steps observed", "metric", "without Guard", "published", "strongest", "labels alone",
               "never asks")  # fmt: skip
    summary = table("What attackers got, with 95% intervals", columns, rows)
    chart = plots.remaining(report, "remaining")
    if chart:
        caption = (
            "How much of what each attack gains without Guard its strongest attacker still gains, with 95% intervals. "
            "Both ends of the scale are taken as measured. What lies outside the scale stands at its edge; attacks "
            "without a known zero are left out."
        )
        summary += f'<figure class="wide">{chart}<figcaption>{caption}</figcaption></figure>'
    return summary + "".join(attack_section(row, f"a{number}") for number, row in enumerate(report.attacks))


def _utility(report: Report) -> str:
    if not report.utility:
        return "<p>It was not measured.</p>"
    columns = ("model", "top class changed", "mean L1", "accuracy", "the model's own", "calibration error",
               "the model's own", "added p50, ms", "added p99, ms", "refused", "rows")  # fmt: skip
    rows = [
        (
            _text(u.victim),
            *map(words.number, (u.top1_changed, u.mean_l1, u.accuracy, u.accuracy_before)),
            *map(words.number, (u.calibration_error, u.calibration_error_before)),
            *map(words.number, (u.added_p50_ms, u.added_p99_ms, u.refused)),
            f"{u.rows:,}",
        )
        for u in report.utility
    ]
    content = table("Price by model, on held-out rows, each asked once", columns, rows)
    chart, points = plots.tradeoff(report, "tradeoff")
    if not chart:
        return content
    key = [
        (str(number), _text(row.name), _text(row.victim), f"{cost:.3f}", f"{value:.0%} [{low:.0%}, {high:.0%}]")
        for number, row, cost, (value, low, high) in points
    ]
    caption = "Utility against leakage: lower and further left is better. A point is an attack's strongest attacker."
    listed = table("The chart's points", ("no.", "attack", "model", "mean L1", "gain that is left"), key)
    return f'{content}<figure class="wide">{chart}<figcaption>{caption}</figcaption></figure>{listed}'


def _substitutions(report: Report) -> str:
    if not report.substitutions:
        return "<p>Nothing: the policy ran as it is.</p>"
    return sentence_list(report.substitutions)


def _about(report: Report) -> str:
    facts = {
        "policy": report.policy,
        "digest": report.digest,
        "target": report.target,
        "route": report.route,
        "mode": report.mode,
        "seeds": f"{report.seed}" + (f" to {report.seed + report.seeds - 1}" if report.seeds > 1 else ""),
        "started": report.started,
        "took": words.duration(report.seconds),
        "hardware": report.hardware,
        **report.versions,
    }
    rows = [(_text(name), _text(value)) for name, value in facts.items()]
    return table("Versions and settings", ("what", "which"), rows)


def _reading(report: Report) -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(told)}</dd>" for term, told in HOW_TO_READ)
    metrics = dict.fromkeys(
        metric
        for row in report.attacks
        for metric in (row.metric, *(m for figure in row.attackers for m in figure.measures))
        if words.meaning(metric)
    )
    rows = [(escape(metric), escape(words.meaning(metric)), words.safer(metric)) for metric in metrics]
    return f"<dl>{terms}</dl>" + (table("Metrics", ("metric", "what it is", "direction"), rows) if rows else "")
