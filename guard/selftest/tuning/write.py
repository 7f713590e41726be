"""The chosen policy as commented YAML, and the front as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from guard.policy.presets import preset_names
from guard.policy.schema import Policy, Route
from guard.selftest.lab.data import untyped
from guard.selftest.measures import safer_higher
from guard.selftest.tuning.search import Point, Wanted, front


def policy_text(
    source: str, policy: Policy, route: Route, best: Point, wanted: Wanted, *, target: str, seed: int
) -> str:
    """Return a policy that extends the operator's and replaces what was tuned.

    Secrets and identity stay where they are: only routes and gates are written out.

    Args:
        source: the operator's policy, a preset or a path.
        policy: it, resolved.
        route: the route that was tuned.
        best: the choice.
        wanted: what was asked for.
        target: what was attacked.
        seed: of the search.
    """
    made = best.candidate.applied(policy, route)
    document = {
        "version": 1,
        "extends": source if source in preset_names() else str(Path(source).resolve()),
        "name": f"{policy.name}-tuned",
        "routes": [_plain(r) for r in made.routes],
        "selftest": {"gates": [g.model_dump(mode="json", exclude_none=True) for g in wanted.gates]},
    }
    changed, l1 = best.price
    lines = [
        f"# Made by `guard tune` on {datetime.now(UTC):%Y-%m-%d} against {target}, seed {seed}, from {source}.",
        f"# Route {route.name}: {best.candidate}.",
        f"# Price: {changed:.1%} of labels change; scores move by {l1:.3f} on average (mean L1, at worst).",
        f"# Leakage: {wanted.probe} reaches {wanted.metric} {best.leakage:.3f}." if best.leakage is not None else "#",
    ]
    for gate in best.gates:
        sign = "≥" if gate.bound == "min" else "≤"
        value = "not measured" if gate.value is None else f"{gate.value:.4g}"
        verdict = "holds" if gate.held else "fails"
        lines.append(f"# Gate {gate.subject} {gate.metric} {sign} {gate.limit:g}: {value}, {verdict}.")
    lines.append(
        "# Figures are of one seed on small models; run `guard selftest --policy` on this file before it matters."
    )
    return "\n".join(lines) + "\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=140)


def _plain(route: Route) -> dict[str, Any]:  # Any: plain YAML data
    return route.model_dump(mode="json", exclude_unset=True)


def draw_front(points: Sequence[Point], best: Point | None, wanted: Wanted, path: Path) -> None:
    """Draw price against leakage as SVG or PNG, by the path's suffix.

    Args:
        points: what was probed.
        best: the choice, marked.
        wanted: names the axes.
        path: where to.
    """
    figure_class: Any = untyped("matplotlib.figure").Figure  # Any: matplotlib's figures, without a display
    figure = figure_class(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    probed = [p for p in points if p.leakage is not None]
    best_front = front(points, wanted.metric)
    axes.scatter([p.price[1] for p in probed], [p.leakage for p in probed], color="#8a8f98", label="tried")
    axes.plot(
        [p.price[1] for p in best_front], [p.leakage for p in best_front], "o-", color="#1f6feb", label="Pareto front"
    )
    if best is not None and best.leakage is not None:
        axes.plot([best.price[1]], [best.leakage], "*", markersize=18, color="#c2410c", label="chosen")
    for i, point in enumerate(best_front):
        offset = (6, 8 if i % 2 else -14)
        axes.annotate(
            str(point.candidate), (point.price[1], point.leakage), xytext=offset, textcoords="offset points", fontsize=8
        )
    axes.set_xlabel("what honest users pay: mean L1 of their scores")
    better = "higher" if safer_higher(wanted.metric) else "lower"
    axes.set_ylabel(f"{wanted.metric} of the strongest {wanted.probe}\n({better} is safer)")
    axes.margins(x=0.3, y=0.12)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
