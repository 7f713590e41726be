"""The terms that a ledger's privacy budgets are kept under: what its units mean, and what it was told by operators.

Terms are put down when the first charge is due, and stay. A policy whose own terms differ is refused until an operator
migrates the ledger (`guard budget migrate`), which never lowers what was spent. Epsilon is not among the terms: raising
or lowering a limit changes no unit. Neither is the noise's size: units add up whatever each answer cost.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Act:
    """What an operator did to a ledger.

    Args:
        what: `reset` or `migrate`.
        at: when, ISO 8601, UTC.
        reason: in the operator's words.
        budget: the budget's name; empty for all.
        scope: whose; empty for all.
    """

    what: str
    at: str
    reason: str
    budget: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a ledger's units mean.

    Args:
        filter: `str` of the filter.
        deltas: delta of each budget, by its name: its scope and period are part of it.
        mechanisms: kinds of mechanism, sorted, each with its norm and its quorum.
        floors: units that count as spent for every scope of a budget, by its name; a migration sets them.
        acts: what operators did, oldest first.
    """

    filter: str
    deltas: dict[str, float]
    mechanisms: tuple[str, ...]
    floors: dict[str, int] = field(default_factory=dict[str, int])
    acts: tuple[Act, ...] = ()

    def dumps(self) -> bytes:
        """Return canonical bytes, for a state."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    def differs(self, live: Terms) -> list[str]:
        """Return, in words, what these terms of a policy would change in a live ledger; empty when nothing."""
        said: list[str] = []
        if self.filter != live.filter:
            said.append(f"the accounting changes from {live.filter} to {self.filter}")
        for name in sorted(live.deltas.keys() | self.deltas.keys()):
            if name not in self.deltas:
                said.append(f"the budget {name} is gone")
            elif name not in live.deltas:
                said.append(f"the budget {name} is new")
            elif self.deltas[name] != live.deltas[name]:
                said.append(f"the delta of {name} changes from {live.deltas[name]:g} to {self.deltas[name]:g}")
        if self.mechanisms != live.mechanisms:
            said.append(f"the mechanism changes from {', '.join(live.mechanisms)} to {', '.join(self.mechanisms)}")
        return said


def loads(data: bytes) -> Terms:
    """Return the terms that `dumps` wrote.

    Raises:
        ValueError: it wrote something else.
    """
    try:
        read = json.loads(data)
        acts = tuple(Act(**act) for act in read["acts"])
        return Terms(read["filter"], dict(read["deltas"]), tuple(read["mechanisms"]), dict(read["floors"]), acts)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("these are no terms of a ledger") from error
