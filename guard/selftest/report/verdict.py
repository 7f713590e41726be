"""What a self-test says in plain sentences, derived from its figures alone.

How much an attack was hindered is judged by its strongest attacker and by intervals, never by point estimates: two
figures differ when their 95% intervals do not overlap. A threat is as bad as its worst attack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from guard.selftest.measures import METRICS, safer_higher
from guard.selftest.report.words import THREATS, gate_word, listed, metric_of, must_be, number, plain
from guard.selftest.results import Figure, Report, Row

Status = Literal["passed", "failed", "partial", "nothing ran", "no gates"]
Effect = Literal["stopped", "labels", "harder", "unchanged"]
"""From best to worst for the defender."""

ORDER: tuple[Effect, ...] = ("stopped", "labels", "harder", "unchanged")
SAID: Mapping[Effect, tuple[str, str]] = {
    "stopped": ("brings", "no measurable gain over guessing without ever asking"),
    "labels": ("brings", "no measurable gain over bare labels"),
    "harder": ("is", "harder than without Guard, but not prevented"),
    "unchanged": ("is", "not measurably harder than without Guard"),
}
"""Verb and rest of a sentence."""
_MANY = {"brings": "bring", "is": "are"}

CHANCE: Mapping[str, float] = {
    "auc": 0.5,
    "tpr_at_1_fpr": 0.01,
    "advantage": 0.0,
    "score_advantage": 0.0,
    "bits": 0.5,
    "success": 0.0,
    "passed": 0.0,
    "dimension_error": 1.0,
    "layer_error": 1.0,
    "canary_returned": 0.0,
    "exposure": 1.0,
}
"""What an attacker who learns nothing gets, where an attack has no zero-query floor."""
LEAST_GAIN = 0.02
"""Below this an attack gains too little undefended for a share of it to mean anything."""


@dataclass(frozen=True)
class Threatened:
    """What came of one threat.

    Args:
        threat: its name.
        effect: on its worst attack.
        worst: that attack's row.
        rows: all rows whose effect could be judged.
    """

    threat: str
    effect: Effect
    worst: Row
    rows: Sequence[Row]


def status(report: Report) -> Status:
    """Return the whole verdict in a word or two."""
    if report.partial:
        return "partial"
    if not report.attacks and not report.gates and not report.utility:
        return "nothing ran"
    if not report.passed:
        return "failed"
    return "passed" if report.gates else "no gates"


def better(one: Figure, other: Figure) -> bool:
    """Say whether `one` is a stronger attacker than `other` beyond both intervals.

    >>> better(Figure(0.9, 0.8, 0.95, "auc"), Figure(0.7, 0.6, 0.79, "auc"))
    True
    >>> better(Figure(0.9, 0.8, 0.95, "auc"), Figure(0.7, 0.6, 0.81, "auc"))
    False
    """
    if one.metric not in METRICS or one.metric != other.metric:
        return False
    return one.high < other.low if safer_higher(one.metric) else one.low > other.high


def nothing_learnt(row: Row) -> Figure | None:
    """Return the figure of an attacker who learns nothing: the zero-query floor, otherwise chance; None if unknown."""
    floor = row.floors.get("zero_query")
    if floor is not None:
        return floor
    chance = CHANCE.get(row.metric)
    return None if chance is None else Figure(chance, chance, chance, row.metric)


def effect(row: Row) -> Effect | None:
    """Return how much the policy hinders an attack's strongest attacker; None where that cannot be judged."""
    control, strongest = row.undefended, row.adaptive
    if control is None or strongest is None or row.verdict == "unresolved" or row.metric not in METRICS:
        return None
    if not _finite(control) or not _finite(strongest):
        return None
    zero, labels = nothing_learnt(row), row.floors.get("label_only")
    if zero is not None and better(control, zero) and not better(strongest, zero):
        return "stopped"
    if labels is not None and better(control, labels) and not better(strongest, labels):
        return "labels"
    return "harder" if better(control, strongest) else "unchanged"


def threats(report: Report) -> list[Threatened]:
    """Return the threats whose effect could be judged, in the order of the rows."""
    judged: dict[str, list[tuple[Effect, Row]]] = {}
    for row in report.attacks:
        if (found := effect(row)) is not None:
            judged.setdefault(row.threat, []).append((found, row))
    result: list[Threatened] = []
    for threat, of_threat in judged.items():
        worst = max(of_threat, key=lambda pair: ORDER.index(pair[0]))
        result.append(Threatened(threat, *worst, [row for _, row in of_threat]))
    return result


def leakage(row: Row, figure: Figure | None) -> tuple[float, float, float] | None:
    """Return the share of its undefended gain that an attacker still has: (value, low, high).

    0 is an attacker who learns nothing, 1 the undefended attack. The interval is the figure's own, with both ends of
    the scale taken as they were measured.
    """
    zero, control = nothing_learnt(row), row.undefended
    if zero is None or control is None or figure is None or row.verdict == "unresolved":
        return None
    gain = control.value - zero.value
    ends = [(value - zero.value) / gain for value in (figure.value, figure.low, figure.high)] if gain else []
    if abs(gain) < LEAST_GAIN or not all(map(math.isfinite, ends)) or not better(control, zero):
        return None
    return ends[0], min(ends[1:]), max(ends[1:])


def sentences(report: Report) -> list[str]:
    """Return the verdict for people who decide: gates first, then what an attacker still gets."""
    found = [_gates_sentence(report)]
    unresolved = [plain(row.name) for row in report.attacks if row.verdict == "unresolved"]
    if unresolved:
        count = len(unresolved)
        says = "1 attack is unresolved and proves" if count == 1 else f"{count} attacks are unresolved and prove"
        found.append(f"{says} nothing either way: {listed(unresolved)}.")
    found += _threat_sentences(report)
    if copy := closest_copy(report):
        found.append(copy)
    return found


def _gates_sentence(report: Report) -> str:
    policy = f"Policy {plain(report.policy)}"
    if report.partial:
        policy = f"The self-test was interrupted: figures are incomplete. {policy}"
    gates = report.gates
    if not gates:
        return f"{policy} has no gates: the figures below were measured, not held to any limit."
    held = sum(gate.held is True for gate in gates)
    if held == len(gates):
        return f"{policy}: {'the only gate holds' if held == 1 else f'all {held} gates hold'}."
    broken = [
        f"{plain(gate.subject)} {plain(gate.metric)} is {number(gate.value, gate.metric)} and must be {must_be(gate)}"
        for gate in gates
        if gate_word(gate) == "not held"
    ]
    unjudged = sum(gate.held is None for gate in gates)
    tail = f"; {unjudged} could not be judged" if unjudged else ""
    shown = "; ".join(broken[:3]) + (f"; and {len(broken) - 3} more" if len(broken) > 3 else "")
    return f"{policy}: {held} of {len(gates)} gates hold{tail}." + (f" Not held: {shown}." if shown else "")


def _threat_sentences(report: Report) -> list[str]:
    if not any(row.undefended for row in report.attacks) and any(row.adaptive for row in report.attacks):
        return ["Nothing was measured without Guard: figures say what an attacker got, not what Guard took away."]
    judged = threats(report)
    clauses: list[str] = []
    for kind in reversed(ORDER):
        names = [_counted(threatened) for threatened in judged if threatened.effect == kind]
        if names:
            verb, rest = SAID[kind]
            clauses.append(f"{listed(names)} {verb if len(names) == 1 else _MANY[verb]} {rest}")
    return [f"By the worst attack of each kind: {'; '.join(clauses)}."] if clauses else []


def _counted(threatened: Threatened) -> str:
    """Return a threat in plain words, with how many of its attacks fare as the worst one does where not all do."""
    name, total = THREATS.get(threatened.threat, plain(threatened.threat)), len(threatened.rows)
    same = sum(effect(row) == threatened.effect for row in threatened.rows)
    return name if same == total else f"{name} ({same} of {total} attacks)"


def closest_copy(report: Report) -> str:
    """Return a sentence on the copy that agrees most with the model; empty when no copy was made."""
    copies = [
        (found, row)
        for row in report.attacks
        for figure in row.attackers
        if row.threat == "model extraction" and row.verdict != "unresolved"
        if (found := metric_of(figure, "agreement")) is not None and _finite(found)
    ]
    if not copies:
        return ""
    best, row = max(copies, key=lambda copy: copy[0].value)
    beside = [
        f"{share(other.value)} {words}"
        for figure, words in (
            (row.undefended, "without Guard"),
            (row.floors.get("label_only"), "from bare labels"),
            (row.floors.get("zero_query"), "for a thief who never asks"),
        )
        if (other := metric_of(figure, "agreement")) is not None and _finite(other)
    ]
    text = f"The closest copy ({plain(row.name)}) names the model's own class on {share(best.value)} of held-out inputs"
    return f"{text} ({listed(beside)})." if beside else f"{text}."


def share(value: float) -> str:
    """Return a share in per cent; only a whole one reads 100%.

    >>> share(0.972), share(0.9999), share(1.0)
    ('97.2%', '99.9%', '100%')
    """
    return "100%" if value == 1 else f"{min(100 * value, 99.9):.1f}%"


def _finite(figure: Figure) -> bool:
    return all(map(math.isfinite, (figure.value, figure.low, figure.high)))
