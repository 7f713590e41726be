"""`guard budget show`, `reset` and `migrate`: a ledger in an operator's hands."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option, fail
from guard.cli.ledgers import (
    Ledger,
    act_in_words,
    add_reason,
    add_state,
    line,
    now,
    printable,
    read,
    using,
)

if TYPE_CHECKING:
    from guard.model.ledger import Account
    from guard.policy.plan import Plan
    from guard.ports import Books
    from guard.privacy.terms import Act

SHOW = """examples:
  guard budget show --policy policy.yaml --state sqlite:guard.db
  guard budget show --policy policy.yaml --state redis://redis:6379 --client alice
  guard budget show --policy policy.yaml --format json | jq '.budgets[].scopes[0]'

Works while a guard runs, and charges nothing. Of each budget the scopes that are nearest to their end come first.
"Answers left" are answers that are not repeats, at the price of the policy's mechanism; epsilon is what has been spent
so far, at the budget's own delta.
Exit 0: shown; 2: bad policy; 3: the state is out of reach; 5: the policy has no budgets.
"""
RESET = """examples:
  guard budget reset --ledger digits --budget privacy/client --scope client:alice --reason "SEC-412: test traffic"
  guard budget reset --ledger digits --reason "new model, trained on other data" --yes

Without --scope a budget is reset for everybody, without --budget the whole ledger is.
A reset is a promise broken: what was answered before stays known to whoever asked. So it needs a reason, which goes to
the audit file, stays in the ledger's terms and is published with the guarantee ("counted since ..."). With SQLite, stop
the guard first. With Redis it may run, and is to be reloaded then (SIGHUP), so that it publishes the reset.
Exit 0: done; 2: usage; 3: the state is out of reach or in use; 5: there was nothing to reset.
"""
MIGRATE = """examples:
  guard budget migrate --policy policy.yaml --state sqlite:guard.db --dry-run      # what would come of it
  guard budget migrate --policy policy.yaml --state sqlite:guard.db --reason "Laplace instead of Gaussian noise"

A ledger keeps the terms that it was begun under: accounting (Gaussian DP, or Renyi DP of an order), delta and scope of
each budget, mechanisms. A policy with other terms is refused at start and at reload until the ledger is migrated.
What was spent is priced anew from the journal and never becomes less: not in units, and not in epsilon at any delta
that the ledger ever had. A budget that is new begins with the most that any of its scopes can have been answered.
Raising or lowering epsilon changes no terms, unless it makes Guard choose another Renyi order; order: in the budget
keeps it. Stop every guard on the ledger first: those on Redis that still run answer nothing private until they are.
Exit 0: the ledger and the policy agree now; 1: it cannot be done, and nothing was changed; 2: bad policy; 3: the state
is out of reach or in use; 5: the policy has no privacy budget.
"""


def _add_policy(parser: argparse.ArgumentParser) -> None:
    add_option(parser, "--policy", help="policy file or preset, as for serve")
    add_option(parser, "--api", help="the API of routes that name none, as for serve")


def _plan(args: argparse.Namespace) -> Plan:
    from guard.policy.load import load_plan

    return load_plan(args.policy, api=args.api, env=os.environ)


def configure_show(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guard budget show`."""
    parser.epilog = SHOW
    _add_policy(parser)
    add_state(parser)
    parser.add_argument("--route", help="only budgets of this route")
    parser.add_argument("--client", metavar="NAME", help="only this client's")
    parser.add_argument("--group", metavar="NAME", help="only this group's")
    parser.add_argument("--limit", type=int, default=20, help="scopes for each budget (default: %(default)s)")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="how to print (default: %(default)s)"
    )


def run_show(args: argparse.Namespace) -> int:
    """Show what is spent and left; returns the exit code."""
    from guard.cli.budget_show import Wanted, as_json, ledgers_of, notes, show, shown
    from guard.cli.findings import redacted
    from guard.policy.suggest import did_you_mean

    if not args.policy:
        return fail("--policy is missing", "guard budget show --policy policy.yaml --state sqlite:guard.db")
    if args.limit < 1:
        return fail("--limit is at least 1")
    plan = _plan(args)
    names = [route.name for route in plan.routes]
    if args.route and args.route not in names:
        return fail(f"there is no route {args.route}", did_you_mean(args.route, names))
    found = using(args.state, lambda books: read(books, ledgers_of(plan)))
    if not found:
        return fail("this policy has no budgets", "add some; docs/policy.md has examples", Exit.NOTHING_RAN)
    scopes = {f"{per}:{name}" for per, name in (("client", args.client), ("group", args.group)) if name}
    wanted = Wanted(frozenset([args.route] if args.route else []), frozenset(scopes), args.limit)
    now_s, at = now()
    budgets, said = shown(plan, {ledger.name: ledger for ledger in found}, wanted, now_s), notes(found)
    if args.format == "json":
        print(json.dumps(as_json(redacted(args.state), at, budgets, said), indent=2))
    else:
        from rich.console import Console

        show(budgets, said, Console(highlight=False, emoji=False, markup=False))
    return Exit.OK


def configure_reset(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guard budget reset`."""
    parser.epilog = RESET
    add_state(parser)
    parser.add_argument("--ledger", help="the ledger: its route's name, unless the policy names another")
    parser.add_argument("--budget", default="", help="only this budget, such as privacy/client")
    parser.add_argument("--scope", default="", help="only this scope: client:NAME, group:NAME or model")
    add_reason(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run_reset(args: argparse.Namespace) -> int:
    """Reset what is named; returns the exit code."""
    if not args.ledger:
        return fail("--ledger is missing", "guard budget show names the ledgers")
    if not args.reason:
        return fail("a reset needs a --reason", "it goes to the audit file and is published with the guarantee")
    if not args.yes and not sys.stdin.isatty():
        return fail("nobody is there to confirm", "--yes, if you are sure")
    return using(args.state, lambda books: _reset(books, args), write=True)


async def _reset(books: Books, args: argparse.Namespace) -> int:
    from guard.privacy.reset import chosen
    from guard.privacy.terms import Act
    from guard.telemetry.audit import append

    (ledger,) = await read(books, [args.ledger])
    if (unknown := await _unknown(books, ledger, args.budget)) is not None:
        return unknown
    act = Act("reset", now()[1], args.reason, args.budget, args.scope)
    before = chosen(ledger.accounts, act)
    terms = ledger.terms
    floors = {} if terms is None or args.scope else terms.floors
    if not before and not any(units for name, units in floors.items() if args.budget in ("", name)):
        return fail("there is nothing to reset", "nothing of this was ever spent", Exit.NOTHING_RAN)
    if not args.yes and not _confirmed(ledger.name, before):
        return fail("nothing was changed", code=Exit.FAILED)
    append(args.audit, line(act, ledger.name, args.state, before))
    if not await _written(books, ledger, act):
        append(args.audit, line(act, ledger.name, args.state, []) | {"failed": True})
        return fail("the ledger is charged all the time", "stop the guards that charge it", Exit.UNREACHABLE)
    print(f"{len(before):,} counters of the ledger {printable(ledger.name)} are reset; {act_in_words(act)}")
    return Exit.OK


async def _unknown(books: Books, ledger: Ledger, budget: str) -> int | None:
    """Return an exit code when there is no such ledger or budget, having said so."""
    from guard.policy.suggest import did_you_mean

    terms = ledger.terms
    if not ledger.accounts and terms is None:
        return fail(f"there is no ledger {ledger.name}", did_you_mean(ledger.name, await books.ledgers()))
    names = {account.budget for account in ledger.accounts} | (set[str]() if terms is None else {*terms.deltas})
    if budget and budget not in names:
        return fail(f"the ledger {ledger.name} has no budget {budget}", did_you_mean(budget, names))
    return None


def _confirmed(ledger: str, accounts: list[Account]) -> bool:
    """Ask on the terminal."""
    for account in accounts[:10]:
        print(f"  {printable(account.budget)} of {printable(account.scope)}: {account.spend.spent:,}", file=sys.stderr)
    if len(accounts) > 10:
        print(f"  and {len(accounts) - 10:,} more", file=sys.stderr)
    print(f"reset {len(accounts):,} counters of the ledger {printable(ledger)}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _written(books: Books, ledger: Ledger, act: Act) -> bool:
    """Reset, again where somebody has charged meanwhile; False when that does not end."""
    from guard.privacy.reset import chosen, emptied, reset

    for _ in range(10):
        terms = ledger.terms
        if terms is None:
            new, changed = None, [emptied(account) for account in chosen(ledger.accounts, act)]
        else:
            made = reset(terms, ledger.accounts, act, now()[0])
            new, changed = made.terms.dumps(), list(made.accounts)
        if await books.rewrite(ledger.name, ledger.raw, new, changed):
            return True
        (ledger,) = await read(books, [ledger.name])
    return False


def configure_migrate(parser: argparse.ArgumentParser) -> None:
    """Add the options of `guard budget migrate`."""
    parser.epilog = MIGRATE
    _add_policy(parser)
    add_state(parser)
    add_reason(parser)
    parser.add_argument("--dry-run", action="store_true", help="only print what would come of it")


def run_migrate(args: argparse.Namespace) -> int:
    """Move every ledger of a policy to its terms; returns the exit code."""
    from guard.cli.budget_migrate import migrate_all

    if not args.policy:
        return fail(
            "--policy is missing", "guard budget migrate --policy policy.yaml --state sqlite:guard.db --dry-run"
        )
    if not args.reason and not args.dry_run:
        return fail("a migration needs a --reason", "or --dry-run, to look at what would come of it")
    plan = _plan(args)
    return using(args.state, lambda books: migrate_all(books, plan, args), write=not args.dry_run)
