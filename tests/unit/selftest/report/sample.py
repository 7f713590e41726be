"""A self-test's report for tests: the figures are near what presets really give, the rows show every case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guard.selftest.results import Figure, GateResult, Report, Row, Utility

RNG_SEED = 3


def figure(
    metric: str, value: float, half: float = 0.01, wrapper: str = "", queries: int = 200, **more: float
) -> Figure:
    """A figure with a symmetric interval; `more` are further metrics of the same attacker."""
    measures = {metric: (value, value - half, value + half)}
    measures |= {name: (v, max(0.0, v - 0.015), min(1.0, v + 0.015)) for name, v in more.items()}
    return Figure(value, value - half, value + half, metric, wrapper, queries, measures)


def row(name: str, threat: str, metric: str, **changes: Any) -> Row:  # Any: a row's members, as `replace` takes them
    """A row with every member, on which tests change what they are about."""
    made = Row(
        name=name,
        title=f"what {name.replace('_', ' ')} does",
        threat=threat,
        atlas="AML.T0024.002",
        source="Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016",
        published="265 queries 99.96% agreement",
        victim="digits",
        parameters={"queries": 200, "draws": "gauss"},
        metric=metric,
        queries=200,
        undefended=None,
        defended=None,
        adaptive=None,
        attackers=(),
        floors={},
        control_met=True,
        criterion=f"{metric} good enough",
        detected_at=None,
        gates=(),
        held=None,
        verdict="not gated",
        helps="a budget of graded answers per customer, then labels, then refusal",
        seconds=4.2,
    )
    return replace(made, **changes)


def gate(subject: str, metric: str, bound: Any, limit: float, value: float | None, held: bool | None) -> GateResult:
    return GateResult(subject, metric, bound, limit, value, held, "" if held is not None else "nothing was measured")


def curve(end: float, start: float, queries: Sequence[int] = (10, 20, 50, 100, 200)) -> list[tuple[int, float]]:
    steps = np.linspace(start, end, len(queries))
    return [(q, float(v)) for q, v in zip(queries, steps, strict=True)]


def roc(power: float) -> list[tuple[float, float]]:
    fpr = np.linspace(0, 1, 120)
    return [(float(f), float(f**power)) for f in fpr]


def prototypes(noise: float) -> Mapping[str, object]:
    rng = np.random.default_rng(RNG_SEED)
    y, x = np.mgrid[0:8, 0:8]
    truth = [np.exp(-((x - 2 - c % 4) ** 2 + (y - 1 - c % 6) ** 2) / (4 + c)).ravel() for c in range(10)]
    recovered = [image + noise * rng.normal(size=64) for image in truth]
    return {"shape": [8, 8], "recovered": [list(i) for i in recovered], "truth": [list(i) for i in truth]}


def softmax() -> Row:
    strongest = figure("surrogate_l1", 0.115, 0.007, "split_accounts", 1600, agreement=0.964, graded_answers=1.0)
    published = figure("surrogate_l1", 0.310, 0.02, "", 200, agreement=0.902)
    labels = figure("surrogate_l1", 0.584, 0.05, "labels", 200, agreement=0.749)
    held = gate("equation_solving_softmax", "surrogate_l1", "min", 0.1, 0.115, True)
    return row(
        "equation_solving_softmax", "model extraction", "surrogate_l1",
        title="copy a softmax regression by solving equations",
        undefended=figure("surrogate_l1", 0.00002, 0.00001, agreement=1.0),
        defended=published, adaptive=strongest, attackers=(strongest, published, labels),
        floors={"zero_query": figure("surrogate_l1", 0.17, 0.012, "", 0, agreement=0.958),
                "label_only": figure("surrogate_l1", 0.584, 0.05, agreement=0.749)},
        detected_at={"label_only": 193, "deny": 3001}, gates=(held,), held=True, verdict="held",
        curves={"undefended": curve(0.0, 1.2), "defended": curve(0.31, 1.3), "adaptive": curve(0.115, 1.1),
                "label_only": curve(0.58, 1.4), "zero_query": curve(0.17, 0.17)},
        notes=("the copy was fitted in four ways; the best counts",),
    )  # fmt: skip


def tree() -> Row:
    strongest = figure("agreement", 0.972, 0.009, "labels", 8000)
    return row(
        "tree_path_finding", "model extraction", "agreement", title="follow a decision tree's paths", victim="affairs",
        undefended=figure("agreement", 0.981, 0.008), defended=figure("agreement", 0.7, 0.02), adaptive=strongest,
        attackers=(strongest, figure("agreement", 0.7, 0.02)), verdict="not held", queries=8000,
        floors={"zero_query": figure("agreement", 0.71, 0.02), "label_only": figure("agreement", 0.97, 0.01)},
    )  # fmt: skip


def lira() -> Row:
    strongest = figure("auc", 0.93, 0.02, "", 400, tpr_at_1_fpr=0.21)
    broken = gate("membership_lira", "auc", "max", 0.7, 0.93, False)
    return row(
        "membership_lira", "membership inference", "auc", title="tell members by shadow models", victim="digits_forest",
        atlas="AML.T0024.000", source="Carlini et al., S&P 2022", gates=(broken,), held=False, verdict="not held",
        undefended=figure("auc", 0.95, 0.015, tpr_at_1_fpr=0.4), defended=strongest, adaptive=strongest,
        attackers=(strongest,), helps="train without memorising: regularise, or train with differential privacy",
        artefacts={"undefended": {"roc": roc(0.1)}, "defended": {"roc": roc(0.3)}, "adaptive": {"roc": roc(0.25)}},
        detected_at={},
    )  # fmt: skip


def inversion() -> Row:
    strongest = figure("correlation", 0.41, 0.1, "split_accounts + cross-entropy 0.001", 20480)
    return row(
        "prototype_inversion", "model inversion", "correlation", title="climb a class's score to its mean image",
        atlas="AML.T0024.001", source="Fredrikson et al., CCS 2015", queries=20480,
        undefended=figure("correlation", 0.86, 0.04), defended=figure("correlation", 0.35, 0.12), adaptive=strongest,
        attackers=(strongest, figure("correlation", 0.35, 0.12)),
        artefacts={"undefended": {"prototypes": prototypes(0.1)}, "defended": {"prototypes": prototypes(0.9)}},
    )  # fmt: skip


def evasion() -> Row:
    strongest = figure("success", 1.0, 0.0, "labels", 15500)
    return row(
        "hopskipjump", "evasion", "success", title="walk along the decision boundary", atlas="AML.T0043",
        source="Chen, Jordan, Wainwright, S&P 2020", undefended=figure("success", 1.0, 0.0), defended=strongest,
        adaptive=strongest, attackers=(strongest,), verdict="not held", queries=15500,
        helps="nothing at this layer: labels suffice; train the model to be robust",
    )  # fmt: skip


def unresolved() -> Row:
    unjudged = gate("good_words", "passed", "max", 0.5, None, None)
    return row(
        "good_words", "evasion", "passed", title="add words that a spam filter likes", victim="spam",
        undefended=figure("passed", 0.6, 0.1), control_met=False, gates=(unjudged,), verdict="unresolved",
        reason="the control reached passed 0.600 and must reach 0.95",
    )  # fmt: skip


def broken_figures() -> Row:
    nothing = Figure(math.nan, math.nan, math.nan, "auc", "", 10, {"auc": (math.nan, math.nan, math.inf)})
    return row(
        "membership_threshold", "membership inference", "auc", undefended=nothing, defended=nothing, adaptive=nothing,
        attackers=(nothing,), curves={"defended": [(10, math.nan)]}, parameters={"limit": math.inf, "some": {"b", "a"}},
    )  # fmt: skip


def utilities() -> list[Utility]:
    return [
        Utility("digits", 0.0, 0.083, 0.031, 0.012, 0.41, 1.9, 0.0, 450),
        Utility("affairs", 0.0, 0.21, 0.05, 0.02, 0.39, 2.2, 0.0, 1592),
        Utility("digits_forest", 0.002, 0.3, None, None, math.nan, math.nan, 0.01, 450),
    ]


def report(**changes: Any) -> Report:  # Any: a report's members, as `replace` takes them
    """A whole report: it fails, since one gate is broken and one row unresolved."""
    rows = (softmax(), tree(), inversion(), lira(), broken_figures(), evasion(), unresolved())
    gates = [g for r in rows for g in r.gates] + [gate("utility", "top1_changed", "max", 0.0, 0.0, True)]
    made = Report(
        policy="strict",
        digest="3fd1c7a0" * 8,
        target="lab",
        route="default",
        mode="default",
        seed=0,
        seeds=1,
        started="2026-02-03T10:20:30+00:00",
        seconds=221.4,
        versions={"guard": "0.3.0", "python": "3.11.7", "numpy": "2.1.0", "scikit-learn": "1.5.2"},
        hardware="2 cores, AMD EPYC",
        substitutions=("match: the lab's own routes", "identity: the lab's keys stand for the policy's"),
        attacks=rows,
        utility=utilities(),
        gates=gates,
        passed=False,
    )
    return replace(made, **changes)


def passing(**changes: Any) -> Report:  # Any: as above
    """A report in which everything holds."""
    rows = (softmax(), tree())
    return replace(report(attacks=rows, gates=softmax().gates, passed=True), **changes)


def live() -> Report:
    """A report of a running Guard: nothing undefended, no floors, no utility."""
    rows = [replace(r, undefended=None, control_met=None, floors={}, curves={}) for r in (softmax(), tree())]
    return report(
        target="https://me:secret@guard.example/v2", attacks=rows, utility=(), gates=softmax().gates, passed=True
    )


def hostile() -> Report:
    """A report whose names try to break out of every format."""
    bad = "<script>alert(1)</script>|`*_[x](http://evil.example)@team\x1b[31m\u202e&\"'\ud800]]>\x00"
    rows = [replace(softmax(), title=bad, victim=bad, notes=(bad,), parameters={bad: bad}, helps=bad, reason=bad)]
    return report(
        policy=bad, route=bad, hardware=bad, warnings=(bad,), substitutions=(bad,), versions={bad: bad}, attacks=rows
    )


EVERY = {
    "failing": report,
    "passing": passing,
    "live": live,
    "hostile": hostile,
    "partial": lambda: report(partial=True),
    "empty": lambda: report(attacks=(), utility=(), gates=(), passed=True),
}
