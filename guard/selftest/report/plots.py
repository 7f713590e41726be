"""The HTML report's charts. Each returns SVG, or nothing where the report holds no data for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from guard.selftest.report import svg, words
from guard.selftest.report.svg import Axis, Shape
from guard.selftest.report.verdict import leakage, nothing_learnt
from guard.selftest.report.words import WAYS, plain
from guard.selftest.results import Figure, Report, Row

SHAPES: Mapping[str, Shape] = {
    "undefended": "circle",
    "defended": "square",
    "adaptive": "triangle",
    "label_only": "diamond",
    "zero_query": "cross",
}
"""By whose figure it is: colour is never the only sign."""
STRONGEST = 12
"""Attackers that a row shows at once; the others are a click away."""
WIDTH, HEIGHT = 460, 280
LEAST_RATE = 1e-3
_RECOVERED = {
    "undefended": "without Guard",
    "defended": "through Guard",
    "adaptive": "strongest",
    "label_only": "labels alone",
}
Points = Sequence[tuple[float, float]]


def legend(labels: Sequence[str]) -> str:
    """Return the key to a chart's signs, as a list."""
    items = ""
    for label in labels:
        sign = svg.line([(0, 7), (28, 7)], f"s-{label}") + svg.marker(14, 7, SHAPES[label], f"s-{label}")
        swatch = svg.tag("svg", sign, viewBox="0 0 28 14", class_="swatch", aria_hidden="true")
        items += svg.tag("li", swatch + WAYS[label])
    return svg.tag("ul", items, class_="legend")


def figures_of(row: Row) -> dict[str, Figure]:
    """Return a row's figures by whose they are, those that are numbers."""
    found = {"undefended": row.undefended, "defended": row.defended, "adaptive": row.adaptive, **row.floors}
    return {label: f for label, f in found.items() if f is not None and label in SHAPES and _finite(f)}


def _finite(figure: Figure) -> bool:
    return all(map(math.isfinite, (figure.value, figure.low, figure.high)))


def queries(row: Row, name: str) -> str:
    """Return the headline against queries: a line each, its interval at the end, floors and steps."""
    lines = {
        label: points
        for label in SHAPES
        if label != "zero_query"  # who never asks has no curve, but a floor across the whole chart
        if (points := [(q, v) for q, v in row.curves.get(label, ()) if math.isfinite(v) and q >= 0])
    }
    if not lines:
        return ""
    figures = figures_of(row)
    values = [v for points in lines.values() for _, v in points]
    values += [end for label in lines if label in figures for end in (figures[label].low, figures[label].high)]
    floor = figures.get("zero_query")
    asked = [float(q) for points in lines.values() for q, _ in points]
    x = _query_axis(asked)
    y = svg.spanning([*values, *([floor.value] if floor else [])], HEIGHT - 48, 28, zero=True)
    parts = [svg.frame(x, y, "rows asked" + (" (log scale)" if x.log else ""), row.metric)]
    parts += _steps(row, x, y)
    if floor is not None:
        parts.append(svg.line([(x.start, y.at(floor.value)), (x.end, y.at(floor.value))], "s-zero_query"))
    for label, points in lines.items():
        parts.append(svg.line([(x.at(q), y.at(v)) for q, v in points], f"s-{label}"))
        for q, v in points if len(points) <= 12 else points[:: len(points) // 12]:
            title = f"{WAYS[label]}: {words.number(v, row.metric)} at {q:,} rows"
            parts.append(svg.marker(x.at(q), y.at(v), SHAPES[label], f"s-{label}", title))
        if label in figures:
            at = x.at(points[-1][0])
            parts.append(_bar(at, y.at(figures[label].low), at, y.at(figures[label].high), label))
    ends = "; ".join(f"{WAYS[k]}: {words.number(v[-1][1])} at {v[-1][0]:,} rows" for k, v in lines.items())
    keys = [*lines, *(["zero_query"] if floor else [])]
    title = f"{row.name}: {row.metric} against rows asked, {words.safer(row.metric)}"
    return svg.drawing(name, WIDTH, HEIGHT, title, ends, "".join(parts)) + legend(keys)


def _query_axis(asked: Sequence[float]) -> Axis:
    low, high = min(asked), max(asked)
    if low > 0 and high / low >= 15:
        return Axis(low, high, 50, WIDTH - 16, log=True)
    return Axis(min(low, 0.0), high if high > 0 else 1.0, 50, WIDTH - 16)


def _steps(row: Row, x: Axis, y: Axis) -> list[str]:
    parts: list[str] = []
    for i, (step, at) in enumerate(sorted((row.detected_at or {}).items(), key=lambda item: item[1])):
        if x.low <= at <= x.high:
            px = x.at(at)
            label = f"{words.STEPS.get(step, plain(step))}, row {at:,}"
            parts.append(svg.tag("path", d=f"M{px:.1f} {y.start:.1f}V{y.end:.1f}", class_="step"))
            anchor = "end" if px > (x.start + x.end) / 2 else "start"
            parts.append(svg.text(px + (-4 if anchor == "end" else 4), y.end + 10 + 13 * i, label, "tick", anchor))
    return parts


def _bar(x0: float, y0: float, x1: float, y1: float, label: str) -> str:
    return svg.tag("path", d=f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}", class_=f"bar s-{label}")


def attackers(row: Row, name: str) -> str:
    """Return the strongest attackers' figures with their intervals, with the control and the floors."""
    shown: list[tuple[str, str, Figure]] = []
    if row.undefended is not None:
        shown.append(("undefended", "without Guard", row.undefended))
    for i, figure in enumerate(row.attackers[:STRONGEST]):
        label = "adaptive" if i == 0 else "defended"
        shown.append((label, _cut(words.who(figure), 26), figure))
    shown += [(label, WAYS[label], f) for label in ("label_only", "zero_query") if (f := row.floors.get(label))]
    shown = [entry for entry in shown if _finite(entry[2])]
    if len(shown) < 2:
        return ""
    height = 22 * len(shown) + 62
    ends = [end for _, _, figure in shown for end in (figure.low, figure.high)]
    x, y = svg.spanning(ends, 170, WIDTH - 16, zero=True), Axis(0, len(shown), 20, height - 42)
    parts = [_value_axis(x, height - 42, f"{row.metric} ({words.safer(row.metric)})")]
    for i, (label, what, figure) in enumerate(shown):
        at = y.at(i + 0.5)
        parts.append(svg.text(160, at + 4, what, "name", "end"))
        parts.append(_bar(x.at(figure.low), at, x.at(figure.high), at, label))
        title = f"{what}: {words.measured(figure)}"
        parts.append(svg.marker(x.at(figure.value), at, SHAPES[label], f"s-{label}", title))
    told = "; ".join(f"{what}: {words.measured(figure)}" for _, what, figure in shown)
    title = f"{row.name}: the strongest attackers with 95% intervals"
    return svg.drawing(name, WIDTH, height, title, told, "".join(parts))


def _cut(words_: str, length: int) -> str:
    return words_ if len(words_) <= length else words_[: length - 1] + "…"


def _value_axis(x: Axis, bottom: float, title: str) -> str:
    parts = [svg.tag("path", d=f"M{x.start:.1f} {bottom:.1f}H{x.end:.1f}", class_="axis")]
    for value in x.ticks():
        at = x.at(value)
        parts.append(svg.tag("path", d=f"M{at:.1f} 18V{bottom:.1f}", class_="grid"))
        parts.append(svg.text(at, bottom + 16, svg.short(value)))
    return "".join([*parts, svg.text((x.start + x.end) / 2, bottom + 34, title, "label")])


def roc(row: Row, name: str) -> str:
    """Return members found against non-members accused, both on log scales."""
    lines = {label: points for label in SHAPES if (points := _points(row.artefacts.get(label, {}).get("roc")))}
    if not lines:
        return ""
    size = 340
    x, y = Axis(LEAST_RATE, 1, 56, size - 14, log=True), Axis(LEAST_RATE, 1, size - 48, 28, log=True)
    parts = [svg.frame(x, y, "non-members accused (log scale)", "members found (log scale)")]
    parts.append(svg.line([(x.at(LEAST_RATE), y.at(LEAST_RATE)), (x.at(1), y.at(1))], "chance"))
    parts.append(svg.text(x.at(0.1) + 8, y.at(0.1) + 16, "chance", "tick", "start"))
    parts.append(svg.tag("path", d=f"M{x.at(0.01):.1f} {y.start:.1f}V{y.end:.1f}", class_="step"))
    for label, points in lines.items():
        drawn = [(x.at(f), y.at(t)) for f, t in points if f >= LEAST_RATE]
        before = [t for f, t in points if f < LEAST_RATE]
        if before and before[-1] >= LEAST_RATE:
            drawn.insert(0, (x.start, y.at(before[-1])))
        parts.append(svg.line(drawn, f"s-{label}"))
        for i in range(len(drawn) // 8, len(drawn), max(1, len(drawn) // 4)):
            parts.append(svg.marker(*drawn[i], SHAPES[label], f"s-{label}"))
    rates = [
        f"{WAYS[label]}: {words.measured(rate)} of members found at 1% of non-members accused"
        for label, figure in figures_of(row).items()
        if label in lines and (rate := words.metric_of(figure, "tpr_at_1_fpr"))
    ]
    title = f"{row.name}: ROC curve on log-log axes"
    return svg.drawing(name, size, size, title, "; ".join(rates), "".join(parts)) + legend(list(lines))


def _points(data: object) -> list[tuple[float, float]]:
    """Return what an artefact holds as points; nothing when it is not that."""
    found: list[tuple[float, float]] = []
    for pair in cast("Sequence[object]", data) if isinstance(data, list | tuple) else ():
        values = _numbers(pair)
        if len(values) == 2:
            found.append((values[0], values[1]))
    return found


def _numbers(data: object) -> list[float]:
    items = cast("Sequence[object]", data) if isinstance(data, list | tuple) else ()
    found = [float(v) for v in items if isinstance(v, int | float)]
    return found if len(found) == len(items) and all(map(math.isfinite, found)) else []


def prototypes(row: Row, name: str) -> str:
    """Return recovered images beneath the true class means, a column for each class."""
    rows: list[tuple[str, list[list[float]]]] = []
    shape = (0, 0)
    for label, said in _RECOVERED.items():
        held = row.artefacts.get(label, {}).get("prototypes")
        if not isinstance(held, Mapping):
            continue
        data = cast("Mapping[str, object]", held)
        size = _numbers(data.get("shape"))
        truth, recovered = _images(data.get("truth"), size), _images(data.get("recovered"), size)
        if truth and not rows:
            shape = (int(size[0]), int(size[1]))
            rows.append(("class mean", truth))
        if recovered:
            rows.append((said, recovered))
    if len(rows) < 2:
        return ""
    columns = max(len(images) for _, images in rows)
    side, left = 40, 96
    step = side * shape[0] / shape[1] + 8
    parts: list[str] = []
    for r, (label, images) in enumerate(rows):
        top = 6 + r * step
        parts.append(svg.text(left - 8, top + step / 2, label, "name", "end"))
        parts += [svg.image(p, *shape, left + c * (side + 6), top, side) for c, p in enumerate(images) if p]
    title = f"{row.name}: recovered prototypes beside the true class means"
    told = (
        f"{columns} classes; rows from top: {', '.join(label for label, _ in rows)}. {words.measured(row.undefended)} "
    )
    told += f"{row.metric} without Guard, {words.measured(row.defended)} through it."
    return svg.drawing(name, left + columns * (side + 6), int(len(rows) * step + 8), title, told, "".join(parts))


def _images(data: object, size: Sequence[float]) -> list[list[float]]:
    """Return images, empty lists for those that are not numbers; nothing when the shape does not fit."""
    if len(size) != 2 or not isinstance(data, list | tuple) or min(size) < 1:
        return []
    images = [_numbers(image) for image in cast("Sequence[object]", data)]
    return images if any(images) and all(len(i) in (0, int(size[0]) * int(size[1])) for i in images) else []


def remaining(report: Report, name: str) -> str:
    """Return, an attack a line, the share of its undefended gain that the strongest attacker still has."""
    shown = [(row, share) for row in report.attacks if (share := leakage(row, row.adaptive))]
    if not shown:
        return ""
    height = 22 * len(shown) + 66
    x, y = Axis(-0.1, 1.1, 180, WIDTH - 16), Axis(0, len(shown), 24, height - 42)
    parts = [_share_axis(x, height - 42)]
    for i, (row, (value, low, high)) in enumerate(shown):
        at = y.at(i + 0.5)
        parts.append(svg.text(170, at + 4, _cut(plain(row.name), 28), "name", "end"))
        if floor := leakage(row, row.floors.get("label_only")):
            title = f"labels alone: {floor[0]:.0%} [{floor[1]:.0%}, {floor[2]:.0%}]"
            parts.append(svg.marker(x.at(floor[0]), at, "diamond", "s-label_only", title))
        parts.append(_bar(x.at(low), at, x.at(high), at, "adaptive"))
        title = f"{row.name}: {value:.0%} [{low:.0%}, {high:.0%}]"
        parts.append(svg.marker(x.at(value), at, "triangle", "s-adaptive", title))
    told = "; ".join(f"{row.name} {v:.0%}, 95% interval {low:.0%} to {high:.0%}" for row, (v, low, high) in shown)
    title = "How much of what each attack gains without Guard the strongest attacker still gains"
    return svg.drawing(name, WIDTH, height, title, told, "".join(parts)) + legend(["adaptive", "label_only"])


def _share_axis(x: Axis, bottom: float) -> str:
    parts: list[str] = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = x.at(value)
        parts.append(svg.tag("path", d=f"M{at:.1f} 20V{bottom:.1f}", class_="axis" if value in (0, 1) else "grid"))
        parts.append(svg.text(at, bottom + 16, f"{value:.0%}"))
    parts.append(svg.text(x.at(0), 14, "learns nothing"))
    parts.append(svg.text(x.at(1), 14, "as without Guard", anchor="end" if x.at(1) > WIDTH - 60 else "middle"))
    parts.append(svg.text((x.start + x.end) / 2, bottom + 34, "share of the undefended gain that is left", "label"))
    return "".join(parts)


def tradeoff(report: Report, name: str) -> tuple[str, list[tuple[int, Row, float, tuple[float, float, float]]]]:
    """Return utility against leakage, a numbered point an attack, and what the numbers stand for.

    The horizontal place is what honest users of the attack's victim pay, in mean L1; without Guard it is (0, 100%).
    """
    paid = {u.victim: u.mean_l1 for u in report.utility if math.isfinite(u.mean_l1)}
    shown = [
        (row, paid[row.victim], share)
        for row in report.attacks
        if row.victim in paid and nothing_learnt(row) and (share := leakage(row, row.adaptive))
    ]
    if not shown:
        return "", []
    points = [(i, row, cost, share) for i, (row, cost, share) in enumerate(shown, 1)]
    x = Axis(0, 1.15 * max(0.01, *(cost for _, _, cost, _ in points)), 58, WIDTH - 20)
    y = Axis(-0.1, 1.12, HEIGHT - 48, 28)
    parts = [
        svg.frame(x, y, "price: mean L1 between released and true scores", "gain that is left (1: as without Guard)")
    ]
    parts.append(svg.marker(x.at(0), y.at(1), "circle", "s-undefended", "without Guard"))
    for number, row, cost, (value, low, high) in points:
        # Attacks on one victim share their price: they stand side by side, in order.
        of_victim = [p[0] for p in points if p[1].victim == row.victim]
        at = x.at(cost) + 13 * (of_victim.index(number) - (len(of_victim) - 1) / 2)
        parts.append(_bar(at, y.at(low), at, y.at(high), "adaptive"))
        title = f"{row.name}: {value:.0%} [{low:.0%}, {high:.0%}] at mean L1 {cost:.3f}"
        parts.append(svg.marker(at, y.at(value), "triangle", "s-adaptive", title))
        parts.append(svg.text(at + 6, y.at(value) - 5, str(number), "name", "start"))
    told = "; ".join(f"{row.name} on {row.victim}: {share[0]:.0%} at {cost:.3f}" for _, row, cost, share in points)
    title = "What honest users pay against what the strongest attacker still gains"
    drawn = svg.drawing(name, WIDTH, HEIGHT, title, told, "".join(parts))
    return drawn + legend(["undefended", "adaptive"]), points
