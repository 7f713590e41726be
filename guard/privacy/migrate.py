"""Moving a live ledger to other terms: other units, other deltas, other scopes. Never lowers what was spent. Pure.

What a scope has spent of a budget is its counter plus the budget's floor. Both bound the true loss, and stay bounds:

* **Other units.** Answers are priced anew from the journal, event by event. Where only a sum is known (a floor, what is
  left after a reset), it is converted at the dearest ratio among all events that the ledger was ever charged for: a sum
  of costs in old units cannot be more in new ones. Then the counter is raised, if need be, until epsilon is no lower
  than before, at every delta that the ledger ever had. The journal says so with an entry `migrated`.
* **A budget that was not in force** could not count what was answered meanwhile. Its floor rises by as much as
  everybody together was answered in that time, since one scope may have had all of it; for a new budget that time is
  all the time before. While budgets are in force each answer is charged to all of them, so the sum over all scopes of
  any one of them says how much was answered; resets are not taken off that sum. Floors of budgets that are gone are
  kept up at each migration, and so a budget that comes back has lost nothing but the time that it was away.
* **Periods.** Such a budget needs a floor for its present period only. Counters of earlier periods are forgotten, so a
  ledger that has had no budget for ever may not know what it answered: `MOST`, which no budget holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, inf

from guard.model.ledger import Account, Entry, Spend
from guard.privacy.events import parse
from guard.privacy.filters import MOST, Filter, parse_filter
from guard.privacy.replay import MIGRATED, RESET, drawn, noted
from guard.privacy.terms import Act, Past, Terms, period_s

_DAY_S = 86_400
_SAFE = 1e-11
"""Relative margin of epsilon above what its two computations may differ by: there and back loses not one unit."""


@dataclass(frozen=True, slots=True)
class Change:
    """From the units of one filter to those of another.

    Args:
        old: the filter so far.
        new: the filter to come.
        deltas: where epsilon must not fall.
        ratio: dearest price of one event in new units for one old unit; 0 when nothing was ever charged.
    """

    old: Filter
    new: Filter
    deltas: tuple[float, ...]
    ratio: Fraction

    def units(self, units: int) -> int:
        """Convert a sum of costs whose parts are not known; what no budget holds stays so."""
        if self.old == self.new or units >= MOST:
            return min(MOST, units)
        return min(MOST, max(ceil(units * self.ratio), self.matched(units)))

    def matched(self, units: int) -> int:
        """Return new units whose epsilon is no lower than that of old `units`, at every delta; the least to 1e-10."""
        return max((_matched(self.old, self.new, units, delta) for delta in self.deltas), default=0)


@lru_cache(65_536)  # many clients have spent the same, and each costs two bisections
def _matched(old: Filter, new: Filter, units: int, delta: float) -> int:
    epsilon = old.epsilon(units, delta) * (1.0 + _SAFE)
    if not 0 < epsilon < inf:
        return MOST if epsilon else 0
    # The inverse rounds down; it is raised by ever more until epsilon is reached.
    guess, more = max(1, new.limit(epsilon, delta)), _SAFE
    while guess < MOST and new.epsilon(guess, delta) < epsilon:
        guess, more = min(MOST, guess + ceil(guess * more)), more * 2
    return guess


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration writes.

    Args:
        terms: the new ones.
        accounts: those that change.
    """

    terms: Terms
    accounts: tuple[Account, ...]


def migrate(live: Terms, wanted: Terms, accounts: Sequence[Account], act: Act, now_s: float) -> Migration:
    """Return a ledger under the terms of a policy.

    Args:
        live: the ledger's terms.
        wanted: the policy's.
        accounts: all privacy counters of the ledger; they agree with their journals.
        act: what the operator says of it.
        now_s: wall clock.

    Raises:
        ValueError: the new filter cannot account for what was answered.
    """
    change = _change(live, wanted, accounts)
    ends = {name: _end_s(name, now_s) for name in live.deltas.keys() | live.floors.keys() | wanted.deltas.keys()}
    floors = {
        name: units for name in sorted(ends) if (units := _floor(name, live, wanted, accounts, now_s)) is not None
    }
    new = {name: change.units(units) for name, units in floors.items()}
    moved = accounts
    if change.old != change.new:
        moved = [_moved(a, change, *(_held(a, side, ends) for side in (floors, new))) for a in accounts]
    phase = _answered(live, accounts, live.past.since_s, now_s)
    past = Past(
        since_s=int(now_s),
        answered=change.units(min(MOST, live.past.answered + phase)),
        marks=marks(wanted.deltas, moved, now_s),
        events=tuple(sorted(_events(live, accounts))),
        deltas=change.deltas,
    )
    terms = replace(
        wanted,
        floors=new,
        until={name: ends[name] for name in new if ends[name]},
        acts=(*live.acts, act),
        past=past,
    )
    changed = [after for before, after in zip(accounts, moved, strict=True) if after != before]
    return Migration(terms, tuple(changed))


def _events(live: Terms, accounts: Iterable[Account]) -> set[str]:
    return {*live.past.events, *(entry.event for account in accounts for entry in drawn(account))}


def _change(live: Terms, wanted: Terms, accounts: Iterable[Account]) -> Change:
    old, new = parse_filter(live.filter), parse_filter(wanted.filter)
    deltas = tuple(sorted({*live.past.deltas, *live.deltas.values(), *wanted.deltas.values()}))
    ratios: list[Fraction] = []
    for written in sorted(_events(live, accounts)):
        event = parse(written)
        cost = new.cost(event)
        if cost > MOST:
            raise ValueError(f"{written} costs infinity")
        if cost:
            ratios.append(Fraction(cost, old.cost(event)))
    return Change(old, new, deltas, max(ratios, default=Fraction(0)))


def _start_s(name: str, now_s: float) -> int:
    length_s = period_s(name)
    return int(now_s // length_s) * length_s if length_s else 0


def _end_s(name: str, now_s: float) -> int:
    """Return when the present period of a budget ends; 0 for one that has none."""
    return _start_s(name, now_s) + period_s(name) if period_s(name) else 0


def _held(account: Account, floors: dict[str, int], ends: dict[str, int]) -> int:
    """Return the floor that counts for an account: of a budget with periods, only in the present one."""
    present = (account.window + 1) * account.window_s == ends.get(account.budget, 0)
    return floors.get(account.budget, 0) if present or not account.window_s else 0


def _floor(name: str, live: Terms, wanted: Terms, accounts: Sequence[Account], now_s: float) -> int | None:
    """Return a budget's floor in old units; None for one that needs none."""
    start_s, end_s = _start_s(name, now_s), _end_s(name, now_s)
    units = live.floors.get(name, 0) if live.until.get(name, 0) == end_s else 0
    if name in live.deltas:
        # Its counters have what was answered since. Once it is gone, the floor is how it is remembered.
        return units if units or name not in wanted.deltas else None
    units += _answered(live, accounts, max(start_s, live.past.since_s), now_s)
    if name not in live.floors:
        if start_s <= live.past.since_s:
            units += live.past.answered
        if not end_s:
            units = max(units, _most_spent(live, accounts))
    return min(MOST, units)


def _most_spent(live: Terms, accounts: Iterable[Account]) -> int:
    """Return the most that any scope is said to have spent of a budget for ever: a new one says no less."""
    most = {name: live.floors.get(name, 0) for name in live.deltas if not period_s(name)}
    for account in accounts:
        if account.budget in most:
            units = live.floors.get(account.budget, 0) + account.spend.spent
            most[account.budget] = max(most[account.budget], units)
    return max(most.values(), default=0)


def _answered(live: Terms, accounts: Iterable[Account], from_s: float, now_s: float) -> int:
    """Return old units that bound all answers since `from_s`, a time in which the present budgets were in force."""
    known: list[int] = []
    for name in live.deltas:
        length_s = period_s(name)
        if length_s and not _kept(length_s, from_s, now_s):
            continue
        same = not length_s or from_s // length_s == live.past.since_s // length_s
        known.append(_charged(name, accounts, from_s) - (live.past.marks.get(name, 0) if same else 0))
    # They are equal, but for what an operator's policy left out on one route: the largest is the safe one.
    return min(MOST, max(known, default=MOST))


def _kept(length_s: int, from_s: float, now_s: float) -> bool:
    """Say whether no state has forgotten the period of `from_s` yet, even with a clock that is somewhat ahead."""
    end_s = (int(from_s // length_s) + 1) * length_s
    return now_s < end_s + min(length_s, _DAY_S) / 2


def marks(names: Iterable[str], accounts: Sequence[Account], now_s: float) -> dict[str, int]:
    """Return what was charged to each budget, in its present period if it has any, resets not taken off."""
    return {name: _charged(name, accounts, now_s) for name in sorted(names)}


def _charged(name: str, accounts: Iterable[Account], since_s: float) -> int:
    first = int(since_s // period_s(name)) if period_s(name) else 0
    return sum(a.spend.spent - noted(a, RESET) for a in accounts if a.budget == name and a.window >= first)


def _moved(account: Account, change: Change, floor: int, new_floor: int) -> Account:
    """Return a counter in new units.

    Args:
        account: the counter in old units.
        change: from old to new units.
        floor: the floor that counts for it, in old units.
        new_floor: the same in new units.
    """
    entries = [Entry(e.event, e.rows, e.rows * change.new.cost(parse(e.event))) for e in drawn(account)]
    total = sum(entry.amount for entry in entries)
    spent = total
    if noted(account, RESET):
        spent = min(total, ceil(account.spend.spent * change.ratio))
        entries.append(Entry(RESET, 0, spent - total))
    if total > MOST:
        raise ValueError(f"what {account.scope} spent of {account.budget} is more than a counter holds at this order")
    raised = min(MOST, max(spent, change.matched(floor + account.spend.spent) - new_floor))
    if raised > spent:
        entries.append(Entry(MIGRATED, 0, raised - spent))
    return account._replace(spend=Spend(raised, raised), entries=tuple(entries))
