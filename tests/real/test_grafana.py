"""Guard's dashboards as Grafana's own SDK builds and loads them, and what every panel must have to be read at night."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.processes import ROOT, client, venv_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = ("overview", "security")

Object = dict[str, Any]  # Any: JSON


def dashboard(name: str) -> Object:
    return json.loads((GRAFANA / f"{name}.json").read_text())


def panels(name: str) -> list[Object]:
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def test_what_is_committed_is_what_the_script_writes(tmp_path: Path) -> None:
    command = [str(venv_of("grafana")), "-W", "error", str(GRAFANA / "build.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    for name in DASHBOARDS:
        assert (tmp_path / f"{name}.json").read_text() == (GRAFANA / f"{name}.json").read_text()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_sdk_understands_all_of_a_dashboard(name: str) -> None:
    understood = client(venv_of("grafana"), "grafana", str(GRAFANA / f"{name}.json"))
    written = dashboard(name)
    for annotation in written["annotations"]["list"]:
        for word in ("titleFormat", "textFormat", "step"):
            del annotation[word]  # members of Prometheus's annotations, which the SDK does not know
    for panel in understood["panels"]:
        if panel["type"] != "row" and panel["fieldConfig"]["defaults"].get("custom") == {}:
            del panel["fieldConfig"]["defaults"]["custom"]
    assert understood == written


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_what_it_is_in_which_unit_and_what_to_do(name: str) -> None:
    found = panels(name)
    assert len(found) >= 20
    assert len({panel["title"] for panel in found}) == len(found)
    for panel in found:
        assert len(panel["description"].split()) >= 3, panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        assert defaults["thresholds"]["steps"][0]["value"] is None, panel["title"]
        links: list[Object] = panel.get("links") or []
        for link in links:
            page = re.fullmatch(r"\$\{docs\}/runbooks/([a-z-]+)\.html", link["url"])
            assert page is not None, link
            assert (ROOT / "docs" / "runbooks" / f"{page[1]}.md").is_file(), page[1]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target.get("legendFormat") or panel["type"] == "table", panel["title"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    rows = {y for _, y in taken}
    assert len(taken) == 24 * len(rows), "a gap"
    assert rows == set(range(len(rows)))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_queries_name_only_variables_that_there_are(name: str) -> None:
    document = dashboard(name)
    known = {variable["name"] for variable in document["templating"]["list"]} | {"__rate_interval", "__range"}
    assert {"datasource", "route", "instance"} <= known
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([document["panels"], document["annotations"], document["links"]])))
    assert used <= known


def test_histograms_of_this_moment_are_not_read_as_rates() -> None:
    for name in DASHBOARDS:
        for panel in panels(name):
            for target in panel["targets"]:
                pattern = r"(rate|increase)\(guard_(evidence_log10|information_meter)"
                assert not re.search(pattern, target["expr"]), panel["title"]


def test_grafana_is_told_where_prometheus_and_the_dashboards_are() -> None:
    folder = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "guard.yaml").read_text())["providers"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert provider["type"] == "file"
