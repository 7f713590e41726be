"""What a migration does to a ledger, before and after, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from guard.budgets.privacy import Privacy
from guard.cli.ledgers import Ledger, instant, printable
from guard.model.ledger import Account
from guard.privacy.filters import MOST, parse_filter
from guard.privacy.migrate import Migration
from guard.privacy.terms import Terms, period_s

_MOST_SCOPES = 10


@dataclass(frozen=True, slots=True)
class Changed:
    """What becomes of one scope.

    Args:
        budget: the budget's name.
        scope: whose; `others` is everybody without a counter.
        before: epsilon at the old delta, in words.
        after: epsilon at the new one, in words.
        left: answers left; None for a budget that is not in force.
    """

    budget: str
    scope: str
    before: str
    after: str
    left: int | None


def changes(ledger: Ledger, made: Migration, budgets: Mapping[str, Privacy], now_s: float) -> list[Changed]:
    """Return what becomes of every budget that was or will be in force; of its scopes, those that have spent most.

    Args:
        ledger: before.
        made: what would be written.
        budgets: the policy's, by name.
        now_s: wall clock.
    """
    if ledger.terms is None:
        return []
    live, to = ledger.terms.open(), made.terms
    found: list[Changed] = []
    for name in sorted(live.deltas.keys() | to.deltas.keys()):
        for scope, before, after in _scopes(name, ledger, made, now_s):
            units = _units(to, name, after, now_s)
            budget = budgets.get(name) if name in to.deltas else None
            left = None if budget is None else max(0, budget.price.limit - units) // budget.price.cost
            old = _in_words(live, name, _units(live, name, before, now_s))
            found.append(Changed(name, scope, old, _in_words(to, name, units), left))
    return found


def _scopes(
    name: str, ledger: Ledger, made: Migration, now_s: float
) -> list[tuple[str, Account | None, Account | None]]:
    """Return the scopes of a budget that have spent most, each before and after, and who stands for all others."""
    moved = {(a.budget, a.scope, a.window): a for a in made.accounts}
    present = [a for a in ledger.private if a.budget == name and a.window == _window(name, now_s)]
    present.sort(key=lambda a: (-a.spend.spent, a.scope))
    of_all = name.split("/")[1] == "model"
    pairs: list[tuple[str, Account | None, Account | None]] = [
        (a.scope, a, moved.get((a.budget, a.scope, a.window), a)) for a in present[:_MOST_SCOPES]
    ]
    return pairs if pairs and of_all else [*pairs, ("model" if of_all else "others", None, None)]


def _window(name: str, now_s: float) -> int:
    length_s = period_s(name)
    return int(now_s // length_s) if length_s else 0


def _units(terms: Terms, name: str, account: Account | None, now_s: float) -> int:
    return terms.floors_at(now_s).get(name, 0) + (0 if account is None else account.spend.spent)


def _in_words(terms: Terms, name: str, units: int) -> str:
    if name not in terms.deltas:
        return "kept, not in force" if name in terms.floors else "not counted"
    if units >= MOST:
        return f"nothing until {instant(terms.until[name])}" if name in terms.until else "nothing is left"
    delta = terms.deltas[name]
    return f"epsilon {parse_filter(terms.filter).epsilon(units, delta):.4g} at delta {delta:g}"


def show(found: Sequence[Changed]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("budget", no_wrap=True)
    for column in ("scope", "before", "after", "answers left"):
        table.add_column(column, overflow="fold")
    for changed in found:
        left = "" if changed.left is None else f"{changed.left:,}"
        row: Iterable[str] = (changed.budget, changed.scope, changed.before, changed.after, left)
        table.add_row(*(Text(printable(cell)) for cell in row), style="red" if changed.left == 0 else "")
    Console(highlight=False, emoji=False, markup=False).print(table)
