"""`guard doctor`: look at a deployment and say what is wrong with it, before an attacker does."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from guard.cli.common import fail
from guard.cli.findings import Finding, Level
from guard.cli.serve_options import add_options
from guard.cli.upstreams import Models, upstreams_of
from guard.errors import PolicyError

if TYPE_CHECKING:
    from guard.proxy.plans import Active

HELP = "look at a deployment and say what is wrong with it"
EPILOG = """examples:
  guard doctor --policy policy.yaml --upstream http://127.0.0.1:8080 --state sqlite:guard.db
  guard doctor --policy policy.yaml --upstream http://model:8080 --tls-cert tls.crt --tls-key tls.key --admin :9001

Takes the options of `guard serve`, and tries to reach the model around Guard: on other addresses of this machine, on
other ports that model servers open, without the credential that Guard adds. It sends a few requests that change
nothing, and only to the hosts that are named. With --admin it asks the running Guard who its clients are.
Exit 0: fine, or warnings only; 1: something is wrong; 2: bad policy; 3: a dependency is out of reach.
"""
_MARKS: dict[Level, str] = {
    "ok": "[green]ok[/green]  ",
    "warn": "[yellow]warn[/yellow]",
    "fail": "[red]fail[/red]",
    "down": "[red]down[/red]",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_options(parser, admin="off")


def run(args: argparse.Namespace) -> int:
    """Print the findings and return the exit code."""
    from rich.console import Console
    from rich.markup import escape

    from guard.proxy.load import load_active

    if not args.policy:
        return fail("--policy is missing", hint="doctor takes the options of serve", code=2)
    try:
        active = load_active(args.policy, api=args.api, env=os.environ)
    except PolicyError as error:
        from guard.cli.check import print_problems

        print_problems(error)
        return 2
    try:
        models = upstreams_of(args)
    except (ValueError, OSError) as error:
        return fail(str(error), code=2)
    findings = asyncio.run(examine(active, models, args))
    out = Console(highlight=False)
    for finding in findings:
        out.print(f"{_MARKS[finding.level]}  [bold]{finding.what}[/bold]: {escape(finding.message)}", soft_wrap=True)
    levels = {finding.level for finding in findings}
    return 3 if "down" in levels else 1 if "fail" in levels else 0


async def examine(active: Active, models: Models, args: argparse.Namespace) -> list[Finding]:
    """Look at everything; returns one finding or more for each thing.

    Args:
        active: the policy.
        models: the model servers.
        args: the options of serve.
    """
    from guard.cli.doctor_front import front_findings
    from guard.cli.doctor_model import client_findings, models_findings
    from guard.cli.doctor_state import secret_findings, state_findings
    from guard.cli.durability import durability_findings

    plan = active.plan
    findings = [
        Finding("ok", "policy", f"{plan.name}, {plan.mode}, {len(plan.routes)} route(s), digest {plan.digest[:12]}")
    ]
    findings += [Finding("warn", "policy", f"{w.path}: {w.message}; {w.hint}") for w in plan.warnings]
    findings += [Finding("warn", "identity", warning) for warning in active.identity.warnings]
    findings += secret_findings(args.state, args.secret_file)
    looks: list[Callable[[], Coroutine[None, None, list[Finding]]]] = [
        lambda: state_findings(args.state),
        lambda: durability_findings(args.state, plan),
        lambda: front_findings(args, plan),
    ]
    if models:
        looks.append(lambda: models_findings(active, models, args.listen))
    else:
        findings.append(Finding("warn", "upstream", "not looked at: --upstream is missing"))
    if args.admin != "off":
        looks.append(lambda: client_findings(args))
    for look in looks:
        findings += await look()
    return findings
