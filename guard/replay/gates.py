"""Gates on a replay's figures, so that a pipeline can hold a policy's edit to them: `refused>0.01`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from guard.policy.suggest import did_you_mean

FIGURES: dict[str, str] = {
    "refused": "share of requests that the new policy refuses",
    "refused_more": "that share less the old policy's",
    "label_only": "share of requests that a budget leaves labels only",
    "degraded": "share of requests of clients that the ladder degrades",
    "verdicts_changed": "share of requests whose verdict differs between the two",
    "top1_changed": "share of rows whose label the new policy changes",
    "shift_mean": "mean L1 between the model's scores and the released ones, a row",
    "shift_p50": "its median",
    "shift_p95": "its 95th percentile",
    "refused_clients": "clients that the new policy refuses at least once, for whatever reason",
    "denied_clients": "clients that a budget or the ladder refuses at least once",
    "changed_clients": "share of clients with a verdict that differs",
    "spent_budgets": "scopes of budgets that ran out",
}
_GATE = re.compile(r"\s*([a-z0-9_]+)\s*(>=|<=|>|<)\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*")


class Gate(NamedTuple):
    """What must not be.

    Args:
        figure: one of `FIGURES`.
        sign: `>`, `>=`, `<` or `<=`.
        bound: the number.
    """

    figure: str
    sign: str
    bound: float

    def fails(self, figures: Mapping[str, float]) -> bool:
        """Say whether the figures are what must not be."""
        found = figures[self.figure]
        match self.sign:
            case ">":
                return found > self.bound
            case ">=":
                return found >= self.bound
            case "<":
                return found < self.bound
            case _:
                return found <= self.bound

    def __str__(self) -> str:
        return f"{self.figure}{self.sign}{self.bound:g}"


def gate(text: str) -> Gate:
    """Read a gate.

    >>> gate("denied_clients > 0").fails({"denied_clients": 2.0})
    True

    Raises:
        ValueError: it is none; the message says why.
    """
    found = _GATE.fullmatch(text)
    if found is None:
        raise ValueError(f"--fail-if {text}: write a figure, > or <, and a number, such as 'refused>0.01'")
    name, sign, bound = found.groups()
    if name not in FIGURES:
        raise ValueError(f"--fail-if {text}: there is no figure {name}; {did_you_mean(name, list(FIGURES))}")
    return Gate(name, sign, float(bound))
