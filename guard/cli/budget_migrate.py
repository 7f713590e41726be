"""The work of `guard budget migrate`: one ledger after the other, each closed while it moves.

A ledger that moves first gets terms that no policy agrees to. From then on nothing private is charged to it, whoever
still runs, so that what is read is what is moved. A migration that ends half-way leaves it closed: nothing is answered
until it is run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from guard.budgets.privacy import Privacy
from guard.cli.budget_changes import changes, show
from guard.cli.common import Exit, fail
from guard.cli.ledgers import Ledger, line, now, printable, read
from guard.privacy.filters import MOST, parse_filter
from guard.privacy.migrate import Migration, migrate
from guard.privacy.replay import discrepancies
from guard.privacy.terms import Act, Terms, period_s
from guard.telemetry.audit import append

if TYPE_CHECKING:
    from guard.policy.plan import Plan
    from guard.ports import Books


class Refused(Exception):
    """A ledger cannot be moved; nothing was changed.

    Args:
        why: a sentence.
        hint: what to do.
    """

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


def wanted_terms(plan: Plan) -> dict[str, Terms | None]:
    """Return the terms of every ledger that a plan enforces on; None where it counts no privacy."""
    made: dict[str, Terms | None] = {}
    for route in plan.routes:
        if route.mode == "enforce":
            charged = route.private is not None and route.private.charged
            made[route.ledger] = route.private.terms if route.private and charged else made.get(route.ledger)
    return made


def prices(plan: Plan) -> dict[tuple[str, str], Privacy]:
    """Return a plan's privacy budgets by ledger and name; of several prices for one, the dearest."""
    found: dict[tuple[str, str], Privacy] = {}
    for route in plan.routes:
        for budget in route.budgets:
            if isinstance(budget, Privacy):
                known = found.setdefault((route.ledger, budget.name), budget)
                if budget.price.cost > known.price.cost:
                    found[route.ledger, budget.name] = budget
    return found


async def migrate_all(books: Books, plan: Plan, args: argparse.Namespace) -> int:
    """Move every ledger whose terms differ from the plan's; returns the exit code."""
    wanted, budgets = wanted_terms(plan), prices(plan)
    code, counted = Exit.OK, False
    for ledger in await read(books, wanted):
        live, to = ledger.terms, wanted[ledger.name]
        if to is None and live is not None and live.deltas:
            # The policy counts no privacy any more: the ledger is told so, or what is answered now would be forgotten.
            to = Terms(live.open().filter, {}, ())
        if to is None:
            continue
        counted = True
        name = printable(ledger.name)
        if live is None or not (differs := to.differs(live)):
            print(f"ledger {name}: {'not begun yet' if live is None else 'agrees with the policy'}; nothing to do")
            continue
        print(f"ledger {name}: {'; '.join(differs)}")
        try:
            await _one(books, ledger, to, {n: b for (of, n), b in budgets.items() if of == ledger.name}, args)
        except Refused as error:
            code = Exit(fail(f"ledger {name}: {error.why}", error.hint, Exit.FAILED))
    if not counted:
        return fail("this policy has no privacy budget", "nothing to migrate", Exit.NOTHING_RAN)
    return code


async def _one(books: Books, ledger: Ledger, to: Terms, budgets: dict[str, Privacy], args: argparse.Namespace) -> None:
    """Move one ledger, or say what would come of it.

    Raises:
        Refused: nothing was changed.
    """
    now_s, at = now()
    act = Act("migrate", at, args.reason or "")
    made = prepared(ledger, to, act, now_s)
    show(changes(ledger, made, budgets, now_s))
    _hint(ledger, to)
    if args.dry_run:
        print("nothing was changed: --dry-run")
        return
    live = ledger.terms
    if live is None:
        return
    opened, closed = live.open().dumps(), live.close().dumps()
    if not await books.rewrite(ledger.name, ledger.raw, closed, []):
        raise Refused("somebody changed it meanwhile", "run it again")
    done = False
    try:
        (ledger,) = await read(books, [ledger.name])
        made = prepared(ledger, to, act, now_s)
        append(args.audit, line(act, ledger.name, args.state, ledger.private) | {"to": to.differs(live)})
        done = await books.rewrite(ledger.name, closed, made.terms.dumps(), made.accounts)
        if not done:
            append(args.audit, line(act, ledger.name, args.state, []) | {"failed": True})
            raise Refused("it was charged while it moved", "stop every guard on it")
    finally:
        if not done:
            await books.rewrite(ledger.name, closed, opened, [])
    print("migrated; the guards on it may start with this policy now")


def _hint(ledger: Ledger, to: Terms) -> None:
    live = ledger.terms
    if live is not None and to.filter != (old := live.open().filter) and old != "gdp":
        order = parse_filter(old).order
        print(f"  to keep the accounting, write order: {order:g} in the policy's privacy budgets", file=sys.stderr)


def prepared(ledger: Ledger, to: Terms, act: Act, now_s: float) -> Migration:
    """Return what a migration would write.

    Raises:
        Refused: it cannot be done.
    """
    live = ledger.terms
    if live is None:
        raise Refused("it has no terms", "guard serve begins it")
    live, accounts = live.open(), ledger.private
    filter_ = parse_filter(live.filter)
    if any(discrepancies(account, live, filter_) for account in accounts):
        raise Refused("its journal does not replay", "guard audit verify names every discrepancy")
    try:
        made = migrate(live, to, accounts, act, now_s)
    except ValueError as error:
        hint = "write order: 8 in the policy's privacy budgets: Renyi accounting of any order can price every mechanism"
        raise Refused(f"{error}, and it has answered so", hint) from error
    if unknown := _unknown(made.terms):
        hint = "reset the whole ledger first, which is published; or give the route a ledger: of another name"
        message = f"nobody knows what it answered before {unknown} came into force, since only periods are kept"
        raise Refused(message, hint)
    return made


def _unknown(terms: Terms) -> str:
    """Return the budgets for ever that would begin with more than any budget holds."""
    names: Sequence[str] = [n for n in terms.deltas if not period_s(n) and terms.floors.get(n, 0) >= MOST]
    return ", ".join(names)
