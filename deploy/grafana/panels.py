"""What Guard's dashboards are made of: panels with a unit, thresholds, words for three in the morning and a runbook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, Panel, ThresholdsConfig
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GUARD = 'job=~"$job", instance=~"$instance"'
ROUTE = f'{GUARD}, route=~"$route"'
CLOSED = "state_unavailable|audit_unavailable|ledger_terms|ledger_terms_changed|overloaded|internal"
"""Outcomes of requests that Guard refused because it could not do its work; the same as in rules.yml."""
GREEN, YELLOW, ORANGE, RED, GREY = "green", "yellow", "orange", "red", "text"
COLOURS = {
    "allow": GREEN,
    "ok": GREEN,
    "status": "blue",
    "alert": YELLOW,
    "label_only": "purple",
    "degrade": ORANGE,
    "throttle": "semi-dark-orange",
    "deny": RED,
}

Kind = Literal["stat", "lines", "stack", "bars", "heat", "gauge", "table"]
Steps = Sequence[tuple[float | None, str]]


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Args:
        expr: PromQL; `{GUARD` and `{ROUTE` stand for the selectors of the dashboard's variables.
        legend: what a series is called.
    """

    expr: str
    legend: str = ""

    @property
    def text(self) -> str:
        """The query as Grafana gets it."""
        return self.expr.replace("{GUARD", "{" + GUARD).replace("{ROUTE", "{" + ROUTE).replace("{CLOSED}", CLOSED)


@dataclass(frozen=True)
class Spec:
    """One panel.

    Args:
        title: a plain noun or a question.
        says: what it shows, what is normal, what to do when it is not.
        kind: how it is drawn.
        queries: what is asked.
        unit: Grafana's id of the unit.
        steps: thresholds as (from, colour), upwards; green below the first, unless that is from None.
        runbook: page under docs/runbooks, without its ending.
        width: of 24 columns.
        texts: what values are shown as: value, words, colour.
        low: least of the axis.
        high: greatest of the axis.
        idle: what is shown where there is nothing.
        decimals: digits after the point.
        names: a stat shows the series' name, not its value.
    """

    title: str
    says: str
    kind: Kind
    queries: Sequence[Query]
    unit: str = "short"
    steps: Steps = ()
    runbook: str = ""
    width: int = 8
    texts: Sequence[tuple[str, str, str]] = ()
    low: float | None = 0
    high: float | None = None
    idle: str = "nothing"
    decimals: int | None = None
    names: bool = False


def quantile(q: float, family: str, where: str = "{ROUTE}", window: str = "$__rate_interval") -> str:
    """Return the query for a quantile of a histogram."""
    return f"histogram_quantile({q}, sum by (le) (rate({family}_bucket{where}[{window}])))"


def clients_above(power: int) -> str:
    """Return the query for how many clients' evidence is above 10 to a power.

    The histogram is of this moment: no rate. It has no `_count`, because some of its bounds are negative.
    """
    below = f'sum(guard_evidence_log10_bucket{{ROUTE, le="{power}.0"}})'
    return 'sum(guard_evidence_log10_bucket{ROUTE, le="+Inf"}) - ' + below


def panel(spec: Spec) -> Panel:
    """Build a panel for Grafana."""
    made = _MAKE[spec.kind](spec)
    made.title(spec.title).description(spec.says).datasource(PROMETHEUS).unit(spec.unit).no_value(spec.idle)
    made.span(spec.width).height(4 if spec.kind == "stat" else 8)
    steps = spec.steps if spec.steps and spec.steps[0][0] is None else [(None, GREEN), *spec.steps]
    made.thresholds(ThresholdsConfig().steps([model.Threshold(value, colour) for value, colour in steps]))
    if spec.low is not None:
        made.min(spec.low)
    if spec.high is not None:
        made.max(spec.high)
    if spec.decimals is not None:
        made.decimals(spec.decimals)
    if spec.runbook:
        url = "${docs}/runbooks/" + spec.runbook + ".html"
        made.links([DashboardLink(f"Runbook: {spec.runbook}").url(url).type(_LINK).target_blank(True)])
    for number, query in enumerate(spec.queries):
        made.with_target(_target(query, spec.kind).ref_id(chr(ord("A") + number)))
    return made


_LINK = model.DashboardLinkType.LINK


def _target(query: Query, kind: Kind) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.text).datasource(PROMETHEUS)
    if query.legend:
        made.legend_format(query.legend)
    if kind == "heat":
        made.format(PromQueryFormat.HEATMAP).legend_format("{{le}}")
    if kind == "table":
        made.format(PromQueryFormat.TABLE)
    return made.instant() if kind in ("table", "gauge") else made.range()


def _stat(spec: Spec) -> Panel:
    made = stat.Panel().color_mode(BigValueColorMode.BACKGROUND).reduce_options(_last())
    made.graph_mode(BigValueGraphMode.NONE if spec.texts or spec.names else BigValueGraphMode.AREA)
    made.text_mode(BigValueTextMode.NAME if spec.names else BigValueTextMode.VALUE)
    made.mappings(_mappings(spec))
    for value, _, colour in spec.texts if spec.names else ():
        made.override_by_regexp(
            f"/^{value}/", [model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})]
        )
    return made


def _mappings(spec: Spec) -> list[model.ValueMapping]:
    idle = model.ValueMappingResult(text=spec.idle, color=GREY)
    found: list[model.ValueMapping] = [
        model.SpecialValueMap(model.DashboardSpecialValueMapOptions(model.SpecialValueMatch.NULL_AND_NAN, idle))
    ]
    if spec.texts and not spec.names:
        said = {value: model.ValueMappingResult(text=text, color=colour) for value, text, colour in spec.texts}
        found.append(model.ValueMap(said))
    return found


def _lines(spec: Spec) -> Panel:
    stacked, bars = spec.kind == "stack", spec.kind == "bars"
    made = timeseries.Panel().line_width(1).fill_opacity(30 if stacked else 80 if bars else 8)
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
    made.legend(legend.show_legend(True).calcs(["lastNotNull", "max"]))
    made.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if stacked or bars:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if bars:
        made.draw_style(timeseries.common.GraphDrawStyle.BARS)
    if spec.steps:
        made.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(timeseries.common.GraphTresholdsStyleMode.DASHED)
        )
    coloured = any(label in query.legend for query in spec.queries for label in ("{{action}}", "{{outcome}}"))
    for name, colour in COLOURS.items() if coloured else ():
        made.override_by_regexp(
            f"/^{name}( |$)/", [model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})]
        )
    return made


def _heat(spec: Spec) -> Panel:
    made = heatmap.Panel().calculate(False).hide_legend().show_tooltip()
    made.color(heatmap.HeatmapColorOptions().mode(heatmap.heatmap.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
    return made.y_axis(heatmap.YAxisConfig().unit(spec.unit)).cell_gap(1)


def _gauge(spec: Spec) -> Panel:
    del spec
    return bargauge.Panel().orientation(VizOrientation.HORIZONTAL).reduce_options(_last())


def _table(spec: Spec) -> Panel:
    del spec
    hidden = {"Time": True, "Value": True, "__name__": True}
    return (
        table.Panel()
        .show_header(True)
        .with_transformation(model.DataTransformerConfig("organize", {"excludeByName": hidden}))
    )


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


_MAKE = {
    "stat": _stat,
    "lines": _lines,
    "stack": _lines,
    "bars": _lines,
    "heat": _heat,
    "gauge": _gauge,
    "table": _table,
}
