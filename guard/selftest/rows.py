"""From what cells found to the report's rows: the strongest attacker, the control, the gates, the verdict.

Over several seeds a figure is the mean of the seeds' and its interval spans theirs. A gate is judged on the strongest
attacker's value of its metric, whichever attacker that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from guard.policy.gates import Gate
from guard.selftest.base import Attack, Try, parameters
from guard.selftest.cell import Done
from guard.selftest.measures import METRICS, stronger
from guard.selftest.results import Figure, GateResult, Row, Utility, Verdict


def make_row(attack: Attack, done: Sequence[Done], gates: Sequence[Gate], reason: str | None) -> Row:
    """Make an attack's row.

    Args:
        attack: the attack.
        done: all of its cells that are done.
        gates: the policy's.
        reason: why it did not run; None when it did.
    """
    controls = [d for d in done if d.cell.way == "undefended"]
    guarded = [d for d in done if d.cell.way == "defended"]
    published = [d for d in guarded if not d.cell.wrapper]
    attackers = sorted_by_strength(attack.metric, _attackers(attack.metric, guarded))
    plain = [f for f in attackers if not f.wrapper]
    undefended = best(attack.metric, _attackers(attack.metric, controls))
    met = _control(attack, controls) if controls else None
    why = reason or _unresolved(controls, guarded, met)
    judged = [judge(gate, attackers, why) for gate in gates if gate.attack == attack.name]
    held = None if why or not judged else all(g.held for g in judged)
    verdict: Verdict = "unresolved" if why else "held" if held else "not held"
    floors = {
        way: figure
        for way in ("zero_query", "label_only")
        if (figure := best(attack.metric, _attackers(attack.metric, [d for d in done if d.cell.way == way])))
    }
    return Row(
        name=attack.name,
        title=attack.title,
        threat=attack.threat,
        atlas=attack.atlas,
        source=attack.source,
        published=attack.published,
        victim=next((d.cell.model for d in done), attack.victim),
        parameters=parameters(attack),
        metric=attack.metric,
        queries=max((d.outcome.queries for d in published if d.outcome), default=0),
        undefended=undefended,
        defended=plain[0] if plain else None,
        adaptive=attackers[0] if attackers else None,
        attackers=attackers,
        floors=floors,
        control_met=met,
        criterion=_criterion(attack),
        detected_at=_steps(published),
        gates=judged,
        held=held,
        verdict=verdict,
        reason=why,
        helps=attack.helps,
        curves=_curves(done, attackers[0].wrapper if attackers else ""),
        artefacts=_artefacts(done),
        notes=_notes(done),
        seconds=round(sum(d.seconds for d in done), 1),
        gate=next((g for g in judged if not g.held), judged[0] if judged else None),
    )


def _attackers(metric: str, done: Iterable[Done]) -> list[Figure]:
    """Return every attacker's figures, over seeds; the published attack's best plain try has no wrapper's name."""
    found: dict[str, list[tuple[Try, int]]] = {}
    for one in done:
        if one.outcome is None:
            continue
        plain = [t for t in one.outcome.tries if t.plain and metric in t.measures]
        if plain:
            label = one.cell.wrapper
            found.setdefault(label, []).append((one.outcome.best(metric, plain=True), one.outcome.queries))
        for attempt in one.outcome.tries:
            if not attempt.plain:
                label = f"{one.cell.wrapper} + {attempt.how}" if one.cell.wrapper else attempt.how
                found.setdefault(label, []).append((attempt, one.outcome.queries))
    figures = [_figure(metric, label, tries) for label, tries in found.items()]
    return [figure for figure in figures if figure is not None]


def _figure(metric: str, label: str, tries: list[tuple[Try, int]]) -> Figure | None:
    measures: dict[str, tuple[float, float, float]] = {}
    for name in METRICS:
        seen = [t.measures[name] for t, _ in tries if name in t.measures]
        if seen:
            mean = sum(m.value for m in seen) / len(seen)
            measures[name] = (mean, min(m.low for m in seen), max(m.high for m in seen))
    if metric not in measures:
        return None
    value, low, high = measures[metric]
    return Figure(value, low, high, metric, label, max(queries for _, queries in tries), measures)


def sorted_by_strength(metric: str, figures: Sequence[Figure]) -> list[Figure]:
    """Return figures, the strongest attacker's first; equal ones in the order given."""
    sign = 1.0 if stronger(metric, 0.0, 1.0) else -1.0
    return sorted(figures, key=lambda figure: sign * figure.value)


def best(metric: str, figures: Sequence[Figure]) -> Figure | None:
    """Return the strongest attacker's figure, or None without any."""
    return sorted_by_strength(metric, figures)[0] if figures else None


def _control(attack: Attack, controls: Sequence[Done]) -> bool:
    """Say whether the published attack reached every criterion on the undefended model, with every seed."""
    for done in controls:
        if done.outcome is None:
            return False
        for criterion in attack.control:
            try:
                value = done.outcome.best(criterion.metric, plain=True).measures[criterion.metric].value
            except KeyError:
                return False
            if not criterion.met(value):
                return False
    return True


def _criterion(attack: Attack) -> str:
    words: list[str] = []
    for criterion in attack.control:
        sign = "≤" if METRICS[criterion.metric][0] else "≥"
        words.append(f"{criterion.metric} {sign} {criterion.bound:g}")
    return ", ".join(words)


def _unresolved(controls: Sequence[Done], guarded: Sequence[Done], met: bool | None) -> str:
    """Return why a row cannot be judged; empty when it can."""
    for done in (*controls, *guarded):
        if done.outcome is None and (done.broken or not done.cell.wrapper):
            where = "undefended" if done.cell.way == "undefended" else "through Guard"
            return f"{where}: {done.reason}"
    if not any(not done.cell.wrapper for done in guarded):
        return "it did not run"
    if met is False:
        return "the attack did not succeed on the undefended model, so its other figures prove nothing"
    return ""


def judge(gate: Gate, attackers: Sequence[Figure], why: str = "") -> GateResult:
    """Judge one gate of an attack on the strongest attacker's value of its metric."""
    metric, bound, limit = str(gate.metric), "min" if gate.min is not None else "max", _limit(gate)
    values = [f.measures[metric][0] for f in attackers if metric in f.measures]
    name = str(gate.attack)
    if why or not values:
        reason = why or f"no attacker was measured by {metric}"
        return GateResult(name, metric, bound, limit, None, None, reason)
    value = min(values) if bound == "min" else max(values)
    held = value >= limit if bound == "min" else value <= limit
    return GateResult(name, metric, bound, limit, value, held)


def gate_results(rows: Sequence[Row]) -> list[GateResult]:
    """Return all rows' gates; those of attacks that were not run are left out."""
    return [gate for row in rows for gate in row.gates]


def utility_gates(gates: Sequence[Gate], utility: Sequence[Utility]) -> list[GateResult]:
    """Judge the gates on what honest users pay: the worst victim counts."""
    results: list[GateResult] = []
    for gate in gates:
        if gate.utility is None:
            continue
        bound, limit = "min" if gate.min is not None else "max", _limit(gate)
        values = [v for u in utility if (v := getattr(u, gate.utility)) is not None and isfinite(v)]
        if not values:
            results.append(GateResult("utility", gate.utility, bound, limit, None, None, "nothing was measured"))
            continue
        value = min(values) if bound == "min" else max(values)
        held = value >= limit if bound == "min" else value <= limit
        results.append(GateResult("utility", gate.utility, bound, limit, value, held))
    return results


def _limit(gate: Gate) -> float:
    return gate.min if gate.min is not None else gate.max if gate.max is not None else 0.0


def _steps(published: Sequence[Done]) -> dict[str, int] | None:
    """Return at which row the published attack began to get labels only, was refused (429), and was denied (403)."""
    found: dict[str, int] = {}
    for done in published:
        tally = done.tally
        refused = None if tally.first_refusal_at == tally.first_denial_at else tally.first_refusal_at
        steps = (("label_only", tally.first_label_at), ("deny", refused), ("denied", tally.first_denial_at))
        for step, at in steps:
            if at is not None:
                found[step] = min(at, found.get(step, at))
    return found or None


def _curves(done: Sequence[Done], strongest: str) -> dict[str, Sequence[tuple[int, float]]]:
    """Return the first seed's curves by label."""
    curves: dict[str, Sequence[tuple[int, float]]] = {}
    for one in done:
        if one.outcome is None or not one.outcome.curve:
            continue
        way, wrapper = one.cell.way, one.cell.wrapper
        label = way if not wrapper else "adaptive" if strongest.startswith(wrapper) else ""
        if label and label not in curves:
            curves[label] = one.outcome.curve
    return curves


def _artefacts(done: Sequence[Done]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for one in done:
        if one.outcome is not None and one.outcome.artefacts and not one.cell.wrapper:
            found.setdefault(one.cell.way, dict(one.outcome.artefacts))
    return found


def _notes(done: Sequence[Done]) -> list[str]:
    """Return every cell's sentences once, with where they come from, and why wrappers failed."""
    said: dict[str, None] = {}
    for one in done:
        where = f"{one.cell.way}{' + ' + one.cell.wrapper if one.cell.wrapper else ''}"
        if one.outcome is None:
            if one.cell.wrapper or one.cell.way not in ("undefended", "defended"):
                said[f"{where}: {one.reason}"] = None
            continue
        for note in one.outcome.notes:
            said[f"{where}: {note}"] = None
    return list(said)
