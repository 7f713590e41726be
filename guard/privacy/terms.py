"""The terms that a ledger's privacy budgets are kept under: what its units mean, and what it was told by operators.

Terms are put down when the first charge is due, and stay. A policy whose own terms differ is refused until an operator
migrates the ledger (`guard budget migrate`), which never lowers what was spent. Epsilon is not among the terms: raising
or lowering a limit changes no unit. Neither is the noise's size: units add up whatever each answer cost.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from math import inf

_CLOSED = "migrating from "
_NAME = re.compile(r"[^/]+/[^/]+(?:/(\d+)s)?")


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
class Past:
    """What the next migration must know of the time before this one; `guard.privacy.migrate` says how it is used.

    Args:
        since_s: when the present budgets came into force, seconds since the epoch; 0 is since the ledger began.
        answered: units that bound everything answered until then, whoever asked.
        marks: units charged to each present budget until then, over all scopes, resets not taken off.
        events: what the ledger had been charged for until then.
        deltas: of all budgets until then: epsilon does not fall there.
    """

    since_s: int = 0
    answered: int = 0
    marks: dict[str, int] = field(default_factory=dict[str, int])
    events: tuple[str, ...] = ()
    deltas: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What a ledger's units mean.

    Args:
        filter: `str` of the filter.
        deltas: delta of each budget, by its name: its scope and period are part of it.
        mechanisms: kinds of mechanism, sorted, each with its norm and its quorum.
        floors: units that count as spent for every scope of a budget, by its name; a migration sets them, and so it
            remembers budgets that are gone.
        acts: what operators did, oldest first.
        until: when a floor ends, seconds since the epoch, by the budget's name: the end of a period. Others never do.
        past: what the next migration must know.
    """

    filter: str
    deltas: dict[str, float]
    mechanisms: tuple[str, ...]
    floors: dict[str, int] = field(default_factory=dict[str, int])
    acts: tuple[Act, ...] = ()
    until: dict[str, int] = field(default_factory=dict[str, int])
    past: Past = Past()

    def dumps(self) -> bytes:
        """Return canonical bytes, for a state."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @property
    def closed(self) -> bool:
        """Whether a migration was begun and not finished: no policy agrees to such terms, so nothing is charged."""
        return self.filter.startswith(_CLOSED)

    def close(self) -> Terms:
        """Return terms that no policy agrees to, for as long as a migration takes."""
        return self if self.closed else replace(self, filter=_CLOSED + self.filter)

    def open(self) -> Terms:
        """Return the terms that were closed."""
        return replace(self, filter=self.filter.removeprefix(_CLOSED))

    def floors_at(self, now_s: float) -> dict[str, int]:
        """Return the floors that hold at a time.

        >>> Terms("gdp", {}, (), {"privacy/client/60s": 5}, until={"privacy/client/60s": 120}).floors_at(120.0)
        {}
        """
        return {name: units for name, units in self.floors.items() if now_s < self.until.get(name, inf)}

    def differs(self, live: Terms) -> list[str]:
        """Return, in words, what these terms of a policy would change in a live ledger; empty when nothing."""
        said: list[str] = []
        if live.closed:
            said.append("a migration was begun and not finished")
        if self.filter != live.open().filter:
            said.append(f"the accounting changes from {live.open().filter} to {self.filter}")
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
        past = Past(**read.pop("past"))
        acts = tuple(Act(**act) for act in read.pop("acts"))
        mechanisms = tuple(read.pop("mechanisms"))
        past = replace(past, marks=dict(past.marks), events=tuple(past.events), deltas=tuple(past.deltas))
        return Terms(**read, mechanisms=mechanisms, acts=acts, past=past)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("these are no terms of a ledger") from error


def period_s(budget: str) -> int:
    """Return the length of a budget's period in seconds, from its name; 0 is for ever.

    >>> period_s("privacy/client/86400s"), period_s("privacy/model")
    (86400, 0)
    """
    found = _NAME.fullmatch(budget)
    return int(found[1] or 0) if found else 0
