"""`guard check`: every mistake in a policy, with file, line, path and a hint. The code is the server's own."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from guard.cli.common import Exit, add_option, fail
from guard.errors import PolicyError, Problem

if TYPE_CHECKING:
    from guard.policy.plan import Plan, RoutePlan

HELP = "find every mistake in a policy, with file, line and a hint"
EPILOG = """examples:
  guard check policy.yaml
  guard check balanced strict --api torchserve        # presets by name
  guard check --format json policies/*.yaml           # for CI; exit 2 when any has a problem
"""
_SECRET_LINE = re.compile(r"(\bvalue[\"']?\s*:\s*)(?!\{)\S.*")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one policy.

    Args:
        source: as it was given.
        plan: None when there are problems.
        problems: what makes it unusable.
        warnings: what an operator should know.
    """

    source: str
    plan: Plan | None
    problems: list[Problem]
    warnings: list[Problem]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("policies", nargs="*", metavar="POLICY", help="file or preset; none: GUARD_POLICY")
    add_option(parser, "--policy", help="one more, as serve takes it")
    add_option(parser, "--api", help="the API of routes that name none, as for serve")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="how to print (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Check the policies and return the exit code."""
    sources: list[str] = args.policies or ([args.policy] if args.policy else [])
    if not sources:
        return fail("which policy?", "guard check policy.yaml, or guard check balanced")
    results = [check(source, args.api) for source in sources]
    if args.format == "json":
        print(json.dumps([as_json(result) for result in results], indent=2))
    else:
        for result in results:
            print_result(result)
    return Exit.USAGE if any(result.problems for result in results) else Exit.OK


def check(source: str, api: str | None) -> Checked:
    """Load and compile one policy as the server would.

    A policy whose routes name no API is fine by itself: a warning says what serve takes them for.
    """
    from guard.policy.load import load_policy, plan_of, problem_lines, unnamed_apis

    try:
        loaded = load_policy(source, env=os.environ)
        plan = plan_of(loaded, api=api, today=datetime.now(UTC).date())
    except PolicyError as error:
        return Checked(source, None, error.problems, [])
    missing = [] if api else unnamed_apis(loaded.policy)
    return Checked(source, plan, [], [*problem_lines(missing, loaded.root), *plan.warnings])


def print_problems(error: PolicyError, out: TextIO | None = None) -> None:
    """Print every problem of a policy, on stderr unless told otherwise."""
    _print(error.problems, "error", error.file, out or sys.stderr)


def print_result(result: Checked) -> None:
    """Print what came of one policy on stdout: problems and warnings with their lines, or a summary of its routes."""
    _print(result.problems, "error", result.source, sys.stdout)
    _print(result.warnings, "warning", result.source, sys.stdout)
    if result.plan is None:
        count = len(result.problems)
        print(f"{result.source}: {count} problem{'s' if count > 1 else ''}")
        return
    plan = result.plan
    print(f"{result.source}: fine. {plan.name}, {plan.mode}, digest {plan.digest[:12]}")
    for route in plan.routes:
        print(f"  {route.name}: {' | '.join(summary(route))}")


def summary(route: RoutePlan) -> Iterator[str]:
    """Yield what a route does, a phrase each."""
    yield f"{route.api}, {route.outputs.kind}, {route.mode}"
    yield "defences " + (" > ".join(map(str, map(describe, route.defences))) or "none")
    yield "budgets " + (", ".join(map(describe, route.budgets)) or "none")
    if route.detection is not None:
        yield "ladder " + " > ".join(step.rung.action for step in route.detection.ladder)


def describe(spec: object) -> str:
    """Return a spec as its kind and the parameters that were given, such as `top_k(k=3)`."""
    from pydantic import BaseModel

    if not isinstance(spec, BaseModel):
        return type(spec).__name__
    given = spec.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    kind = str(given.pop("kind", None) or getattr(spec, "kind", type(spec).__name__))
    return f"{kind}({', '.join(f'{key}={_shown(key, value)}' for key, value in given.items())})" if given else kind


def _shown(key: str, value: object) -> str:
    if key not in ("window", "period") or not isinstance(value, int):
        return str(value)
    unit, seconds = next((u, s) for u, s in (("h", 3600), ("m", 60), ("s", 1)) if value % s == 0)
    return f"{value // seconds}{unit}"


def as_json(result: Checked) -> dict[str, object]:
    """Return a result for machines."""
    plan = result.plan
    return {
        "source": result.source,
        "ok": plan is not None,
        "problems": [asdict(problem) for problem in result.problems],
        "warnings": [asdict(problem) for problem in result.warnings],
        "digest": plan.digest if plan else None,
        "name": plan.name if plan else None,
        "mode": plan.mode if plan else None,
        "routes": [_route_json(route) for route in plan.routes] if plan else [],
    }


def _route_json(route: RoutePlan) -> dict[str, object]:
    ladder = route.detection.ladder if route.detection else ()
    return {
        "name": route.name,
        "api": route.api,
        "mode": route.mode,
        "ledger": route.ledger,
        "outputs": route.outputs.kind,
        "defences": [defence.model_dump(mode="json") for defence in route.defences],
        "budgets": [budget.model_dump(mode="json") for budget in route.budgets],
        "endpoints": [f"{o.endpoint.method} {o.endpoint.template} ({o.endpoint.access})" for o in route.endpoints],
        "levels": [f"{step.rung.action}: {step.level}" for step in ladder if step.level is not None],
        "off": dict(route.detection.off) if route.detection else {},
    }


def _print(problems: Iterable[Problem], word: str, file: str, out: TextIO) -> None:
    for problem in problems:
        place = ":".join(part for part in (problem.file or file, str(problem.line or "")) if part)
        said = (place, "" if word == "error" else word, problem.path, problem.message)
        print(": ".join(part for part in said if part), file=out)
        missing = bool(problem.path) and not re.search(r"[.\[]", problem.path)
        if (excerpt := _excerpt(problem)) and (not missing or problem.path in excerpt):
            print(excerpt, file=out)
        if problem.hint:
            print(f"      hint: {problem.hint}", file=out)


def _excerpt(problem: Problem) -> str:
    """Return the offending line; what looks like a secret that was written out is masked."""
    if not problem.line or not problem.file:
        return ""
    try:
        lines = Path(problem.file).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    if problem.line > len(lines):
        return ""
    text = _SECRET_LINE.sub(r"\1***", "".join(c if c.isprintable() else " " for c in lines[problem.line - 1]))
    return f"{problem.line:>5} | {text.rstrip()[:160]}"
