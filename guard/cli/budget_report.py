"""A plan in words, and for machines."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from guard.cli.budget_advice import Grade
from guard.privacy.events import text as event_text

if TYPE_CHECKING:
    from guard.cli.budget_oracle import Check
    from guard.cli.budget_planned import Planned

WIDTH = 112
_INDENT = 20


def as_text(planned: Planned, grade: Grade, reasons: list[str], helps: list[str], check: Check) -> str:
    """Return a plan to read."""
    lines = [f"{planned.name} on {_domain(planned)}, {_models(planned)}", ""]
    for name, said in _rows(planned):
        lines += _row(name, said)
    for said in check.said:
        lines += _row("cross-check", said)
    lines += ["", *_verdict(grade, reasons)]
    lines += [line for said in helps for line in _bullet(said)]
    if planned.text:
        lines += ["", "# the plan as a policy: guard check accepts it; yours has more (api, identity, inputs)"]
        lines.append(planned.text.rstrip("\n"))
    return "\n".join(lines) + "\n"


def _row(name: str, said: str) -> list[str]:
    start = f"  {name:<{_INDENT - 2}}"
    return textwrap.wrap(said, WIDTH, initial_indent=start, subsequent_indent=" " * _INDENT, break_long_words=False)


def _bullet(said: str) -> list[str]:
    return textwrap.wrap(said, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False)


def _verdict(grade: Grade, reasons: list[str]) -> list[str]:
    if grade == "usable":
        return [line for said in reasons for line in textwrap.wrap(f"note: {said}", WIDTH)]
    words = {"useless": "This plan is useless", "poor": "This plan is poor"}[grade]
    return [*textwrap.wrap(f"{words}: {'; '.join(reasons)}.", WIDTH), "What would help:"]


def _domain(planned: Planned) -> str:
    outputs = planned.route.outputs
    if outputs.kind == "value":
        return f"values from {outputs.low:g} to {outputs.high:g}"
    if outputs.kind == "embedding":
        return f"embeddings of norm up to {outputs.norm:g}"
    return f"probabilities of {planned.columns} classes"


def _models(planned: Planned) -> str:
    quorum, ensemble = planned.measurement.quorum, planned.route.ensemble
    if ensemble is None:
        return "one model"
    mean = "mean of " if ensemble.aggregate == "mean" else ""
    return f"{mean}at least {quorum:,} models trained on disjoint shards"


def _rows(planned: Planned) -> list[tuple[str, str]]:
    now, measured, used = planned.priced, planned.measurement, planned.utility
    name, value = planned.parameter
    rows = [("budget", _budget(planned, i)) for i in range(len(planned.budgets))]
    whole = planned.mechanism.domain.diameter(measured.norm)
    of = f" = {whole:.6g} / {measured.quorum:,} models" if whole is not None and measured.quorum > 1 else ""
    if planned.mechanism.kind != "randomised_response":
        rows.append(("sensitivity", f"{measured.sensitivity:.6g} in {measured.norm.upper()}{of}"))
    solved = " (solved)" if planned.solved == "noise" else ""
    label = "noise multiplier" if name == "noise_multiplier" else "answer's epsilon"
    rows += [
        (label, f"{value:.6g}{solved}"),
        ("noise", measured.noise),
        ("one answer", f"{now.alone:.4g} epsilon alone, 1/{now.answers:,} of the budget; accounted by {now.filter}"),
    ]
    if used.changed is not None:
        rows.append(
            (
                "labels changed",
                f"{used.changed:.1%} ± {2 * used.changed_error:.1%} (the most frequent label to everybody:"
                f" {used.changed_constant:.1%})",
            )
        )
    what = "one-hot labels" if used.labels_only else "scores"
    unit = f"{used.norm} error"
    rows.append((unit, f"{used.error:.4g} a row, of {what} (the same scores to everybody: {used.error_constant:.4g})"))
    if used.withheld:
        rows.append(("withheld", f"{used.withheld:.1%} of answers, which are charged all the same"))
    rows.append(
        ("tried on", f"{planned.sample.about}, {used.draws:,} draws of the mechanism itself{_instead(planned)}")
    )
    if planned.route.statement:
        rows.append(("to publish", planned.route.statement[0]))
    return rows


def _instead(planned: Planned) -> str:
    ensemble = planned.route.ensemble
    if ensemble is None:
        return ""
    what = "shares of votes" if ensemble.aggregate == "noisy_vote" else "mean scores"
    return f"; they stand for the teachers' {what}, which small teachers make flatter: give --data of your own"


def _budget(planned: Planned, index: int) -> str:
    budget = planned.budgets[index]
    who = {"model": "everybody together", "group": "each group", "client": "each client"}[budget.per]
    epsilon = f"epsilon {budget.epsilon:g}{' (solved)' if planned.solved == 'epsilon' else ''}"
    delta = f"delta {budget.delta:g}" + (f" ({planned.delta_from})" if planned.delta_from else "")
    solved = " (solved)" if planned.solved == "answers" else ""
    span = "" if not budget.window_s else f" in {budget.window_s:,} s"
    return f"{epsilon} and {delta} for {who}{span}: {budget.answers:,} answers{solved}, repeats free"


def as_json(planned: Planned, grade: Grade, reasons: list[str], helps: list[str], check: Check) -> dict[str, object]:
    """Return a plan for machines."""
    now, measured = planned.priced, planned.measurement
    name, value = planned.parameter
    return {
        "mechanism": planned.name,
        "outputs": planned.route.outputs.model_dump(mode="json", exclude_unset=True),
        "quorum": measured.quorum,
        "epsilon": now.epsilon,
        "delta": now.delta,
        "delta_from": planned.delta_from or None,
        "answers": now.answers,
        "solved": planned.solved or None,
        "budgets": [
            {"per": b.per, "epsilon": b.epsilon, "delta": b.delta, "period_s": b.window_s or None, "answers": b.answers}
            for b in planned.budgets
        ],
        "sensitivity": measured.sensitivity,
        "norm": measured.norm,
        name if name == "noise_multiplier" else "answer_epsilon": value,
        "sigma": planned.sigma,
        "noise": measured.noise,
        "event": event_text(measured.event),
        "filter": str(now.filter),
        "cost_units": now.cost,
        "epsilon_of_one_answer": now.alone,
        "epsilon_of_all_answers": now.spent,
        "utility": asdict(planned.utility),
        "data": planned.sample.about,
        "verdict": grade,
        "reasons": reasons,
        "would_help": helps,
        "cross_check": asdict(check),
        "statement": list(planned.route.statement),
        "policy": planned.text or None,
    }
