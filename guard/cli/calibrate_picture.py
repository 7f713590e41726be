"""The evidence against honest clients as it runs, with the levels' thresholds, as SVG."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from guard.evidence.values import WINDOW
from guard.selftest.report import svg
from guard.selftest.report.svg import Axis

if TYPE_CHECKING:
    from guard.calibrate.findings import Findings

WIDTH, HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 84, 62
_POINTS = 150
_LINE = 15.0
_LN_10 = log(10)
_STYLE = """
svg{background:#fff;font-family:system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
text{fill:#1f2328;font-size:12px}.title{font-size:16px;font-weight:600}.tick,.sub{fill:#57606a}
.grid{stroke:#eaeef2;fill:none}.axis{stroke:#57606a;fill:none}.line{fill:none;stroke-width:1.2;stroke:#2f6f9f;opacity:.3}
.line.s-level{stroke:#b3261e;stroke-width:1.5;opacity:1;stroke-dasharray:6 4}
@media(prefers-color-scheme:dark){svg{background:#0e1116}text{fill:#e6e9ee}.tick,.sub{fill:#9aa4b0}
.grid{stroke:#21262d}.axis{stroke:#9aa4b0}.line{stroke:#79b8ff}.line.s-level{stroke:#ff8a80}}
"""


def draw(name: str, findings: Findings) -> str:
    """Return the picture, a whole SVG file: a line a held-out client, those that got furthest.

    Args:
        name: the route's.
        findings: of the calibration; all signals' evidence is drawn.
    """
    levels = [level for tier, level in findings.levels if tier == "any"]
    longest = max([WINDOW, *(run.queries for run in findings.curves)])
    tops = [level.threshold for level in levels] + [float(run.any.max()) for run in findings.curves]
    bottoms = [0.0] + [float(run.any.min()) for run in findings.curves]
    x = Axis(0.0, float(longest), _LEFT, WIDTH - _RIGHT)
    y = Axis(min(bottoms) / _LN_10 - 0.2, max(tops) / _LN_10 * 1.08, HEIGHT - _BOTTOM, _TOP)
    parts = [svg.tag("style", _STYLE)]
    parts.append(svg.text(_LEFT, 28, f"Evidence against honest clients of {name}", "title", "start"))
    told = f"{len(findings.curves)} held-out clients, those that got furthest; all signals; nothing was fitted to them"
    parts.append(svg.text(_LEFT, 48, told, "sub", "start"))
    parts.append(svg.frame(x, y, "queries of a client", "log10 of the e-value"))
    for run in findings.curves:
        step = max(1, len(run.any) // _POINTS)
        # The last look is drawn whatever the step, and every step's greatest: a peak must not be thinned away.
        heights = [float(run.any[i : i + step].max()) for i in range(0, len(run.any), step)]
        points = [(x.at(min(i * step * WINDOW, run.queries)), y.at(h / _LN_10)) for i, h in enumerate(heights)]
        parts.append(svg.line(points, "s-client"))
    above = 0.0
    for level in sorted(levels, key=lambda level: -level.threshold):
        at = y.at(level.threshold / _LN_10)
        parts.append(svg.line([(_LEFT, at), (WIDTH - _RIGHT, at)], "s-level"))
        above = max(at + 4, above + _LINE)  # two levels may share a threshold, and not a place
        parts.append(svg.text(WIDTH - _RIGHT + 8, above, f"{level.alpha:g}, {_kind(level.clients)}", "sub", "start"))
    drawn = svg.drawing("evidence", WIDTH, HEIGHT, f"Evidence against honest clients of {name}", told, "".join(parts))
    return drawn.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" ', 1)


def _kind(clients: int) -> str:
    return f"calibrated on {clients:,}" if clients else "nominal"
