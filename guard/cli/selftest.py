"""`guard selftest`: attack models through a policy, as an outsider would, and report what it holds."""

from __future__ import annotations

import argparse
import os
import signal
from importlib.util import find_spec

from guard.cli.common import Exit, add_option, fail
from guard.policy.suggest import did_you_mean

HELP = "attack models through a policy and report what it holds"
EPILOG = """examples:
  guard selftest --policy strict                       # the lab: real models on real data, about 4 minutes
  guard selftest --policy policy.yaml --quick          # under a minute
  guard selftest --policy strict --only membership_lira --only hopskipjump
  guard selftest --policy strict --report html=report.html --report json=report.json
  guard selftest --policy strict --baseline old.json   # fails when anything got worse
  guard selftest --list                                # the attacks, what they threaten, and their sources

exit codes: 0 every gate holds, 1 a gate fails or a row is unresolved, 2 usage, 3 out of reach, 5 nothing ran
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--policy", help="policy file or preset whose outputs, defences and budgets are tested")
    add_option(parser, "--api", help="the API of routes that name none (default: open_inference)")
    parser.add_argument("--route", metavar="NAME", help="which route of the policy (default: its first)")
    parser.add_argument("--list", action="store_true", help="list the attacks and exit")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="run this attack; repeat for more")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="attacks side by side (default: %(default)s)")
    much = parser.add_mutually_exclusive_group()
    much.add_argument(
        "--quick", action="store_true", help="the gated attacks and a few more, without wrappers: a minute"
    )
    much.add_argument("--full", action="store_true", help="every wrapper on every attack, three seeds: hours")
    parser.add_argument(
        "--report", action="append", default=[], metavar="FORMAT=PATH", help="json, html, junit or markdown; repeatable"
    )
    parser.add_argument("--baseline", metavar="JSON", help="an earlier JSON report; anything worse than it fails")


def run(args: argparse.Namespace) -> int:
    """Run the self-test."""
    if missing := [name for name in ("sklearn", "scipy", "statsmodels") if find_spec(name) is None]:
        return fail(
            f"the self-test needs {', '.join(missing)}", 'pip install "model-guard[selftest]"', Exit.UNREACHABLE
        )
    if args.list:
        return _list()
    if not args.policy:
        return fail("--policy is missing", hint="guard selftest --policy strict")
    # Whatever ends the self-test ends its children too, which a terminal's Ctrl-C does not reach.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _run(args)


def _list() -> int:
    from rich.console import Console
    from rich.table import Table

    from guard.selftest.attacks.registry import attacks

    table = Table(box=None, pad_edge=False)
    for heading in ("attack", "threat", "ATLAS", "lab model", "source"):
        table.add_column(heading)
    for attack in attacks().values():
        table.add_row(attack.name, attack.threat, attack.atlas, attack.victim, attack.source)
    Console().print(table)
    return Exit.OK


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from guard.policy.load import DEFAULT_API, load_policy, plan_of
    from guard.selftest.cells import chosen
    from guard.selftest.lab.target import Lab
    from guard.selftest.report.table import print_report
    from guard.selftest.runner import Runner, Settings
    from guard.selftest.transplant import choose_route
    from guard.selftest.watch import Watch

    loaded = load_policy(args.policy, env=os.environ)
    plan = plan_of(loaded, api=args.api or DEFAULT_API)
    route = choose_route(loaded.policy, args.route)
    gates = loaded.policy.selftest.gates
    mode = "quick" if args.quick else "full" if args.full else "default"
    try:
        attacks = chosen(mode, args.only, frozenset(str(g.attack) for g in gates if g.attack))
    except KeyError as error:
        return _unknown(str(error.args[0]))
    target = Lab(loaded.policy, route)
    settings = Settings(attacks, mode, args.seed, 3 if args.full else 1, args.workers, gates)
    console = Console(stderr=True)
    with Watch(console) as watch:
        report = Runner(loaded.policy, route, plan.digest, target, settings, watch).run()
    print_report(report, Console())
    return Exit.OK if report.passed else Exit.FAILED


def _unknown(name: str) -> int:
    from guard.selftest.attacks.registry import names

    known = list(names())
    return fail(f"there is no attack {name}", did_you_mean(name, known) or "guard selftest --list")
