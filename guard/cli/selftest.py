"""`guard selftest`: attack models through a policy, as an outsider would, and report what it holds."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option, fail, one_thread
from guard.policy.suggest import did_you_mean

if TYPE_CHECKING:
    from guard.policy.schema import Policy, Route
    from guard.selftest.base import Attack
    from guard.selftest.results import Report
    from guard.selftest.runner import Settings, Target

HELP = "attack models through a policy and report what it holds"
EPILOG = """examples:
  guard selftest --policy strict                       # the lab: real models on real data, about 4 minutes
  guard selftest --policy policy.yaml --quick          # the gated attacks and a few more: a minute
  guard selftest --policy strict --only membership_lira --only hopskipjump
  guard selftest --policy strict --report html=report.html json=report.json
  guard selftest --policy strict --baseline old.json   # fails when anything got worse
  guard selftest --list                                # the attacks, what they threaten, and their sources

your own model, behind a Guard that is started for it (rows one JSON value a line: [..], or {"x": .., "y": ..}):
  guard selftest --policy policy.yaml --api mlflow --upstream http://127.0.0.1:5000 --queries held-out.jsonl

a Guard that runs already, asked 2,000 rows at most:
  guard selftest --policy policy.yaml --live http://127.0.0.1:9000 --key KEY --queries held-out.jsonl --limit 2000

exit codes: 0 every gate holds, 1 a gate fails or a row is unresolved, 2 usage, 3 out of reach, 5 nothing ran
"""
EXTRA = ("sklearn", "scipy", "statsmodels", "matplotlib")


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
    much.add_argument("--quick", action="store_true", help="the gated attacks and a few more, no wrappers: a minute")
    much.add_argument("--full", action="store_true", help="every wrapper on every attack, three seeds: hours")
    parser.add_argument(
        "--report",
        action="extend",
        nargs="+",
        default=[],
        metavar="FORMAT=PATH",
        help="write json, html, junit or markdown; several at once, or repeated",
    )
    parser.add_argument("--baseline", metavar="JSON", help="an earlier JSON report; anything worse than it fails")
    configure_target(parser)
    live = parser.add_argument_group("a Guard that runs already")
    live.add_argument("--live", metavar="URL", help="of its data listener; give --upstream too for a control")
    live.add_argument("--limit", type=int, default=2000, help="most rows it is ever asked (default: %(default)s)")
    add_option(parser, "--key", help="a client's key, for --live")
    live.add_argument("--key-header", default="x-api-key", help="header that carries it (default: %(default)s)")


def configure_target(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a model of the operator's own."""
    own = parser.add_argument_group("your own model")
    own.add_argument("--upstream", metavar="URL", help="of the model server; without it the lab's models are attacked")
    own.add_argument("--queries", metavar="JSONL", help="held-out rows, one JSON value a line, labels as `y` if known")
    own.add_argument("--model", default="", metavar="NAME", help="the model's name, where the API's path has one")
    own.add_argument("--path", default="", help="of the scoring endpoint, instead of the API's own")
    own.add_argument("--template", default="", metavar="JSON", help="of a request, for api: json")
    own.add_argument("--members", default="", metavar="JSONL", help="rows that trained the model")
    own.add_argument("--non-members", default="", metavar="JSONL", help="rows of the same kind that did not")


def check_target(args: argparse.Namespace) -> int:
    """Say what is wrong with the options that name a target and return an exit code; 0 when nothing is."""
    if args.queries and not (args.upstream or getattr(args, "live", None)):
        return fail("--queries are rows for a model of yours", hint="--upstream URL names it")
    if args.upstream and not args.queries:
        return fail("--upstream needs --queries", hint="a file of held-out rows, one JSON value a line")
    return Exit.OK


def needs_extra() -> int:
    """Say what is missing of the `selftest` extra and return an exit code; 0 when all is there."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if not missing:
        return Exit.OK
    what = f"the self-test needs {', '.join(missing)}"
    return fail(what, 'pip install "model-guard[selftest]"', Exit.UNREACHABLE)


def run(args: argparse.Namespace) -> int:
    """Run the self-test."""
    one_thread()
    if problem := needs_extra():
        return problem
    if args.list:
        return _list()
    if not args.policy:
        return fail("--policy is missing", hint="guard selftest --policy strict")
    if problem := check_target(args):
        return problem
    # Whatever ends the self-test ends its children too, which a terminal's Ctrl-C does not reach.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _run(args)


def _list() -> int:
    from guard.selftest.attacks.registry import attacks

    for attack in attacks().values():
        print(f"{attack.name}\n    {attack.title}: {attack.threat} ({attack.atlas}), lab model {attack.victim}")
        print(f"    {attack.source}")
    return Exit.OK


def _run(args: argparse.Namespace) -> int:
    from guard.policy.load import load_policy, plan_of
    from guard.selftest.api import Unreachable
    from guard.selftest.report import target as report_target
    from guard.selftest.report.baseline import load
    from guard.selftest.transplant import choose_route

    loaded = load_policy(args.policy, env=os.environ)
    plan = plan_of(loaded, api=args.api)
    route = choose_route(loaded.policy, args.route)
    try:
        # What is wrong with the options is said before anything runs for minutes.
        reports = [report_target(text) for text in args.report]
        baseline = load(Path(args.baseline)) if args.baseline else None
        target = ready_target(args)(loaded.policy, route)
        settings = _settings(args, loaded.policy, target)
        report = _attack(loaded.policy, route, plan.digest, target, settings)
    except ValueError as error:  # usage, a target, a baseline: each says what is wrong
        return fail(str(error))
    except Unreachable as error:
        return fail(str(error), code=Exit.UNREACHABLE)
    return _tell(report, reports, baseline, args.only)


def ready_target(args: argparse.Namespace) -> Callable[[Policy, Route], Target]:
    """Return what makes the target that the options name, given a policy and its route."""
    from guard.selftest.lab.target import Lab
    from guard.selftest.targets.live import open_live
    from guard.selftest.targets.own import open_own

    own = {name: getattr(args, name) for name in ("queries", "api", "model", "path", "template")}
    own |= {"members": args.members, "non_members": args.non_members}

    def made(policy: Policy, route: Route) -> Target:
        if getattr(args, "live", None):
            return open_live(
                args.live,
                upstream=args.upstream or "",
                route=route,
                limit=args.limit,
                key=args.key or "",
                key_header=args.key_header,
                **own,
            )
        if args.upstream:
            return open_own(policy, route, upstream=args.upstream, **own)
        return Lab(policy, route)

    return made


def _settings(args: argparse.Namespace, policy: Policy, target: Target) -> Settings:
    """Choose the attacks: what cannot run here and nobody asked for is left out, with a warning.

    Raises:
        ValueError: an attack that does not exist.
    """
    from guard.selftest.cells import chosen
    from guard.selftest.runner import Settings

    gates = policy.selftest.gates
    gated = frozenset(str(gate.attack) for gate in gates if gate.attack)
    mode = "quick" if args.quick else "full" if args.full else "default"
    try:
        attacks = chosen(mode, args.only, gated)
    except KeyError as error:
        raise ValueError(_unknown(str(error.args[0]))) from error
    kept: list[Attack] = []
    why: dict[str, list[str]] = {}
    for attack in attacks:
        reason = target.applicable(attack)
        # A preset's gates are made for the lab: on another model, what cannot be asked there cannot be held to it.
        if reason is None or attack.name in args.only or (attack.name in gated and target.name == "lab"):
            kept.append(attack)
        else:
            why.setdefault(reason, []).append(attack.name + (" and its gates" if attack.name in gated else ""))
    warnings = [*target.warnings, *(f"left out {', '.join(names)}: {reason}" for reason, names in why.items())]
    return Settings(
        kept, mode, args.seed, 3 if args.full else 1, args.workers, gates, remember="controls", warnings=warnings
    )


def _unknown(name: str) -> str:
    from guard.selftest.attacks.registry import names

    return f"there is no attack {name}; {did_you_mean(name, list(names()))}"


def _attack(policy: Policy, route: Route, digest: str, target: Target, settings: Settings) -> Report:
    from rich.console import Console

    from guard.selftest.runner import Runner
    from guard.selftest.watch import Watch

    with Watch(Console(stderr=True)) as watch:
        return Runner(policy, route, digest, target, settings, watch).run()


def _tell(report: Report, reports: list[tuple[str, Path]], baseline: Report | None, only: list[str]) -> int:
    """Print and write the report; return the exit code."""
    from rich.console import Console

    from guard.selftest.report import write
    from guard.selftest.report.baseline import compare, mismatches
    from guard.selftest.report.table import print_report

    print_report(report, Console())
    try:
        write(report, reports)
    except OSError as error:
        return fail(f"a report could not be written: {error}", code=Exit.UNREACHABLE)
    if report.partial:
        return fail("interrupted: the report is partial", code=Exit.INTERRUPTED)
    if not any(row.defended for row in report.attacks):
        return fail("nothing ran", "the table says why", Exit.NOTHING_RAN)
    worse = compare(baseline, report, only or None) if baseline is not None else []
    for doubt in mismatches(baseline, report) if baseline is not None else []:
        print(f"warning: {doubt}", file=sys.stderr)
    for regression in worse:
        fail(f"worse than the baseline: {regression}")
    return Exit.OK if report.passed and not worse else Exit.FAILED
