"""A plan's picture: how many answers every epsilon allows, for the noise that was planned and for others, as SVG."""

from __future__ import annotations

from html import escape
from math import exp, log
from typing import TYPE_CHECKING

from guard.privacy.planner import curve
from guard.selftest.report import svg
from guard.selftest.report.svg import Axis

if TYPE_CHECKING:
    from guard.cli.budget_planned import Planned
    from guard.privacy.events import Event

WIDTH, HEIGHT = 760, 470
TEACHERS = (1, 10, 100, 250)
_MANY = 600
"""Beyond so many teachers the others are shares of them: the usual numbers would admit nothing."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 150, 84, 62
_POINTS = 60
_LONGEST = 78
_BELOW, _ABOVE = 16.0, 4.0
"""The axis goes from this much less epsilon than planned to this much more."""
_STYLE = """
svg{background:#fff;font-family:system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
text{fill:#1f2328;font-size:12px}.title{font-size:16px;font-weight:600}.tick,.sub{fill:#57606a}.chosen{font-weight:600;fill:#7b2cbf;paint-order:stroke;stroke:#fff;stroke-width:4px}
.grid{stroke:#eaeef2;fill:none}.axis{stroke:#57606a;fill:none}.line{fill:none;stroke-width:2;stroke:#8a8f98}
.line.s-chosen{stroke:#7b2cbf;stroke-width:3}.step{stroke:#7b2cbf;stroke-dasharray:2 4;fill:none}
.mark{stroke:#fff;stroke-width:1.5;fill:#7b2cbf}
@media(prefers-color-scheme:dark){svg{background:#0e1116}text{fill:#e6e9ee}.tick,.sub{fill:#9aa4b0}.chosen{fill:#d5a3ff;stroke:#0e1116}
.grid{stroke:#21262d}.axis{stroke:#9aa4b0}.line{stroke:#7d8590}.line.s-chosen,.step{stroke:#d5a3ff}.mark{fill:#d5a3ff;stroke:#0e1116}}
"""


def draw(planned: Planned) -> str:
    """Return the picture, a whole SVG file."""
    now = planned.priced
    low, high = now.epsilon / _BELOW, min(now.epsilon * _ABOVE, 1000.0)
    epsilons = [low * exp(log(high / low) * i / (_POINTS - 1)) for i in range(_POINTS)]
    curves = {
        label: curve(event, [*epsilons, now.epsilon] if chosen else epsilons, now.delta, planned.columns)
        for label, event, chosen in _events(planned)
    }
    chosen = next(label for label, _, is_chosen in _events(planned) if is_chosen)
    curves[chosen].sort()
    most = max((points[-1][1] for points in curves.values() if points), default=1)
    x = Axis(low, high, _LEFT, WIDTH - _RIGHT, log=True)
    y = Axis(1.0, max(10.0, most * 1.3), HEIGHT - _BOTTOM, _TOP, log=True)
    parts = [svg.tag("style", _STYLE), *_titles(planned)]
    parts.append(svg.frame(x, y, "epsilon (log scale)", "answers (log scale)"))
    parts += _lines(curves, chosen, x, y)
    parts += _point(now.epsilon, now.answers, x, y)
    told = f"At epsilon {now.epsilon:g} the plan admits {now.answers:,} answers. " + "; ".join(
        f"{label}: {points[-1][1]:,} at epsilon {points[-1][0]:.3g}" for label, points in curves.items() if points
    )
    drawn = svg.drawing("plan", WIDTH, HEIGHT, "Answers against epsilon", told, "".join(parts))
    return drawn.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" ', 1)


def _events(planned: Planned) -> list[tuple[str, Event, bool]]:
    """Return label, cost of one answer and whether it is the plan's, for each curve.

    The noise that answers carry is the same on all of them, and so is what is left of them: with more teachers the same
    noise hides more. Where teachers do not matter, the noise differs instead.
    """
    now = planned.measurement.quorum
    if planned.name == "randomised_response":
        each = planned.parameter[1]
        return [(f"epsilon {each * by:.3g} each", planned.event(by), by == 1.0) for by in (0.5, 1.0, 2.0)]
    others = TEACHERS if now <= _MANY else (now // 10, now // 4, now * 2)
    numbers = sorted({now, *(n for n in others if not 1 / 1.6 < n / now < 1.6)})
    return [
        (
            "1 model" if number == 1 else f"{number:,} teachers",
            planned.with_noise(now / number, number).event(),
            number == now,
        )
        for number in numbers
    ]


def _titles(planned: Planned) -> list[str]:
    now, noise = planned.priced, _cut(planned.measurement.noise)
    same = "" if planned.name == "randomised_response" else ", the same on every line"
    scope = planned.budgets[0].per
    what = "everybody together" if scope == "model" else f"each {scope}"
    return [
        _words(_LEFT - 54, 26, f"How many answers {what} can have: {planned.name}", "title"),
        _words(_LEFT - 54, 46, f"{noise}{same}; delta {now.delta:g}", "sub"),
    ]


def _cut(noise: str) -> str:
    return noise if len(noise) <= _LONGEST else noise[: _LONGEST - 1] + "…"


def _words(x: float, y: float, words: str, class_: str, anchor: str = "start") -> str:
    return svg.tag("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor)


def _lines(curves: dict[str, list[tuple[float, int]]], chosen: str, x: Axis, y: Axis) -> list[str]:
    """Return lines with their names at the end; a line that admits nothing is named below."""
    parts: list[str] = []
    nothing = [label for label, points in curves.items() if not points]
    for label, points in curves.items():
        if points:
            class_ = "s-chosen" if label == chosen else "s-other"
            parts.append(svg.line([(x.at(epsilon), y.at(answers)) for epsilon, answers in points], class_))
            end = y.at(points[-1][1])
            parts.append(_words(x.end + 8, end + 4, label, "chosen" if label == chosen else "tick"))
    if nothing:
        words = f"not one answer up to epsilon {x.high:g}: {', '.join(nothing)}"
        parts.append(_words(x.end, HEIGHT - 8, words, "sub", "end"))
    return parts


def _point(epsilon: float, answers: int, x: Axis, y: Axis) -> list[str]:
    at, up = x.at(epsilon), y.at(max(1, answers))
    label = f"epsilon {epsilon:g}: {answers:,} answer{'s' if answers != 1 else ''}"
    return [
        svg.tag("path", d=f"M{x.start:.1f} {up:.1f}H{at:.1f}V{y.start:.1f}", class_="step"),
        svg.marker(at, up, "circle", "s-chosen", label),
        _words(at - 10, up - 10, label, "chosen", "end"),
    ]
