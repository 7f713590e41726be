"""`guard replay`: run recorded traffic under another policy, and report what would change."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option, fail, one_thread
from guard.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from guard.policy.plan import Plan
    from guard.replay.gates import Gate
    from guard.replay.run import Result, Secret
    from guard.replay.traffic import Traffic

HELP = "run recorded traffic under another policy, and report what would change"
EPILOG = """examples:
  guard serve --policy observe --api mlflow --upstream http://127.0.0.1:5000 --record traffic      # sketches
  guard serve --policy observe --api mlflow --upstream ... --record traffic --record-bodies        # raw inputs, too
  guard replay traffic --policy strict --api mlflow                          # beside what the model said
  guard replay traffic --policy new.yaml --against old.yaml --api mlflow     # beside the policy before
  guard replay traffic --policy new.yaml --against old.yaml --api mlflow --fail-if 'refused_more>0.01'
  guard replay traffic --policy new.yaml --api mlflow --report html=replay.html json=replay.json
  guard replay traffic --policy new.yaml --api mlflow --since 2026-11-24 --until 2026-11-25T12:00

Bodies are replayed exactly; sketches as far as they go, and the report says how far that is. Nothing is sent, and no
live ledger is read or charged. --secret-file (or GUARD_SECRET) is Guard's own secret: with it exceptions find their
clients, and digests and detectors draw as they do in production; without it --seed stands in.

figures for --fail-if:
{figures}

exit codes: 0 fine, 1 a --fail-if holds, 2 usage, a bad policy or recordings that cannot be replayed, 3 a report could
not be written, 5 nothing is recorded, 130 interrupted (the report is of what was done until then)
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from guard.replay.gates import FIGURES

    figures = "\n".join(f"  {name:<17}{meaning}" for name, meaning in FIGURES.items())
    parser.epilog = EPILOG.format(figures=figures)
    parser.add_argument("recordings", nargs="+", metavar="DIR", help="directories of recordings, or single files")
    add_option(parser, "--policy", help="the new policy: a file or a preset")
    parser.add_argument("--against", metavar="POLICY", help="the old one (default: what was recorded)")
    add_option(parser, "--api", help="the API of routes that name none, as for serve")
    parser.add_argument("--route", metavar="NAME", help="the recorded route (default: all)")
    parser.add_argument(
        "--from", dest="kind", choices=("bodies", "sketches"), help="which recordings (default: bodies where there are)"
    )
    parser.add_argument("--since", type=moment, metavar="TIME", help="UTC: 2026-11-24, 2026-11-24T09:30")
    parser.add_argument("--until", type=moment, metavar="TIME", help="likewise, not included")
    parser.add_argument("--limit", type=int, metavar="N", help="replay the first N requests")
    parser.add_argument(
        "--report", action="extend", nargs="+", default=[], metavar="FORMAT=PATH", help="html, json, markdown or text"
    )
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text", help="of what is printed")
    parser.add_argument(
        "--fail-if", action="append", default=[], metavar="GATE", help="exit 1 when it holds: 'refused>0.01'; repeat"
    )
    add_option(parser, "--secret-file", help="file with Guard's secret, as for serve; otherwise GUARD_SECRET")
    parser.add_argument("--seed", type=int, default=0, help="what keys noise without a secret (default: %(default)s)")


def moment(text: str) -> float:
    """Return the seconds since the epoch of a date or a time, UTC unless it says otherwise.

    >>> moment("2026-11-24"), moment("2026-11-24T01:00Z")
    (1795478400.0, 1795482000.0)

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time; write 2026-11-24 or 2026-11-24T09:30") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def run(args: argparse.Namespace) -> int:
    """Replay, print, write and judge."""
    one_thread()
    from guard.replay.formats import target
    from guard.replay.gates import gate
    from guard.replay.traffic import Nothing, ReplayError

    if not args.policy:
        return fail("--policy is missing", "guard replay traffic --policy strict")
    if args.limit is not None and args.limit < 1:
        return fail("--limit must be 1 or more")
    try:
        # What is wrong with the options is said before anything runs for minutes.
        gates = [gate(text) for text in args.fail_if]
        reports = [target(text) for text in args.report]
    except ValueError as error:
        return fail(str(error))
    try:
        result = _replay(args)
    except Nothing as error:
        return fail(str(error), code=Exit.NOTHING_RAN)
    except (ReplayError, StateError) as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"{error.filename} cannot be read: {error.strerror}")
    return _tell(args, result, reports, gates)


def _replay(args: argparse.Namespace) -> Result:
    """Read, compile and run.

    Raises:
        ReplayError: recordings that cannot be replayed.
        PolicyError: a policy that cannot be used.
        StateError: a secret that cannot be read.
        OSError: a file that cannot be read.
    """
    from guard.replay.run import open_traffic
    from guard.replay.traffic import Wanted

    secret = _secret(args)
    new = _plan(args.policy, args, secret)
    old = None if args.against is None else _plan(args.against, args, secret)
    since = float("-inf") if args.since is None else args.since
    wanted = Wanted(args.route, since, float("inf") if args.until is None else args.until, args.limit)
    traffic = open_traffic([Path(given) for given in args.recordings], args.kind, wanted)
    names = ("recorded" if args.against is None else _name(args.against), _name(args.policy))
    if names[0] == names[1]:
        names = (f"{names[0]} (old)", f"{names[1]} (new)")
    return _watched(traffic, (old, new), names, secret)


def _secret(args: argparse.Namespace) -> Secret:
    from guard.proxy.secret import load_secret
    from guard.replay.run import Secret, of_seed

    if args.secret_file or os.environ.get("GUARD_SECRET"):
        return Secret(load_secret("memory:", Path(args.secret_file) if args.secret_file else None), real=True)
    return of_seed(args.seed)


def _plan(source: str, args: argparse.Namespace, secret: Secret) -> Plan:
    from guard.policy.load import load_plan
    from guard.proxy.secret import derived

    salt = derived(secret.key, b"guard detectors")
    return load_plan(source, api=args.api, env=os.environ, salt=salt)


def _name(source: str) -> str:
    """Return what a policy is called in the report."""
    return Path(source).name if "/" in source else source


def _watched(traffic: Traffic, plans: tuple[Plan | None, Plan], names: tuple[str, str], secret: Secret) -> Result:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from guard.replay.run import replay

    console = Console(stderr=True)
    columns = (TextColumn("replaying"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("replaying", total=len(traffic))
        with _quiet(), asyncio.Runner() as runner:
            return runner.run(replay(traffic, plans, names, secret, lambda done: progress.update(bar, completed=done)))


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep the ladder's events from the log: of each the product writes a line, and here the report counts them."""
    log = logging.getLogger("guard.audit")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _tell(args: argparse.Namespace, result: Result, reports: Sequence[tuple[str, Path]], gates: Sequence[Gate]) -> int:
    """Print and write the report; return the exit code."""
    from guard.replay.formats import FORMATS
    from guard.selftest.report import write_file

    print(FORMATS[args.format](result), end="")
    try:
        for name, path in reports:
            write_file(path, FORMATS[name](result))
    except OSError as error:
        return fail(f"a report could not be written: {error}", code=Exit.UNREACHABLE)
    if result.partial:
        return fail("interrupted: the report is partial", code=Exit.INTERRUPTED)
    if not result.comparison.requests:
        why = f"no request of route {args.route} is recorded" if args.route and not result.skipped else "nothing ran"
        return fail(why, "" if args.route else "the report says what was left out, and why", Exit.NOTHING_RAN)
    figures = result.comparison.figures()
    failed = [gate for gate in gates if gate.fails(figures)]
    for one in failed:
        print(f"guard: --fail-if {one}: it is {figures[one.figure]:g}", file=sys.stderr)
    return Exit.FAILED if failed else Exit.OK
