"""Adds up what two policies did to the same requests, one request after the other."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from guard.model.arrays import Floats
from guard.replay.seen import COUNTED, Seen

MOST_CLIENTS = 2_000_000
"""Clients that are told apart; of those beyond, requests are counted under one name."""
_OTHERS = "others"


@dataclass(slots=True)
class Scope:
    """One scope of a budget.

    Args:
        share: greatest share of the limit that was spent in any window.
        spent: what it had spent then.
        stopped: requests that it refused or left labels only.
        first_s: when it did so first, seconds since the epoch; 0 for never.
    """

    share: float = 0.0
    spent: int = 0
    stopped: int = 0
    first_s: float = 0.0


@dataclass(slots=True)
class Client:
    """One client under both policies.

    Args:
        requests: it asked.
        rows: likewise.
        changed: requests of which the verdict differs.
        refused: under the old policy and the new.
        cut: left labels only, or degraded, likewise.
        denied: requests that the ladder or a budget refused, under the new policy.
    """

    requests: int = 0
    rows: int = 0
    changed: int = 0
    refused: list[int] = field(default_factory=lambda: [0, 0])
    cut: list[int] = field(default_factory=lambda: [0, 0])
    denied: int = 0


class Shifts(NamedTuple):
    """How far what was released is from what the model said, a row: L1 between two score vectors.

    Args:
        rows: whose scores were looked at.
        mean: of them.
        p50: half of the rows moved less.
        p95: 19 in 20 moved less.
    """

    rows: int
    mean: float
    p50: float
    p95: float


@dataclass(slots=True)
class Side:
    """One policy's figures.

    Args:
        name: what it is called in the report.
        words: requests by verdict.
        codes: requests by outcome.
        reasons: requests by why they were refused, or answered with labels.
        entered: steps of the ladder that were reached, and how often.
        spoke: detectors behind that.
        top1_changed: rows.
        steps: L1 by defence, summed over rows.
        budgets: by budget and scope.
    """

    name: str
    words: Counter[str] = field(default_factory=Counter[str])
    codes: Counter[str] = field(default_factory=Counter[str])
    reasons: Counter[str] = field(default_factory=Counter[str])
    entered: Counter[str] = field(default_factory=Counter[str])
    spoke: Counter[str] = field(default_factory=Counter[str])
    top1_changed: int = 0
    steps: dict[str, float] = field(default_factory=dict[str, float])
    budgets: dict[str, dict[str, Scope]] = field(default_factory=dict[str, dict[str, Scope]])
    _shift: array[float] = field(default_factory=lambda: array("d"))
    _weight: array[float] = field(default_factory=lambda: array("d"))

    def add(self, seen: Seen, now_s: float) -> None:
        """Add one request."""
        self.words[seen.word] += 1
        self.codes[seen.code] += 1
        if seen.reason:
            self.reasons[seen.reason] += 1
        self.entered.update(seen.entered)
        self.spoke.update(seen.spoke)
        self.top1_changed += seen.top1_changed
        if seen.answered:
            self._shift.append(seen.shift)
            self._weight.append(float(seen.answered))
            for step in seen.steps:
                self.steps[step.defence] = self.steps.get(step.defence, 0.0) + step.shift
        for charged in seen.charged:
            scope = self.budgets.setdefault(charged.budget, {}).setdefault(charged.scope, Scope())
            share = charged.spent / charged.limit if charged.limit else 1.0
            if share > scope.share:
                scope.share, scope.spent = share, charged.spent
            if charged.stopped:
                scope.stopped += 1
                scope.first_s = scope.first_s or now_s

    @property
    def refused(self) -> int:
        """Requests that got no answer because of the policy."""
        return self.words["refuse"] + self.words["deny"]

    @property
    def shifts(self) -> Shifts:
        """The score shift over all rows; a request's rows share their mean."""
        if not self._shift:
            return Shifts(0, 0.0, 0.0, 0.0)
        values, weights = np.array(self._shift, dtype=np.float64), np.array(self._weight, dtype=np.float64)
        mean = float(np.average(values, weights=weights))
        order = np.argsort(values, kind="stable")
        values = values[order]
        summed: Floats = np.cumsum(weights[order])
        total = float(summed[-1])
        p50, p95 = (float(values[np.count_nonzero(summed < share * total)]) for share in (0.5, 0.95))
        return Shifts(int(total), mean, p50, p95)


@dataclass(slots=True)
class Comparison:
    """Two policies over the same requests.

    Args:
        old: the one before, or what was recorded.
        new: the other.
        requests: replayed.
        rows: likewise.
        first_s: when the first was recorded, seconds since the epoch.
        last_s: when the last was.
        moved: requests by (old verdict, new verdict).
        clients: by pseudonym.
    """

    old: Side
    new: Side
    requests: int = 0
    rows: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    moved: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    clients: dict[str, Client] = field(default_factory=dict[str, Client])

    def add(self, client: str, now_s: float, old: Seen, new: Seen) -> None:
        """Add one request."""
        self.first_s = now_s if not self.requests else self.first_s
        self.last_s = now_s
        self.requests += 1
        self.rows += new.rows
        self.old.add(old, now_s)
        self.new.add(new, now_s)
        self.moved[old.word, new.word] += 1
        if client not in self.clients and len(self.clients) >= MOST_CLIENTS:
            client = _OTHERS
        about = self.clients.setdefault(client, Client())
        about.requests += 1
        about.rows += new.rows
        about.changed += old.word != new.word
        about.denied += new.word == "deny"
        for i, seen in enumerate((old, new)):
            about.refused[i] += seen.refused
            about.cut[i] += seen.word in ("label_only", "degrade")

    def figures(self) -> dict[str, float]:
        """Return what gates are about, by name."""
        requests, rows = max(self.requests, 1), max(self.rows, 1)
        clients, shifts = self.clients.values(), self.new.shifts
        enforced = [scopes for name, scopes in self.new.budgets.items() if not name.endswith(COUNTED)]
        return {
            "refused": self.new.refused / requests,
            "refused_more": (self.new.refused - self.old.refused) / requests,
            "label_only": self.new.words["label_only"] / requests,
            "degraded": self.new.words["degrade"] / requests,
            "verdicts_changed": sum(n for (a, b), n in self.moved.items() if a != b) / requests,
            "top1_changed": self.new.top1_changed / rows,
            "shift_mean": shifts.mean,
            "shift_p50": shifts.p50,
            "shift_p95": shifts.p95,
            "refused_clients": float(sum(c.refused[1] > 0 for c in clients)),
            "denied_clients": float(sum(c.denied > 0 for c in clients)),
            "changed_clients": sum(c.changed > 0 for c in clients) / max(len(self.clients), 1),
            "spent_budgets": float(sum(s.stopped > 0 for b in enforced for s in b.values())),
        }
