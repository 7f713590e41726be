"""`guard budget`: plan, show, reset and migrate privacy budgets. Only the part that runs is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from guard.cli.common import fail
from guard.policy.suggest import did_you_mean

HELP = "plan a privacy budget, show what is left of it, reset or migrate its ledger"
EPILOG = """parts:
  plan      of epsilon, answers and noise, two give the third; with what is left of the answers, and a picture
  show      what every client, group and model has spent, and how many answers are left
  reset     begin a budget anew, with a reason that goes to the audit log
  migrate   move a ledger to a policy's new terms, never lowering what was spent

examples:
  guard budget plan --epsilon 8 --answers 1000 --teachers 100
  guard budget show --policy policy.yaml --state sqlite:guard.db
  guard budget PART --help
"""
PARTS = ("plan", "show", "reset", "migrate")


@dataclass
class Part:
    """A part of the command, shaped as a command."""

    HELP: str
    EPILOG: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the part; its options are its own."""
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="the part's options")


def run(args: argparse.Namespace) -> int:
    """Run a part."""
    from guard.cli.main import run as run_command

    if args.part not in PARTS:
        return fail(f"guard budget: there is no part {args.part}", did_you_mean(args.part, PARTS))
    return run_command(_part(args.part), f"budget {args.part}", args.rest)


def _part(name: str) -> Part:
    if name == "plan":
        from guard.cli import budget_plan as plan

        return Part(plan.HELP, plan.EPILOG, plan.configure, plan.run)
    from guard.cli import budget_books as books

    match name:
        case "show":
            return Part("show what is spent and left of every budget", "", books.configure_show, books.run_show)
        case "reset":
            return Part("begin a budget anew", "", books.configure_reset, books.run_reset)
        case _:
            return Part("move a ledger to new terms", "", books.configure_migrate, books.run_migrate)
