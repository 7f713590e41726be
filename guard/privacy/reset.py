"""Taking off what a ledger has spent, on an operator's word. The terms keep the word, and the public statement says it.

A counter's journal keeps its answers and gets an entry `reset`, so that it still adds up. What other budgets are told
of the time before (`guard.privacy.migrate`) does not shrink, unless everything was reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guard.model.ledger import Account, Entry, Spend
from guard.privacy.migrate import Migration, marks
from guard.privacy.replay import RESET, noted
from guard.privacy.terms import Act, Terms


def chosen(accounts: Sequence[Account], act: Act) -> list[Account]:
    """Return the counters that an act speaks of and that hold something.

    >>> chosen([Account("rows/client", "client:a", 0, 0, Spend(3, 3), ())], Act("reset", "", "", scope="client:b"))
    []
    """
    named = (a for a in accounts if act.budget in ("", a.budget) and act.scope in ("", a.scope))
    return [a for a in named if a.spend != Spend(0, 0)]


def emptied(account: Account) -> Account:
    """Return a counter with nothing spent; its journal, if it keeps one, says why."""
    entries = account.entries
    if entries:
        others = tuple(entry for entry in entries if entry.event != RESET)
        entries = (*others, Entry(RESET, 0, noted(account, RESET) - account.spend.spent))
    return account._replace(spend=Spend(0, 0), entries=entries)


def reset(live: Terms, accounts: Sequence[Account], act: Act, now_s: float) -> Migration:
    """Return a ledger after a reset.

    A floor counts for every scope, so it only goes with a whole budget.

    Args:
        live: the ledger's terms.
        accounts: all counters of the ledger.
        act: names a budget, a scope, both, or neither: all of the ledger.
        now_s: wall clock.
    """
    changed = {(a.budget, a.scope, a.window): emptied(a) for a in chosen(accounts, act)}
    terms = replace(live, acts=(*live.acts, act))
    if not act.scope:
        # Zero, not gone: it is how budgets that are not in force are remembered.
        floors = {name: 0 if act.budget in ("", name) else units for name, units in live.floors.items()}
        terms = replace(terms, floors=floors)
    if not act.scope and not act.budget:
        after = [changed.get((a.budget, a.scope, a.window), a) for a in accounts]
        past = replace(live.past, since_s=int(now_s), answered=0, marks=marks(live.deltas, after, now_s))
        terms = replace(terms, past=past)
    return Migration(terms, tuple(changed.values()))
