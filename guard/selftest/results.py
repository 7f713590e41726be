"""A self-test's results as values: what every report is written from. The JSON report is these dataclasses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

SCHEMA_VERSION = 1
Verdict = Literal["held", "not held", "unresolved", "not gated"]


@dataclass(frozen=True)
class Figure:
    """One attacker's figure.

    Args:
        value: of the headline metric.
        low: lower end of the 95% interval.
        high: upper end.
        metric: its name.
        wrapper: what the attacker did beyond the published attack; empty for the published one.
        queries: rows asked.
        measures: every metric of that try: name -> [value, low, high].
    """

    value: float
    low: float
    high: float
    metric: str
    wrapper: str = ""
    queries: int = 0
    measures: Mapping[str, tuple[float, float, float]] = field(default_factory=dict[str, tuple[float, float, float]])


@dataclass(frozen=True)
class GateResult:
    """A gate and what came of it.

    Args:
        subject: the attack's name, or `utility`.
        metric: which figure.
        bound: `min` or `max`.
        limit: the value.
        value: what was measured, the strongest attacker's; None when nothing was.
        held: whether it holds; None when it could not be judged.
        reason: why it could not be judged.
    """

    subject: str
    metric: str
    bound: Literal["min", "max"]
    limit: float
    value: float | None
    held: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """An attack's row of the report.

    Args:
        name: the attack's.
        title: one line for people.
        threat: what it threatens.
        atlas: MITRE ATLAS id.
        source: citation.
        published: the published figure.
        victim: what was attacked.
        parameters: of the attack.
        metric: the headline's name.
        queries: rows that the defended attack asked.
        undefended: the control's figure; None in live mode.
        defended: the published attack through the policy; None when unresolved.
        adaptive: the strongest attacker of all through the policy: the headline.
        attackers: every attacker through the policy, strongest first.
        floors: `zero_query` and `label_only` figures.
        control_met: the control reached its criterion; None where there is no control.
        criterion: the criterion in words.
        detected_at: rows asked when each observed step came: `label_only`, `deny`, and the ladder's steps where
            detection is on; None when no step came.
        gates: this attack's gates.
        gate: the one that decides: the first that does not hold, else the first; None without gates.
        held: all gates hold; None without gates or when unresolved.
        verdict: in one word.
        reason: why it is unresolved.
        helps: what would help where it is not held.
        curves: label (`undefended`, `defended`, `adaptive`, `label_only`) -> [[queries, value], ...].
        artefacts: plots' data by label: {"undefended": {"roc": ...}, "defended": {...}}.
        notes: sentences.
        seconds: how long the row took.
    """

    name: str
    title: str
    threat: str
    atlas: str
    source: str
    published: str
    victim: str
    parameters: Mapping[str, object]
    metric: str
    queries: int
    undefended: Figure | None
    defended: Figure | None
    adaptive: Figure | None
    attackers: Sequence[Figure]
    floors: Mapping[str, Figure]
    control_met: bool | None
    criterion: str
    detected_at: Mapping[str, int] | None
    gates: Sequence[GateResult]
    held: bool | None
    verdict: Verdict
    reason: str = ""
    helps: str = ""
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict[str, Sequence[tuple[int, float]]])
    artefacts: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    notes: Sequence[str] = ()
    seconds: float = 0.0
    gate: GateResult | None = None


@dataclass(frozen=True)
class Utility:
    """What honest users pay, on held-out data of one victim, each row asked once.

    Args:
        victim: which.
        top1_changed: share of rows whose top class differs.
        mean_l1: mean L1 between released and true scores.
        calibration_error: expected calibration error of the released scores (15 bins); None without true labels.
        calibration_error_before: the model's own.
        added_p50_ms: median latency added by Guard at one connection.
        added_p99_ms: 99th percentile of the guarded latencies minus that of the direct ones.
        refused: share of the rows that were refused.
        rows: how many.
        accuracy: share of rows whose released top class is the true one; None without true labels.
        accuracy_before: the undefended model's own.
    """

    victim: str
    top1_changed: float
    mean_l1: float
    calibration_error: float | None
    calibration_error_before: float | None
    added_p50_ms: float
    added_p99_ms: float
    refused: float
    rows: int
    accuracy: float | None = None
    accuracy_before: float | None = None

    @property
    def accuracy_lost(self) -> float | None:
        """Return the accuracy that honest users lose; below 0 where they gain."""
        if self.accuracy is None or self.accuracy_before is None:
            return None
        return self.accuracy_before - self.accuracy


@dataclass(frozen=True)
class Report:
    """A whole self-test.

    Args:
        policy: its name.
        digest: of the policy as loaded.
        target: `lab`, the upstream's or the live URL.
        route: which route was tested.
        mode: `quick`, `default` or `full`.
        seed: first seed.
        seeds: how many.
        started: UTC, ISO 8601.
        seconds: how long it took.
        versions: of Guard, Python, numpy, scikit-learn and so on.
        hardware: cores and processor.
        substitutions: what the lab put in place of the policy's own.
        attacks: the rows.
        utility: by victim.
        gates: all of them.
        passed: every gate holds and no row is unresolved.
        partial: it was interrupted.
        warnings: sentences.
        schema_version: of this JSON.
    """

    policy: str
    digest: str
    target: str
    route: str
    mode: str
    seed: int
    seeds: int
    started: str
    seconds: float
    versions: Mapping[str, str]
    hardware: str
    substitutions: Sequence[str]
    attacks: Sequence[Row]
    utility: Sequence[Utility]
    gates: Sequence[GateResult]
    passed: bool
    partial: bool = False
    warnings: Sequence[str] = ()
    schema_version: int = SCHEMA_VERSION


def as_data(report: Report) -> dict[str, object]:
    """Return the report as plain data, as the JSON report holds it."""
    return asdict(report)
