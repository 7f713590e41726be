"""Draws a Grafana dashboard's panels with matplotlib: its own layout, titles, units and thresholds, and real data.

An honest stand-in for pictures where no Grafana runs: what it draws is the dashboard's JSON and what Prometheus
answers, and it says so at the foot of the picture. Grafana draws panels its own way.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import dates
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LinearLocator, MaxNLocator
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


Json = Any  # Any: a dashboard's JSON, and Prometheus's
Drawn = Any  # Any: matplotlib's figures and axes, whose arguments have no full types
Floats = npt.NDArray[np.float64]

COLUMN_IN, ROW_IN, GAP_IN, HEAD_IN, FOOT_IN = 0.78, 0.36, 0.07, 0.75, 0.4
BACK, PANEL, EDGE, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#d5d7dc", "#8e9199"
COLOURS: dict[str, str] = {
    "green": "#56a64b",
    "yellow": "#d9a514",
    "orange": "#e0752d",
    "semi-dark-orange": "#b35a1f",
    "red": "#d44a3a",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "text": "#5b6069",
}
CYCLE = ("#73bf69", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#fade2a", "#8ab8ff", "#ffb357", "#96d98d", "#ca95e5")
FOOT = "Drawn by tests/pictures/grafana.py from the dashboard's JSON and a real Prometheus; Grafana draws its own way."


@dataclass(frozen=True)
class Series:
    """One series of a panel: its name, times (seconds since the epoch) and values."""

    name: str
    times: Floats
    values: Floats


Ask = Callable[[Json], list[Series]]
"""Answers a target of a panel."""


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """Return a number with its unit, as Grafana would.

    >>> shown(0.0123, "percentunit"), shown(0.00042, "s"), shown(1234.5, "reqps"), shown(5e7, "bytes")
    ('1.23%', '420 µs', '1.23 K req/s', '47.7 MiB')
    """
    if math.isnan(value):
        return "-"
    tail = {"reqps": " req/s", "rowsps": " rows/s", "ops": " ops/s", "cps": " c/s"}.get(unit, "")
    if decimals is not None and unit != "percentunit":
        return f"{value:.{decimals}f}{tail}"
    if unit == "percentunit":
        return f"{_plain(value * 100)}%"
    if unit == "s":
        for least, factor, name in ((1, 1, "s"), (1e-3, 1e3, "ms"), (0, 1e6, "µs")):
            if abs(value) >= least:
                return f"{_plain(value * factor)} {name}"
    if unit == "bytes":
        for power, name in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
            if abs(value) >= 1024**power:
                return f"{_plain(value / 1024**power)} {name}"
    for factor, name in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if abs(value) >= factor:
            return f"{_plain(value / factor)}{name}{tail}"
    return f"{_plain(value)}{tail}"


def _plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def draw(document: Json, ask: Ask, marks: Sequence[tuple[str, str, Sequence[float]]], path: Path) -> None:
    """Draw a dashboard to a PNG.

    Args:
        document: its JSON.
        ask: answers a panel's target.
        marks: annotations: name, colour and times.
        path: of the PNG.
    """
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in document["panels"])
    width, height = 24 * COLUMN_IN, rows * ROW_IN + HEAD_IN + FOOT_IN
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "text.color": TEXT, "axes.edgecolor": EDGE})
    figure: Drawn = Figure(figsize=(width, height), facecolor=BACK, dpi=100)
    figure.text(0.008, 1 - 0.28 / height, document["title"], size=15, weight="bold", va="center")
    chosen = "   ".join(f"{v['name']}: All" for v in document["templating"]["list"] if v["type"] == "query")
    legend = "   ".join(f"┊ {name}" for name, _, _ in marks)
    figure.text(0.008, 1 - 0.58 / height, f"{chosen}      {legend}", size=9, color=FAINT, va="center")
    figure.text(0.008, 0.18 / height, FOOT, size=9, color=FAINT, va="center")
    for panel in document["panels"]:
        at = panel["gridPos"]
        left, top = at["x"] * COLUMN_IN + GAP_IN, height - HEAD_IN - at["y"] * ROW_IN - GAP_IN
        box = (left, top, at["w"] * COLUMN_IN - 2 * GAP_IN, at["h"] * ROW_IN - 2 * GAP_IN)
        if panel["type"] == "row":
            figure.text(left / width, (top - 0.12) / height, f"▾ {panel['title']}", size=11, weight="bold", va="center")
            continue
        _Panel(figure, panel, box, (width, height), marks).draw([one for t in panel["targets"] for one in ask(t)])
    whole = BytesIO()
    figure.savefig(whole, facecolor=BACK, format="png")
    Image.open(whole).convert("RGB").quantize(255).save(path, optimize=True)  # a third of the size, and no less to see


class _Panel:
    """One panel in its box: left, top, width, height in inches."""

    def __init__(
        self,
        figure: Drawn,
        panel: Json,
        box: tuple[float, float, float, float],
        size: tuple[float, float],
        marks: Sequence[tuple[str, str, Sequence[float]]],
    ) -> None:
        self.figure, self.panel, self.box, self.size, self.marks = figure, panel, box, size, marks
        self.defaults: Json = panel["fieldConfig"]["defaults"]
        self.unit: str = self.defaults["unit"]
        self.steps: list[Json] = self.defaults["thresholds"]["steps"]

    def axes(self, left: float, top: float, right: float, bottom: float) -> Drawn:
        """Return axes within the panel, by margins in inches."""
        x, y, w, h = self.box
        width, height = self.size
        made = self.figure.add_axes(
            ((x + left) / width, (y - h + bottom) / height, (w - left - right) / width, (h - top - bottom) / height)
        )
        made.set_facecolor("none")
        return made

    def frame(self, colour: str = PANEL) -> None:
        """Draw the panel's ground and its title."""
        x, y, w, h = self.box
        width, height = self.size
        ground = Rectangle(
            (x / width, (y - h) / height),
            w / width,
            h / height,
            transform=self.figure.transFigure,
            fc=colour,
            ec=EDGE,
            zorder=-1,
        )
        self.figure.add_artist(ground)
        at, ink = ((x + 0.1) / width, (y - 0.15) / height), TEXT if colour == PANEL else "white"
        self.figure.text(*at, self.panel["title"], size=9, weight="bold", va="center", color=ink)

    def draw(self, series: list[Series]) -> None:
        """Draw the panel as its type says."""
        kind = {"stat": self.stat, "timeseries": self.lines, "heatmap": self.heat, "bargauge": self.bars}
        kind.get(self.panel["type"], self.table)(series)

    def colour(self, value: float) -> str:
        """Return the colour that the thresholds give a value."""
        found: list[str] = [step["color"] for step in self.steps if step["value"] is None or value >= step["value"]]
        return COLOURS.get(found[-1], found[-1])

    def fixed(self, name: str, otherwise: str) -> str:
        """Return the colour that an override gives a series."""
        for override in self.panel["fieldConfig"]["overrides"]:
            pattern = override["matcher"]["options"].strip("/").removeprefix("^")
            stem = pattern.removesuffix("( |$)")
            if name == stem or name.startswith(f"{stem} ") or (pattern == stem and name.startswith(stem)):
                colour: str = override["properties"][0]["value"]["fixedColor"]
                return COLOURS.get(colour, colour)
        return otherwise

    def stat(self, series: list[Series]) -> None:
        """A coloured tile with one value."""
        last = [(one, float(one.values[-1])) for one in series if not math.isnan(one.values[-1])]
        names_only = self.panel["options"]["textMode"] == "name"
        if not last:
            text, colour = self.defaults["noValue"], COLOURS["text"]
        elif names_only:
            text = " / ".join(dict.fromkeys(one.name for one, _ in last))
            colour = self.fixed(last[-1][0].name, COLOURS["text"])
        else:
            value = last[0][1]
            text, colour = shown(value, self.unit, self.defaults.get("decimals")), self.colour(value)
            for mapping in self.defaults.get("mappings", ()):
                said = mapping["options"].get(f"{value:g}") if mapping["type"] == "value" else None
                if said is not None:
                    text, colour = said["text"], COLOURS[said["color"]]
        self.frame(colour)
        if last and self.panel["options"]["graphMode"] == "area":
            axes = self.axes(0, 0.75, 0, 0.02)
            values = last[0][0].values
            axes.fill_between(np.arange(len(values)), np.nan_to_num(values), color="white", alpha=0.22, lw=0)
            axes.set_ylim(0, max(1e-12, float(np.nanmax(values))) * 1.1)
            axes.axis("off")
        x, y, w, h = self.box
        size = 22 if len(text) < 9 else 15
        at = ((x + w / 2) / self.size[0], (y - h * 0.52) / self.size[1])
        self.figure.text(*at, text, size=size, weight="bold", ha="center", va="center", color="white")

    def lines(self, series: list[Series]) -> None:
        """Lines over time, stacked or as bars where the panel says so, with a legend of last and greatest values."""
        self.frame()
        custom = self.defaults["custom"]
        legend = min(len(series), 10)
        columns = 1 if legend <= 3 else 2
        room = 0.16 * math.ceil(legend / columns) + 0.1
        axes = self.axes(0.75, 0.35, 0.3, room + 0.22)
        stacked, bars = "stacking" in custom, custom.get("drawStyle") == "bars"
        base: Floats | float = 0.0
        labels: list[tuple[str, str]] = []
        for number, one in enumerate(series):
            colour = self.fixed(one.name, CYCLE[number % len(CYCLE)])
            moments = [datetime.fromtimestamp(t, UTC) for t in one.times]
            values = np.nan_to_num(one.values) if stacked else one.values
            if bars:
                step = (one.times[1] - one.times[0]) / 86400 if len(one.times) > 1 else 1e-5
                axes.bar(moments, values, width=step, bottom=base, color=colour)
                base = base + values
            elif stacked:
                axes.fill_between(moments, base, base + values, color=colour, alpha=0.45, lw=0)
                axes.plot(moments, base + values, color=colour, lw=1)
                base = base + values
            else:
                axes.plot(moments, values, color=colour, lw=1.2)
                axes.fill_between(moments, 0, values, color=colour, alpha=0.07, lw=0)
            finite = one.values[~np.isnan(one.values)]
            most = float(finite.max()) if len(finite) else math.nan
            last = float(finite[-1]) if len(finite) else math.nan
            labels.append((colour, f"{one.name}  {shown(last, self.unit)}  (max {shown(most, self.unit)})"))
        self._finish(axes, series)
        self._legend(labels[:10], columns)

    def _finish(self, axes: Drawn, series: list[Series]) -> None:
        if series:
            axes.set_xlim(*(datetime.fromtimestamp(t, UTC) for t in (series[0].times[0], series[0].times[-1])))
        top = axes.get_ylim()[1]
        if self.defaults.get("max") is not None:
            top = max(top if not series else 0, self.defaults["max"]) * 1.05
        axes.set_ylim(0, top)
        if "thresholdsStyle" in self.defaults["custom"]:
            for step in self.steps:
                if step["value"] is not None and step["value"] <= top:
                    axes.axhline(step["value"], color=COLOURS[step["color"]], ls="--", lw=1)
        for _, colour, times in self.marks:
            for moment in times:
                axes.axvline(datetime.fromtimestamp(moment, UTC), color=COLOURS[colour], ls=":", lw=1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(self._tick))
        self._time(axes)

    def _tick(self, value: float, place: int | None) -> str:
        del place
        return shown(value, self.unit)

    def _time(self, axes: Drawn) -> None:
        axes.xaxis.set_major_locator(LinearLocator(4))
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
        axes.tick_params(colors=FAINT, labelsize=7, length=0)
        axes.tick_params(axis="x", pad=8)
        axes.grid(color=EDGE, lw=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)

    def _legend(self, labels: list[tuple[str, str]], columns: int) -> None:
        x, y, w, h = self.box
        rows = math.ceil(len(labels) / columns)
        for number, (colour, text) in enumerate(labels):
            column, row = divmod(number, rows)
            left = x + 0.12 + column * (w - 0.2) / columns
            at = (left / self.size[0], (y - h + 0.12 + 0.16 * (rows - 1 - row)) / self.size[1])
            fit = int((w - 0.2) / columns / 0.068)
            self.figure.text(*at, "━ ", size=8, color=colour, va="center", weight="bold")
            self.figure.text(
                at[0] + 0.16 / self.size[0], at[1], textwrap.shorten(text, fit, placeholder=" …"), size=7.5, va="center"
            )

    def heat(self, series: list[Series]) -> None:
        """Buckets over time: darker is more."""
        self.frame()
        axes = self.axes(0.75, 0.35, 0.3, 0.3)
        ordered = sorted(series, key=lambda one: math.inf if one.name == "+Inf" else float(one.name))
        times = ordered[0].times
        counts: Floats = np.diff(
            np.vstack([np.zeros(len(times)), *[np.nan_to_num(one.values) for one in ordered]]), axis=0
        )
        masked: Drawn = np.ma.masked_where(counts <= 0, counts)
        moments: Floats = times / 86400  # matplotlib's own time: days since the epoch
        edges = np.append(moments, moments[-1] + (moments[-1] - moments[0]) / max(1, len(moments) - 1))
        axes.pcolormesh(edges, np.arange(len(ordered) + 1), masked, cmap="Oranges", vmin=0)
        axes.set_yticks(np.arange(len(ordered)) + 0.5, [self._bucket(one.name) for one in ordered])
        axes.xaxis_date()
        self._time(axes)

    def _bucket(self, name: str) -> str:
        return "more" if name == "+Inf" else f"≤ {shown(float(name), self.unit)}"

    def bars(self, series: list[Series]) -> None:
        """One bar a series, coloured by the thresholds."""
        self.frame()
        axes = self.axes(1.7, 0.35, 0.6, 0.12)
        last = [float(one.values[-1]) for one in series]
        axes.barh([one.name for one in series], last, color=[self.colour(value) for value in last], height=0.7)
        for number, value in enumerate(last):
            axes.text(value, number, f" {shown(value, self.unit, self.defaults.get('decimals'))}", va="center", size=8)
        axes.invert_yaxis()
        axes.tick_params(colors=TEXT, labelsize=8, length=0)
        axes.set_xticks([])
        for side in axes.spines.values():
            side.set_visible(False)

    def table(self, series: list[Series]) -> None:
        """A row a series: its labels, which are in its name apart by tabs."""
        self.frame()
        x, y, w, _ = self.box
        rows = [one.name.split("\t") for one in series]
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                at = (
                    (x + 0.15 + column * (w - 0.3) / len(row)) / self.size[0],
                    (y - 0.5 - 0.26 * number) / self.size[1],
                )
                colour = TEXT if number else FAINT
                fit = int((w - 0.3) / len(row) / 0.075)
                self.figure.text(
                    *at,
                    textwrap.shorten(text, fit, placeholder="…") if " " in text else text[:fit],
                    size=8,
                    color=colour,
                )
