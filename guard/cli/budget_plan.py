"""`guard budget plan`: of epsilon, the number of answers and the noise, two give the third."""

from __future__ import annotations

import argparse
import json
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import Exit, fail, one_thread

if TYPE_CHECKING:
    from guard.cli.budget_planned import Planned

HELP = "plan a privacy budget: of epsilon, answers and noise, two give the third"
EPILOG = """examples:
  guard budget plan --epsilon 8 --answers 1000                      # one model: how much noise, and what is left
  guard budget plan --epsilon 8 --answers 1000 --teachers 100 --records 60000 --svg plan.svg
  guard budget plan --epsilon 2 --noise-multiplier 40 --mechanism noisy_vote --teachers 250
  guard budget plan --epsilon 4 --answers 500 --outputs value --low 0 --high 5 --teachers 50 --data answers.csv
  guard budget plan --policy policy.yaml --route digits             # what a policy of your own comes to

The mechanism itself is run on the scores that you give (--data), or on a digits model's. What it prints is what Guard
would enforce: the plan is compiled as a policy, and printed as one. Where opacus is installed, it is asked, too, in a
process of its own; no plan is printed when it disagrees.

exit codes: 0 fine, 1 the plan is useless (it is printed all the same), impossible, or opacus disagrees, 2 usage or bad
policy, 3 --oracle-python cannot be asked
"""
_OF_A_PLAN = (
    "epsilon", "delta", "answers", "noise_multiplier", "answer_epsilon", "teachers", "quorum", "low", "high", "norm",
    "classes", "records",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    budget = parser.add_argument_group("two of these")
    budget.add_argument("--epsilon", type=_positive, metavar="E", help="of the budget, in nats, at most 1000")
    budget.add_argument("--answers", type=_count, metavar="N", help="how many that are not repeats")
    budget.add_argument("--noise-multiplier", type=_positive, metavar="M", help="scale of the noise over sensitivity")
    budget.add_argument(
        "--answer-epsilon", type=_positive, metavar="E", help="instead, for exponential and randomised_response"
    )
    what = parser.add_argument_group("what is answered")
    what.add_argument("--mechanism", default="dp_gaussian", metavar="KIND", help=_mechanisms())
    what.add_argument("--teachers", type=_count, metavar="K", help="models trained on disjoint shards (default: one)")
    what.add_argument("--quorum", type=_count, metavar="Q", help="how many of them must answer (default: all)")
    what.add_argument(
        "--outputs",
        default="probabilities",
        metavar="KIND",
        help="probabilities, value or embedding (default: %(default)s)",
    )
    what.add_argument("--classes", metavar="K", help="number of classes, or their names: a,b,c (default: the data's)")
    what.add_argument("--low", type=_number, help="least value, for --outputs value")
    what.add_argument("--high", type=_number, help="greatest")
    what.add_argument("--norm", type=_positive, help="greatest L2 norm, for --outputs embedding")
    whose = parser.add_argument_group("whose budget")
    whose.add_argument("--delta", type=_positive, metavar="D", help="default: 0.1 / --records; without either 1e-6")
    whose.add_argument("--records", type=_count, metavar="N", help="training records: delta must be below 1 / N")
    whose.add_argument(
        "--per", default="model", help="model (everybody together), group or client (default: %(default)s)"
    )
    other = parser.add_argument_group("instead of all that")
    other.add_argument("--policy", metavar="FILE", help="what a policy's route comes to")
    other.add_argument("--route", metavar="NAME", help="which (default: the first with a privacy budget)")
    parser.add_argument("--data", metavar="FILE", help="scores to try it on: CSV, JSON or .npy, a row an answer")
    parser.add_argument("--svg", metavar="FILE", help="draw answers against epsilon")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--oracle-python", metavar="PATH", help="an interpreter that has opacus (default: this one)")


def _mechanisms() -> str:
    from guard.cli.budget_request import MECHANISMS

    return f"{', '.join(MECHANISMS)} (default: %(default)s)"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no number") from error
    if not isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = _number(text.replace(",", ""))
    if not 1 <= value <= 1e12 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 10^12")
    return int(value)


def run(args: argparse.Namespace) -> int:
    """Plan, check, draw, print; return the exit code."""
    one_thread()
    from guard.cli.budget_request import Unplannable

    try:
        return _run(args)
    except Unplannable as error:
        return fail(error.message, error.hint, error.code)


def _run(args: argparse.Namespace) -> int:
    from guard.cli.budget_advice import advice, grade, reasons
    from guard.cli.budget_oracle import cross_check
    from guard.cli.budget_report import as_json, as_text

    planned = _planned(args)
    check = cross_check(planned, args.oracle_python)
    if check.status == "disagrees":
        for line in check.said:
            print(f"  {line}", file=sys.stderr)
        hint = "trust neither until this is understood; please report it with the lines above"
        return fail("Guard's filter and opacus disagree, so no plan is printed", hint, Exit.FAILED)
    if args.svg:
        from guard.cli.budget_picture import draw

        try:
            Path(args.svg).write_text(draw(planned), "utf-8")
        except OSError as error:
            return fail(f"--svg: cannot write {args.svg}: {error.strerror}")
        print(f"wrote {args.svg}", file=sys.stderr)
    called, why = grade(planned), reasons(planned)
    helps = advice(planned, args.seed) if called != "usable" else []
    if args.format == "json":
        print(json.dumps(as_json(planned, called, why, helps, check), indent=2))
    else:
        print(as_text(planned, called, why, helps, check), end="")
    return Exit.FAILED if called == "useless" else Exit.OK


def _planned(args: argparse.Namespace) -> Planned:
    from guard.cli.budget_data import default, load
    from guard.cli.budget_planned import plan, review
    from guard.cli.budget_request import Unplannable, read
    from guard.cli.budget_route import from_policy

    sample = load(args.data) if args.data else None
    if args.policy:
        given = [f"--{name.replace('_', '-')}" for name in _OF_A_PLAN if getattr(args, name) is not None]
        if given:
            raise Unplannable(f"--policy says everything, so {', '.join(given)} cannot", "drop one or the other")
        route = from_policy(args.policy, args.route)
        return review(route, sample or default(route.outputs), args.seed)
    if args.route:
        raise Unplannable("--route is of a policy", "add --policy FILE")
    request = read(args, None if sample is None else sample.scores.shape[1])
    return plan(request, sample or default(request.outputs), args.seed)
