"""`guard tune`: search a policy's parameters for the least that honest users must pay."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option, fail, one_thread
from guard.cli.selftest import check_target, configure_target, needs_extra, ready_target

if TYPE_CHECKING:
    from rich.console import Console

    from guard.policy.gates import Gate
    from guard.selftest.runner import Target
    from guard.selftest.tuning.search import Found, Wanted

HELP = "search a policy's parameters for the least that honest users must pay"
EPILOG = """examples:
  guard tune --policy policy.yaml --out tuned.yaml                     # the least price that holds the policy's gates
  guard tune --policy balanced --gate equation_solving_softmax:surrogate_l1:min=0.05 --out tuned.yaml
  guard tune --policy balanced --objective leakage --max-mean-l1 0.06  # the least leakage within a price
  guard tune --policy balanced --out tuned.yaml --plot front.svg       # with a picture of price against leakage

It tries rounding, grids, truncation, levels and labels, with budgets of graded answers from the loosest to the
tightest, attacks each as `guard selftest` does, and remembers what it measured.

exit codes: 0 found, 1 nothing holds, 2 usage, 3 out of reach
"""
PROBE = "equation_solving_softmax"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--policy", help="policy file or preset to start from; its identity and inputs stay")
    add_option(parser, "--api", help="the API of routes that name none (default: open_inference)")
    parser.add_argument("--route", metavar="NAME", help="which route of the policy (default: its first)")
    parser.add_argument(
        "--gate", action="append", default=[], metavar="ATTACK:METRIC:min=N", help="what must hold, beside the policy's"
    )
    parser.add_argument(
        "--objective",
        choices=("utility", "leakage"),
        default="utility",
        help="what to make least (default: %(default)s)",
    )
    parser.add_argument("--max-mean-l1", type=float, metavar="L1", help="the most that scores may move on average")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long it may take (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="attacks side by side (default: %(default)s)")
    parser.add_argument("--out", metavar="YAML", help="where the policy goes (default: stdout)")
    configure_target(parser)
    parser.add_argument("--plot", metavar="PATH", help="draw price against leakage, .svg or .png")


def run(args: argparse.Namespace) -> int:
    """Search, draw, write."""
    one_thread()
    if problem := needs_extra():
        return problem
    if not args.policy:
        return fail("--policy is missing", hint="guard tune --policy balanced --out tuned.yaml")
    if problem := check_target(args):
        return problem
    if args.plot and Path(args.plot).suffix not in (".svg", ".png"):
        return fail(f"--plot draws .svg or .png, not {args.plot}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    from pydantic import ValidationError
    from rich.console import Console

    from guard.policy.load import load_policy, plan_of
    from guard.selftest.api import Unreachable
    from guard.selftest.attacks.registry import attack_named
    from guard.selftest.transplant import choose_route
    from guard.selftest.tuning.bench import RunnerBench, Silent, spread_of
    from guard.selftest.tuning.search import Wanted, search
    from guard.selftest.tuning.space import candidates
    from guard.selftest.tuning.write import draw_front, policy_text

    loaded = load_policy(args.policy, env=os.environ)
    plan_of(loaded, api=args.api)
    policy, route = loaded.policy, choose_route(loaded.policy, args.route)
    try:
        gates = (*policy.selftest.gates, *map(_gate, args.gate))
    except (ValueError, ValidationError) as error:
        return fail(f"a --gate cannot be read: {error}", hint="ATTACK:METRIC:min=N, or utility:METRIC:max=N")
    try:
        target = ready_target(args)(policy, route)
    except ValueError as error:
        return fail(str(error))
    except Unreachable as error:
        return fail(str(error), code=Exit.UNREACHABLE)
    gates = _judgeable(gates, target)
    attacked = [gate for gate in gates if gate.attack]
    if args.objective == "utility" and not attacked:
        return fail(
            "nothing says what must hold, so the least price is to do nothing",
            hint=f"--gate {PROBE}:surrogate_l1:min=0.05, gates in the policy's selftest block, or --objective leakage",
        )
    if args.objective == "leakage" and args.max_mean_l1 is None:
        return fail("the least leakage is labels alone; say what it may cost", hint="--max-mean-l1 0.06")
    policy = policy.model_copy(update={"selftest": policy.selftest.model_copy(update={"gates": gates})})
    probe = str(attacked[0].attack) if attacked else PROBE
    metric = attack_named(probe).metric
    wanted = Wanted(gates, probe, metric, args.objective, args.max_mean_l1, args.minutes)
    spread = spread_of(target, route, args.seed)
    choices = list(candidates(policy, route, answers=target.name != "lab", spread=spread))
    bench = RunnerBench(policy, route, target, args.seed, args.workers, Silent())
    say = Console(stderr=True)
    with say.status("starting") as status:
        found = search(
            wanted, choices, bench, lambda what, done, total: status.update(f"{what} ({done + 1} of {total})")
        )
    # A pipe has no width: the choices' names need one.
    _print(found, wanted, Console(width=None if sys.stdout.isatty() else 140))
    if args.plot:
        draw_front(found.points, found.best, wanted, Path(args.plot))
    if found.best is None:
        reason = "time ran out before" if found.partial else "no choice was found with which"
        return fail(f"{reason} every gate holds", "loosen a gate, or give it --minutes", Exit.FAILED)
    where = args.upstream or "the lab"
    text = policy_text(args.policy, policy, route, found.best, wanted, target=where, seed=args.seed)
    if args.out:
        Path(args.out).write_text(text)
        say.print(f"wrote {args.out}: guard check {args.out}; guard selftest --policy {args.out}", soft_wrap=True)
    else:
        print(text, end="")
    return Exit.OK


def _judgeable(gates: tuple[Gate, ...], target: Target) -> tuple[Gate, ...]:
    """Return the gates that can be judged on a model; say which cannot, and why."""
    from guard.selftest.attacks.registry import attack_named

    kept: list[Gate] = []
    for gate in gates:
        reason = target.applicable(attack_named(gate.attack)) if gate.attack else None
        if reason is None:
            kept.append(gate)
        else:
            print(f"warning: a gate of {gate.attack} is left out: {reason}", file=sys.stderr)
    return tuple(kept)


def _gate(text: str) -> Gate:
    from guard.policy.gates import Gate

    subject, _, rest = text.partition(":")
    metric, _, bound = rest.partition(":")
    which, _, value = bound.partition("=")
    if which not in ("min", "max"):
        raise ValueError(f"{text} has no bound")
    named = {"utility": metric} if subject == "utility" else {"attack": subject, "metric": metric}
    return Gate.model_validate({**named, which: float(value)})


def _print(found: Found, wanted: Wanted, out: Console) -> None:
    from rich.table import Table

    from guard.selftest.tuning.search import front

    best_front = {id(p) for p in front(found.points, wanted.metric)}
    table = Table(title="What was tried, by what honest users pay", title_justify="left", title_style="bold")
    for heading in ("choice", "labels changed", "mean L1", f"{wanted.metric} of {wanted.probe}", "gates", ""):
        table.add_column(heading)
    for point in sorted(found.points, key=lambda p: (p.price, -(p.candidate.allowance or 1e9))):
        changed, l1 = point.price
        leak = "" if point.leakage is None else f"{point.leakage:.3f}"
        gates = "" if point.holds is None else "hold" if point.holds else "fail"
        mark = "chosen" if point is found.best else "front" if id(point) in best_front else ""
        table.add_row(str(point.candidate), f"{changed:.1%}", f"{l1:.3f}", leak, gates, mark)
    out.print(table)
    if found.partial:
        out.print("[bold]partial: the search did not come to its end[/bold]")
