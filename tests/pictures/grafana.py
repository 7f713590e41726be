"""Draw docs/images/grafana-*.png from the dashboards' JSON and a real Prometheus: `python -m tests.pictures.grafana`.

Four minutes of the mixed load of `tests.support.observed`: customers first, then thieves; a new policy, a policy that
cannot be loaded and is mended, a full disk, a state that hangs.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.pictures.panels import Series, draw
from tests.support.observed import Scene, scene
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from tests.support.observed import Prometheus

CALM_S = 60
STEP_S = 2

Json = Any  # Any: JSON


def story(found: Scene) -> None:
    """Let things happen."""
    wait_until = time.monotonic() + CALM_S + 20
    time.sleep(max(0, wait_until - time.monotonic()))
    found.edit("second")
    time.sleep(40)
    found.slow_state(10)
    time.sleep(20)
    found.edit("")
    time.sleep(15)
    found.edit("third")
    time.sleep(10)
    with found.full_disk():
        found.prometheus.until("sum(guard_audit_dropped_total) > 0")
    time.sleep(45)


class Answers:
    """Answers panels' targets from a Prometheus.

    Args:
        prometheus: it.
        until_s: where the picture ends.
    """

    def __init__(self, prometheus: Prometheus, until_s: float) -> None:
        self._prometheus, self._until_s = prometheus, until_s

    def _filled_in(self, expr: str) -> str:
        values = {"job": ".*", "instance": ".*", "route": ".*", "__rate_interval": "10s"}
        values["__range"] = f"{int(self._until_s - self._prometheus.began_s)}s"
        return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)

    def __call__(self, target: Json) -> list[Series]:
        """Return the series of one target."""
        expr = self._filled_in(target["expr"])
        if target.get("format") == "table":
            found = [series["metric"] for series in self._prometheus.instant(expr, self._until_s)]
            columns = ("instance", "name", "mode", "digest")
            rows = ["\t".join(columns), *("\t".join(metric[c] for c in columns) for metric in found)]
            return [Series(row, np.zeros(1), np.zeros(1)) for row in rows]
        answered = (
            [{"metric": s["metric"], "values": [s["value"]]} for s in self._prometheus.instant(expr, self._until_s)]
            if target.get("instant")
            else self._prometheus.range(expr, STEP_S, self._until_s)
        )
        grid = np.arange(self._prometheus.began_s, self._until_s, STEP_S)
        return [self._series(target, series, grid) for series in answered]

    def _series(self, target: Json, series: Json, grid: Any) -> Series:  # Any: numpy's array of floats
        name = re.sub(r"\{\{(\w+)\}\}", lambda found: series["metric"].get(found[1], ""), target["legendFormat"])
        if target.get("instant"):
            return Series(name, np.array([self._until_s]), np.array([float(series["values"][-1][1])]))
        known = {round(moment - grid[0]): float(value) for moment, value in series["values"]}
        values = [known.get(round(moment - grid[0]), float("nan")) for moment in grid]
        return Series(name, grid, np.array(values))

    def moments(self, expr: str) -> list[float]:
        """Return when an annotation begins."""
        found: list[float] = []
        for series in self._prometheus.range(self._filled_in(expr), STEP_S, self._until_s):
            times = [moment for moment, _ in series["values"]]
            found += [
                moment for before, moment in zip([0, *times], times, strict=False) if moment - before > STEP_S * 2
            ]
        return found


def main() -> None:
    """Run the load, and draw both dashboards."""
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text()
    images = ROOT / "docs" / "images"
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder), rules, CALM_S) as found:
        story(found)
        answers = Answers(found.prometheus, time.time())
        for name in ("overview", "security"):
            document: Json = json.loads((ROOT / "deploy" / "grafana" / f"{name}.json").read_text())
            marks = [(a["name"], a["iconColor"], answers.moments(a["expr"])) for a in document["annotations"]["list"]]
            draw(document, answers, marks, images / f"grafana-{name}.png")


if __name__ == "__main__":
    main()
