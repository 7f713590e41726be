"""Small SVG charts by hand: axes, lines, points with intervals, images.

Colours and fonts come from the page's style sheet by class, so that a chart follows light and dark, and nothing in it
is an attribute that a strict Content-Security-Policy would drop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from guard.selftest.report.words import plain

Shape = Literal["circle", "square", "triangle", "diamond", "cross"]
_SHAPES: dict[Shape, str] = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "square": "M-3.6-3.6h7.2v7.2h-7.2z",
    "triangle": "M0-4.8L4.6 3.6H-4.6z",
    "diamond": "M0-5L5 0L0 5L-5 0z",
    "cross": "M-4-4L4 4M-4 4L4-4",
}


def tag(name: str, content: str = "", **attributes: object) -> str:
    """Return an element; `class_` is the class, None leaves an attribute out, content is markup.

    >>> tag("g", class_="a&b", x=None)
    '<g class="a&amp;b"></g>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def text(x: float, y: float, words: str, class_: str = "tick", anchor: str = "middle") -> str:
    """Return a line of text."""
    return tag("text", escape(plain(words)), x=x, y=y, class_=class_, text_anchor=anchor)


def marker(x: float, y: float, shape: Shape, class_: str, title: str = "") -> str:
    """Return a point."""
    inner = tag("title", escape(plain(title))) if title else ""
    return tag("path", inner, d=_SHAPES[shape], class_=f"mark {class_}", transform=f"translate({x:.1f} {y:.1f})")


def line(points: Iterable[tuple[float, float]], class_: str) -> str:
    """Return a line through points in the drawing's units."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polyline", points=path, class_=f"line {class_}")


def drawing(name: str, width: int, height: int, title: str, description: str, content: str) -> str:
    """Return a drawing that screen readers read as one image.

    Args:
        name: unique on the page.
        width: of its own units.
        height: likewise.
        title: what it shows.
        description: what a reader who does not see it must know.
        content: markup.
    """
    told = tag("title", escape(plain(title)), id=f"{name}-t") + tag("desc", escape(plain(description)), id=f"{name}-d")
    shape = "chart square" if width == height else "chart"
    return tag(
        "svg", told + content, viewBox=f"0 0 {width} {height}", role="img", class_=shape,
        aria_labelledby=f"{name}-t {name}-d",
    )  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """One axis.

    Args:
        low: least value.
        high: greatest.
        start: where `low` is drawn.
        end: where `high` is drawn.
        log: logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where a value is drawn; what lies outside is drawn on the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values to mark: about five, or powers of ten.

        >>> Axis(0, 1, 0, 100).ticks(), Axis(1, 1000, 0, 100, log=True).ticks()
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 10.0, 100.0, 1000.0])
        """
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            powers = [10.0**i for i in range(first, last + 1)]
            if len(powers) > 2:
                return powers
            fine = [m * 10.0**i for i in range(first - 1, last + 1) for m in (1, 2, 5)]
            return [value for value in fine if self.low <= value * (1 + 1e-9) and value <= self.high * (1 + 1e-9)]
        span = self.high - self.low
        step = next(s for e in range(-9, 12) for s in (10.0**e, 2 * 10.0**e, 5 * 10.0**e) if span / s <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def spanning(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Axis:
    """Return a linear axis that holds all values with some room, from 0 if asked."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    return Axis(min(0.0, low) if zero else low - room, high + room, start, end)


def short(value: float) -> str:
    """Return a tick's value.

    >>> short(0.2), short(10000), short(0.001), short(2500)
    ('0.2', '10k', '0.001', '2.5k')
    """
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def frame(x: Axis, y: Axis, x_title: str, y_title: str) -> str:
    """Return axes with grid, ticks and titles."""
    parts: list[str] = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(tag("path", d=f"M{x.start:.1f} {at:.1f}H{x.end:.1f}", class_="grid"))
        parts.append(text(x.start - 6, at + 4, short(value), anchor="end"))
    for value in x.ticks():
        at = x.at(value)
        parts.append(tag("path", d=f"M{at:.1f} {y.start:.1f}V{y.end:.1f}", class_="grid"))
        parts.append(text(at, y.start + 16, short(value)))
    parts.append(tag("path", d=f"M{x.start:.1f} {y.end:.1f}V{y.start:.1f}H{x.end:.1f}", class_="axis"))
    parts.append(text((x.start + x.end) / 2, y.start + 34, x_title, "label"))
    parts.append(text(x.start - 34, y.end - 10, y_title, "label", "start"))
    return "".join(parts)


def image(pixels: Sequence[float], rows: int, columns: int, x: float, y: float, side: float) -> str:
    """Return a grey image, each scaled from its own darkest to its own lightest pixel, in 12 shades.

    Args:
        pixels: row by row.
        rows: how many.
        columns: how many.
        x: left edge.
        y: upper edge.
        side: its width; pixels are square.
    """
    low, high = min(pixels), max(pixels)
    size = side / columns
    shades: dict[int, list[str]] = {}
    for i, value in enumerate(pixels[: rows * columns]):
        shade = round(11 * (value - low) / (high - low)) if high > low else 0
        if shade:
            shades.setdefault(shade, []).append(f"M{i % columns} {i // columns}h1v1h-1z")
    parts = [tag("path", d=f"M0 0h{columns}v{rows}h-{columns}z", class_="g0")]
    parts += [tag("path", d="".join(cells), class_=f"g{shade}") for shade, cells in sorted(shades.items())]
    return tag("g", "".join(parts), transform=f"translate({x:.1f} {y:.1f}) scale({size:.3f})")
