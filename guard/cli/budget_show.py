"""What is spent and left of every budget: from a plan and its ledgers to values, JSON and a table. No I/O but print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from guard.budgets.privacy import Privacy
from guard.cli.ledgers import Ledger, act_in_words, instant, printable
from guard.privacy.filters import parse_filter

if TYPE_CHECKING:
    from rich.console import Console

    from guard.budgets.base import Budget
    from guard.policy.plan import Plan, RoutePlan

_ORDER = ("privacy", "rows", "information", "tokens", "logprobs")


@dataclass(frozen=True, slots=True)
class Spending:
    """One scope of a budget.

    Args:
        scope: `client:NAME`, `group:NAME` or `model`.
        spent: in the budget's units, its floor included.
        total: everything charged, label-only rows included.
        left: answers that remain, by route; None where that is not known.
        epsilon: spent so far at the budget's delta; None for other budgets.
        used: share of the limit; None where the limit is not known.
    """

    scope: str
    spent: int
    total: int
    left: dict[str, int | None]
    epsilon: float | None
    used: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One budget of a ledger.

    Args:
        ledger: its ledger.
        budget: its name.
        kind: `privacy`, `rows`, `information`, `tokens` or `logprobs`.
        enforced: it refuses, rather than only count.
        limit: in its units; None when it depends on a query that is not known.
        hard_limit: of rows, once answers are labels; None for none.
        epsilon: what it allows; None for other budgets.
        delta: of a privacy budget.
        period_s: length of its window or period; 0 is for ever.
        ends: when that ends, ISO 8601.
        floor: what counts as spent for every scope, those included that have none of the counters.
        differs: what the policy would change in the ledger; then nothing is known to be left.
        scopes: those nearest to their end first.
        hidden: scopes beyond those.
    """

    ledger: str
    budget: str
    kind: str
    enforced: bool
    limit: int | None
    hard_limit: int | None
    epsilon: float | None
    delta: float | None
    period_s: int
    ends: str | None
    floor: int
    differs: list[str]
    scopes: list[Spending]
    hidden: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show.

    Args:
        routes: names of routes; empty for all.
        scopes: scopes; empty for all.
        most: scopes a budget.
    """

    routes: frozenset[str]
    scopes: frozenset[str]
    most: int


def ledger_of(route: RoutePlan, budget: Budget) -> str:
    """Return where a budget is counted: in shadow on a route that enforces, apart."""
    apart = budget.mode == "shadow" and route.mode == "enforce"
    return f"shadow:{route.ledger}" if apart else route.ledger


def ledgers_of(plan: Plan) -> list[str]:
    """Return the ledgers that a plan counts in, in its order."""
    return list(dict.fromkeys(ledger_of(route, budget) for route in plan.routes for budget in route.budgets))


def shown(plan: Plan, ledgers: Mapping[str, Ledger], wanted: Wanted, now_s: float) -> list[Shown]:
    """Return every budget of a plan, privacy first.

    Args:
        plan: the policy's.
        ledgers: by name; one that is missing is empty.
        wanted: what to show.
        now_s: wall clock: chooses windows.
    """
    found: dict[tuple[str, str], list[tuple[RoutePlan, Budget]]] = {}
    for route in plan.routes:
        if not wanted.routes or route.name in wanted.routes:
            for budget in route.budgets:
                found.setdefault((ledger_of(route, budget), budget.name), []).append((route, budget))
    made = [_shown(ledgers.get(key[0], Ledger(key[0], None, [])), on, wanted, now_s) for key, on in found.items()]
    return sorted((s for s in made if s.scopes or not wanted.scopes), key=lambda s: _ORDER.index(s.kind))


def _shown(ledger: Ledger, on: list[tuple[RoutePlan, Budget]], wanted: Wanted, now_s: float) -> Shown:
    route, budget = on[0]
    terms, name, length_s = ledger.terms, budget.name, budget.window_s
    window = int(now_s // length_s) if length_s else 0
    differs: list[str] = []
    if isinstance(budget, Privacy) and terms is not None and route.private is not None:
        differs = route.private.terms.differs(terms)
    limits = [limit for r, b in on if (limit := _limit(r, b)) is not None]
    limit = limits[0] if limits and not differs else None
    floor = 0 if terms is None else terms.floors_at(now_s).get(name, 0)
    spent = {a.scope: a.spend for a in ledger.accounts if a.budget == name and a.window == window}
    scopes = {scope: (spend.spent + floor, spend.total + floor) for scope, spend in spent.items()}
    nothing = {"model"} if budget.per == "model" else {s for s in wanted.scopes if s.startswith(f"{budget.per}:")}
    scopes = dict.fromkeys(nothing, (floor, floor)) | scopes
    if wanted.scopes:
        scopes = {scope: pair for scope, pair in scopes.items() if scope in wanted.scopes}
    # One budget has one limit, so who has spent most is nearest to the end.
    nearest = sorted(scopes.items(), key=lambda item: (-item[1][0], item[0]))[: wanted.most]
    lines = [
        Spending(
            scope=scope,
            spent=units,
            total=total,
            left={r.name: _left(b, limit, units) for r, b in on},
            epsilon=_epsilon(ledger, route, budget, units),
            used=None if limit is None else units / max(1, limit),
        )
        for scope, (units, total) in nearest
    ]
    return Shown(
        ledger=ledger.name,
        budget=name,
        kind=budget.kind,
        enforced=budget.mode == "enforce" and route.mode == "enforce",
        limit=limit,
        hard_limit=budget.hard_limit,
        epsilon=budget.epsilon if isinstance(budget, Privacy) else None,
        delta=budget.delta if isinstance(budget, Privacy) else None,
        period_s=length_s,
        ends=instant((window + 1) * length_s) if length_s else None,
        floor=floor,
        differs=differs,
        scopes=lines,
        hidden=len(scopes) - len(lines),
    )


def _limit(route: RoutePlan, budget: Budget) -> int | None:
    size = route.inputs.size if route.inputs is not None else None
    return None if budget.scales and size is None else budget.limit_for(size or 1)


def _left(budget: Budget, limit: int | None, spent: int) -> int | None:
    if limit is None:
        return None
    rest = max(0, limit - spent)
    return rest // budget.price.cost if isinstance(budget, Privacy) else rest


def _epsilon(ledger: Ledger, route: RoutePlan, budget: Budget, spent: int) -> float | None:
    """Return what units stand for under the terms that they were charged under."""
    if not isinstance(budget, Privacy) or route.private is None:
        return None
    terms = ledger.terms
    live = terms.open().filter if terms is not None else route.private.terms.filter
    return parse_filter(live).epsilon(spent, budget.delta)


def notes(ledgers: Iterable[Ledger]) -> dict[str, list[str]]:
    """Return what operators did to each ledger, and what it keeps beside the budgets in force, in words."""
    said: dict[str, list[str]] = {}
    for ledger in ledgers:
        terms = ledger.terms
        if terms is None:
            continue
        lines = [act_in_words(act) for act in terms.acts]
        if gone := sorted(terms.floors.keys() - terms.deltas.keys()):
            lines.append(f"not in force, and remembered: {', '.join(gone)}")
        if terms.closed:
            lines.append("a migration was begun and not finished: nothing private is answered until it is run again")
        said[ledger.name] = lines
    return said


def as_json(state: str, at: str, budgets: list[Shown], said: dict[str, list[str]]) -> dict[str, object]:
    """Return everything for machines.

    Args:
        state: URL without its password.
        at: when, ISO 8601.
        budgets: from `shown`.
        said: from `notes`.
    """
    return {"state": state, "at": at, "budgets": [asdict(budget) for budget in budgets], "notes": said}


def show(budgets: list[Shown], said: dict[str, list[str]], out: Console) -> None:
    """Print a table for each ledger, and what was done to it."""
    from rich.table import Table
    from rich.text import Text

    for ledger in dict.fromkeys(budget.ledger for budget in budgets):
        table = Table(title=f"ledger {printable(ledger)}", title_justify="left")
        table.add_column("budget", no_wrap=True)
        for column in ("scope", "answers left", "spent", "until"):
            table.add_column(column, overflow="fold")
        for budget in (b for b in budgets if b.ledger == ledger):
            until = "for ever" if budget.ends is None else f"{budget.ends[:16].replace('T', ' ')} UTC"
            name = printable(budget.budget) + ("" if budget.enforced else " (only counted)")
            for scope in budget.scopes:
                row = (name, printable(scope.scope), _left_in_words(scope), _spent_in_words(budget, scope))
                style = "red" if scope.left and not any(n is None or n for n in scope.left.values()) else ""
                table.add_row(*map(Text, row), Text(until), style=style)
                name = ""
            if not budget.scopes:
                table.add_row(Text(name), Text("nobody yet"), "", "", Text(until))
            if budget.hidden:
                table.add_row("", Text(f"{budget.hidden:,} more, further from their end"), "", "", "")
        out.print(table)
        for text in _footnotes(ledger, budgets, said):
            out.print(Text(f"  {text}"))


def _left_in_words(scope: Spending) -> str:
    figures = {route: "not known" if left is None else f"{left:,}" for route, left in scope.left.items()}
    if len(set(figures.values())) == 1:
        return next(iter(figures.values()))
    return ", ".join(f"{figure} on {printable(route)}" for route, figure in figures.items())


def _spent_in_words(budget: Shown, scope: Spending) -> str:
    if scope.epsilon is not None:
        return f"epsilon {scope.epsilon:.4g} of {budget.epsilon:g} at delta {budget.delta:g}"
    limit = "not known" if budget.limit is None else f"{budget.limit:,}"
    counted = {"information": "graded answers", "tokens": "tokens", "logprobs": "log-probabilities"}
    graded = counted.get(budget.kind, "rows")
    labels = f"; {scope.total:,} rows of {budget.hard_limit:,} in all" if budget.hard_limit else ""
    return f"{scope.spent:,} of {limit} {graded}{labels}"


def _footnotes(ledger: str, budgets: list[Shown], said: dict[str, list[str]]) -> list[str]:
    here = [budget for budget in budgets if budget.ledger == ledger]
    lines = [f"{b.budget}: every scope begins with {b.floor:,} units, from a migration" for b in here if b.floor]
    for text in dict.fromkeys(text for budget in here for text in budget.differs):
        lines.append(f"policy and ledger disagree: {text}; guard budget migrate --dry-run shows what would come of it")
    return lines + said.get(ledger, [])
