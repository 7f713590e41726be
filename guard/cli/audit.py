"""`guard audit`: the audit log, and ledgers: does what they say was spent follow from what they say was answered?"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option, fail
from guard.cli.ledgers import Ledger, add_state, now, printable, read, using
from guard.errors import StateError
from guard.policy.suggest import did_you_mean

if TYPE_CHECKING:
    from guard.policy.plan import Plan
    from guard.ports import Books

HELP = "read the audit log, verify it, and replay the ledgers of privacy budgets"
EPILOG = """parts:
  verify PATH   the audit log of `guard serve --audit file:PATH`: was anything changed, removed, moved or cut off?
  show PATH     what was decided, by client, route and time
  key           the public key that this guard signs with, for verify --key elsewhere
  verify        without a PATH: add up checkpoint and journal of every privacy counter, and price every answer again

PATH is the file, with what it was rotated into; `-` reads the lines of --audit stdout or of a syslog collector.

examples:
  guard audit verify /var/log/guard/audit.jsonl
  guard audit verify audit.jsonl --key 6d6a615f... --at-least 120000     # on another machine, after seq 120000 was seen
  kubectl logs guard-0 | guard audit verify - --key key.txt
  guard audit show audit.jsonl --since tuesday --until wednesday --client alice
  guard audit show audit.jsonl --verdict deny --since 2h --format jsonl
  guard audit verify --state sqlite:guard.db
  guard audit verify --state redis://redis:6379 --ledger digits
  guard audit verify --state sqlite:guard.db --policy policy.yaml    # only its ledgers, and whether it agrees with them

The log's key belongs to Guard's secret (--secret-file, GUARD_SECRET, or the one beside --state). What a rollback of the
log and its head to an older state removes, the disk cannot tell: remember guard_audit_sequence, and give --at-least.

Ledgers: works while guards run. Of each counter the journal must add up to what is spent, each answer must cost what
the ledger's accounting makes it cost, and each reset or migration must be among the acts that the ledger's terms keep.
An event that this version does not know has no price; one without noise costs infinity.
It finds what was changed by accident or without care. Whoever may write the state can also write a journal that adds
up: keep the state where only Guard writes, and the audit file where only operators do.
Exit 0: all is well; 1: problems, each with its place; 2: usage, bad policy, or nobody said whose log it is; 3: the
state or a file is out of reach; 5: there is nothing to verify.
"""
PARTS = ("verify", "show", "key")
_SHADOW = "shadow:"
_OF_LOG = ("key", "any_key", "at_least", "begin", "client", "route", "since", "until", "verdict", "id")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("path", metavar="PATH", nargs="?", help="the audit log, or - for stdin")
    add_state(parser)
    add_option(parser, "--secret-file", help="as for serve: its key signs the log, and makes pseudonyms of names")
    add_option(parser, "--policy", help="policy file or preset: look at its ledgers only, and compare their terms")
    add_option(parser, "--api", help="the API of routes that name none, as for serve")
    parser.add_argument("--ledger", help="only this ledger")

    log = parser.add_argument_group("verify PATH")
    log.add_argument("--key", action="append", help="public key, or a file that holds one; again for another one")
    log.add_argument("--any-key", action="store_true", default=None, help="whoever signed it: check the chain alone")
    log.add_argument("--at-least", type=int, metavar="SEQ", help="a number that the log is known to have reached")
    log.add_argument("--from", dest="begin", type=int, metavar="SEQ", help="lines before it were moved to an archive")
    show = parser.add_argument_group("show PATH")
    show.add_argument("--client", help="a client's name, or its pseudonym")
    show.add_argument("--route", help="a route's name")
    show.add_argument("--since", metavar="TIME", help="2027-01-31T10:00 (UTC), 2h, today, yesterday, tuesday")
    show.add_argument("--until", metavar="TIME", help="likewise; the time itself is not shown")
    show.add_argument("--verdict", help="allow, alert, degrade, throttle, label_only or deny")
    show.add_argument("--id", help="a request's id")
    show.add_argument("--format", choices=("table", "jsonl"), default="table", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Do the part that was asked for, and return the exit code."""
    if args.part not in PARTS:
        return fail(f"guard audit: there is no part {args.part}", did_you_mean(args.part, PARTS))
    if args.part == "key":
        from guard.cli.audit_verify import run_key

        return run_key(args)
    if args.path is None:
        return _ledgers(args)
    if args.ledger:
        return fail("--ledger is for ledgers, not for the audit log: leave the PATH out")
    if args.part == "show":
        from guard.cli.audit_show import run_show

        return run_show(args)
    from guard.cli.audit_verify import run_verify

    return run_verify(args)


def _ledgers(args: argparse.Namespace) -> int:
    given = next((name for name in _OF_LOG if getattr(args, name) is not None), None)
    if args.part == "show" or given is not None:
        what = "guard audit show" if given is None else f"--{given.replace('_', '-').replace('begin', 'from')}"
        return fail(f"{what} needs the audit log's PATH")
    plan: Plan | None = None
    if args.policy:
        from guard.policy.load import DEFAULT_API, load_plan

        plan = load_plan(args.policy, api=args.api or DEFAULT_API, env=os.environ)
    return using(args.state, lambda books: _verify(books, args.ledger, plan))


async def _verify(books: Books, only: str | None, plan: Plan | None) -> int:
    names = await books.ledgers()
    if only is not None and only not in names:
        return fail(f"there is no ledger {only}", did_you_mean(only, names), Exit.NOTHING_RAN)
    chosen = [only] if only is not None else names
    if plan is not None:
        of_plan = {route.ledger for route in plan.routes}
        chosen = [name for name in chosen if name in of_plan]
    counters = found = 0
    for name in chosen:
        (ledger,) = await read(books, [name])
        checked, wrong = verify(ledger)
        counters += checked
        found += len(wrong)
        for text in wrong:
            print(printable(f"{name}: {text}"))
        if checked and not wrong:
            rows = sum(entry.rows for account in ledger.private for entry in account.entries)
            print(
                printable(f"{name}: {checked:,} counters, {rows:,} rows charged: the journal adds up to what is spent")
            )
        for text in notes(ledger, plan):
            print(printable(f"{name}: note: {text}"))
    if found:
        return fail(f"{found:,} discrepancies", "restore nothing and reset nothing before you know why", Exit.FAILED)
    return Exit.OK if counters else fail("there is nothing to verify", "no privacy was charged", Exit.NOTHING_RAN)


def verify(ledger: Ledger) -> tuple[int, list[str]]:
    """Replay one ledger.

    Returns:
        How many privacy counters it has, and every discrepancy in words.
    """
    from guard.privacy.filters import parse_filter
    from guard.privacy.replay import discrepancies, sums

    try:
        terms = ledger.terms
        filter_ = None if terms is None else parse_filter(terms.open().filter)
    except (StateError, ValueError) as error:
        return 1, [f"{error}"]
    private = ledger.private
    wrong: list[str] = []
    for account in private:
        if terms is not None and filter_ is not None:
            said = discrepancies(account, terms, filter_)
        else:
            # Budgets that only count have no terms, so their answers have no price.
            said = sums(account)
            if not ledger.name.startswith(_SHADOW):
                said.append("the ledger has no terms, so that its answers have no price")
        wrong += [f"{account.budget} of {account.scope}: {text}" for text in said]
    return len(private), wrong


def notes(ledger: Ledger, plan: Plan | None) -> list[str]:
    """Return what is no discrepancy, and still worth knowing: a policy that disagrees, budgets overspent under it."""
    from guard.cli.budget_show import Wanted, shown

    if plan is None or ledger.raw is None:
        return []
    try:
        terms = ledger.terms
    except StateError:
        return []
    wanted = [r.private.terms for r in plan.routes if r.ledger == ledger.name and r.private and r.private.charged]
    if terms is None or not wanted:
        return []
    said = [f"the policy disagrees: {text}" for text in wanted[0].differs(terms)]
    for budget in shown(plan, {ledger.name: ledger}, Wanted(frozenset(), frozenset(), 5), now()[0]):
        if budget.kind == "privacy" and budget.ledger == ledger.name:
            over = [s for s in budget.scopes if budget.limit is not None and s.spent > budget.limit]
            said += [f"{budget.budget} of {s.scope} has spent more than the policy allows now" for s in over]
    return said
