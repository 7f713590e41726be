"""Does a counter say what its journal adds up to, and does the journal price every answer as its ledger does?"""

from __future__ import annotations

from guard.model.ledger import Account, Entry
from guard.privacy.events import parse
from guard.privacy.filters import MOST, Filter
from guard.privacy.terms import Act, Terms

RESET, MIGRATED = "reset", "migrated"
"""Entries that operators make. A reset takes off what was spent; a migration may add to it."""


def drawn(account: Account) -> list[Entry]:
    """Return the entries of answers, without those that operators made."""
    return [entry for entry in account.entries if entry.event not in (RESET, MIGRATED)]


def noted(account: Account, event: str) -> int:
    """Return the sum of the entries of one event.

    >>> from guard.model.ledger import Spend
    >>> noted(Account("privacy/model", "model", 0, 0, Spend(0, 0), (Entry("reset", 0, -9),)), "reset")
    -9
    """
    return sum(entry.amount for entry in account.entries if entry.event == event)


def sums(account: Account) -> list[str]:
    """Return what is wrong with a counter's sum; empty when nothing is."""
    total, spent = sum(entry.amount for entry in account.entries), account.spend.spent
    return [] if total == spent else [f"the journal adds up to {total}, the counter says {spent}"]


def discrepancies(account: Account, terms: Terms, filter_: Filter) -> list[str]:
    """Return, in words, where a privacy counter, its journal and its ledger's terms disagree; empty when nowhere.

    Args:
        account: the counter with its journal.
        terms: its ledger's.
        filter_: the one that `terms` names.
    """
    found: list[str] = []
    if account.budget not in terms.deltas and account.budget not in terms.floors:
        found.append("the ledger's terms know no such budget")
    found += sums(account)
    for entry in account.entries:
        why = _unexplained(account, entry, terms.acts) if entry not in drawn(account) else _mispriced(entry, filter_)
        if why:
            found.append(why)
    return found


def _unexplained(account: Account, entry: Entry, acts: tuple[Act, ...]) -> str:
    """Return what is wrong with an entry that an operator made; empty when nothing is."""
    lowers = entry.event == RESET
    if entry.rows or (entry.amount > 0 if lowers else entry.amount < 0):
        return f"{entry.event} says {entry.rows} rows and {entry.amount} units, which no operator's act can"
    what = "reset" if lowers else "migrate"
    covered = (
        act.what == what and act.budget in ("", account.budget) and act.scope in ("", account.scope) for act in acts
    )
    return "" if any(covered) else f"{entry.event} of {entry.amount} units, which no act of an operator explains"


def _mispriced(entry: Entry, filter_: Filter) -> str:
    """Return what is wrong with an entry of answers; empty when nothing is."""
    try:
        cost = filter_.cost(parse(entry.event))
    except ValueError as error:
        return f"{error}, so its {entry.rows} rows have no price"
    if entry.rows < 0:
        return f"{entry.event} has {entry.rows} rows"
    if cost > MOST and entry.rows:
        return f"{entry.event} costs infinity, and {entry.rows} rows were answered so"
    if entry.amount != entry.rows * cost:
        return f"{entry.event}: {entry.rows} rows cost {entry.rows * cost}, the journal says {entry.amount}"
    return ""
