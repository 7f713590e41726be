"""Write Guard's dashboards: `python deploy/grafana/build.py [FOLDER]` with grafana-foundation-sdk installed.

What is committed beside this file is what it writes; a test compares them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import overview
import security
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from panels import GUARD, PROMETHEUS, panel

HERE = Path(__file__).parent
_OTHER = {overview.UID: security, security.UID: overview}

Object = dict[str, Any]  # Any: JSON


def build(source: ModuleType) -> Object:
    """Return a dashboard's document."""
    made = builders.Dashboard(source.TITLE).uid(source.UID).description(source.DESCRIPTION).tags(["guard"])
    made.time("now-1h", "now").refresh("30s").timezone("browser").readonly().tooltip(
        model.DashboardCursorSync.CROSSHAIR
    )
    other = _OTHER[source.UID]
    made.link(_link(other.TITLE, f"/d/{other.UID}").include_vars(True).keep_time(True))
    made.link(_link("Operations", "${docs}/operations.html").target_blank(True))
    for variable in _variables():
        made.with_variable(variable)
    for name, expr, colour in _ANNOTATIONS:
        text = builders.AnnotationQuery().name(name).datasource(PROMETHEUS).enable(True).icon_color(colour)
        made.annotation(text.expr(expr.replace("{GUARD", "{" + GUARD)))
    for spec in source.TOP:
        made.with_panel(panel(spec))
    for title, specs in source.ROWS:
        made.with_row(builders.Row(title))
        for spec in specs:
            made.with_panel(panel(spec))
    document: Object = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    for number, found in enumerate(document["panels"], 1):
        found["id"] = number
    for found, words in zip(document["annotations"]["list"], _WORDS, strict=True):
        found.update(words)  # what an event is called: the SDK's annotation does not know these members
    return document


def _link(title: str, url: str) -> builders.DashboardLink:
    return builders.DashboardLink(title).url(url).type(model.DashboardLinkType.LINK)


def _variables() -> list[Any]:  # Any: the SDK's builders of variables have no common name
    hidden = model.VariableHide.HIDE_VARIABLE
    every = model.VariableOption(selected=True, text="All", value="$__all")

    def choice(name: str, query: str) -> builders.QueryVariable:
        made = builders.QueryVariable(name).label(name.capitalize()).datasource(PROMETHEUS).query(query)
        made.multi(True).include_all(True).all_value(".*").current(every).sort(model.VariableSort.ALPHABETICAL_ASC)
        return made.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)

    docs = "where the docs are served: `make docs`, then `python -m http.server --directory site`"
    return [
        builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        choice("job", "label_values(guard_build_info, job)"),
        choice("instance", 'label_values(guard_build_info{job=~"$job"}, instance)'),
        choice("route", 'label_values(guard_requests_total{job=~"$job", instance=~"$instance"}, route)'),
        builders.TextBoxVariable("docs").default_value("http://127.0.0.1:8000").description(docs).hide(hidden),
    ]


_ANNOTATIONS = (
    (
        "Policy changes",
        "sum by (name, digest, mode) (guard_policy_info{GUARD})"
        " unless sum by (name, digest, mode) (guard_policy_info{GUARD} offset 1m)",
        "blue",
    ),
    ("Reloads", "sum by (instance, result) (increase(guard_policy_reloads_total{GUARD}[1m])) > 0", "purple"),
)
_WORDS: tuple[Object, ...] = (
    {"titleFormat": "policy {{name}}, {{mode}}", "textFormat": "digest {{digest}}", "step": "60s"},
    {"titleFormat": "reload: {{result}}", "textFormat": "{{instance}}", "step": "60s"},
)


def main(folder: Path) -> None:
    """Write both dashboards."""
    for source in (overview, security):
        text = json.dumps(build(source), indent=2, ensure_ascii=False)
        (folder / f"{source.__name__}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
