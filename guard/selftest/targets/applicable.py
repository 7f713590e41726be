"""Which attacks can run against a model that is not the lab's, and why others cannot."""

from __future__ import annotations

from guard.selftest.base import Attack
from guard.selftest.targets.knowledge import Prepared
from guard.selftest.targets.spec import Layout

MEMBERS = 40
"""Least members, and least non-members, on which a rate is worth printing."""
_VALUE = "it attacks a model that answers classes, and this one answers a value"


def applicable(attack: Attack, prepared: Prepared, layout: Layout) -> str | None:
    """Return why an attack cannot run, or None.

    Args:
        attack: the attack.
        prepared: the operator's rows.
        layout: of the model's answers.

    Each need of an attack (`Attack.needs`) is met, or is the reason.
    """
    knows = prepared.knows
    missing = {
        "lab": "it needs to know or to train more than an outsider can here; it runs in the lab",
        "vector": "it asks lists of numbers, and the model takes texts" if knows.kind == "text" else None,
        "text": "it asks texts, and the model takes lists of numbers" if knows.kind == "vector" else None,
        "scores": _scores(layout),
        "value": "it attacks a model that answers a value, and this one answers classes"
        if layout.classes > 1
        else None,
        "own_labels": "it needs true labels: give every row of the queries a y" if knows.own_y is None else None,
        "members": _members(prepared),
    }
    if layout.classes == 1 and "value" not in attack.needs:
        return _VALUE
    for need, reason in missing.items():
        if need in attack.needs and reason is not None:
            return reason
    unknown = attack.needs - missing.keys()
    return f"it needs {', '.join(sorted(unknown))}, which only the lab has" if unknown else None


def _scores(layout: Layout) -> str | None:
    return None if layout.graded else "it attacks scores, and the model answers labels alone"


def _members(prepared: Prepared) -> str | None:
    members = prepared.members
    if members is None:
        return "it needs rows that trained the model and rows that did not: --members and --non-members, or `member`"
    inside = int(members.sum())
    least = min(inside, len(members) - inside)
    if least < MEMBERS:
        outside = len(members) - inside
        return f"it needs at least {MEMBERS} members and as many non-members; there are {inside} and {outside}"
    return None if "candidates_y" in prepared.knows.extra else "it needs the candidates' labels: give every row a y"
