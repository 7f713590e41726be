"""`guard explain`: which route takes a request, what each step does to it, and the answer before and after."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from guard.cli.common import Exit, add_option, fail
from guard.cli.explain_detection import detection_json, show_detection
from guard.errors import Problem

if TYPE_CHECKING:
    from rich.console import Console

    from guard.cli.explanation import Explanation, Traffic
    from guard.policy.plan import Plan

HELP = "show what a policy does to one request and its answer, step by step"
EPILOG = """examples:
  guard explain --policy balanced --api open_inference            # with a small sample
  guard explain --policy policy.yaml --request query.json --response answer.json
  curl -s $URL/invocations -d @q.json | guard explain --policy strict --api mlflow --request q.json --response -

Nothing is sent and no budget is charged.
"""
MAX_BYTES = 64 * 2**20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--policy", help="policy file or preset, as for serve")
    add_option(parser, "--api", help="the API of routes that name none, as for serve")
    parser.add_argument("--path", help="path of the request (default: the first scoring endpoint's)")
    parser.add_argument("--method", default="POST", type=str.upper, help="its method (default: %(default)s)")
    parser.add_argument("--request", metavar="FILE", help="its body; - is stdin (default: a small sample)")
    parser.add_argument("--content-type", help="its Content-Type (default: application/json; text/csv for a .csv file)")
    parser.add_argument(
        "--response", metavar="FILE", help="the body of the model's answer; - is stdin (default: a small sample)"
    )
    parser.add_argument("--client", default="example", help="who asks: NAME or NAME@GROUP (default: %(default)s)")
    add_option(
        parser,
        "--secret-file",
        help="keys the noise, as for serve; otherwise GUARD_SECRET, otherwise noise differs every time",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="how to print (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Explain, print and return the exit code."""
    from guard.cli.explanation import explain
    from guard.policy.load import load_plan

    if not args.policy:
        return fail("--policy is missing", "guard explain --policy balanced --api open_inference")
    if args.request == args.response == "-":
        return fail("only one of --request and --response can be stdin")
    today = datetime.now(UTC).date()
    plan = load_plan(args.policy, api=args.api, env=os.environ, today=today)
    try:
        traffic = _traffic(plan, args)
    except (OSError, ValueError) as error:
        return fail(str(error))
    result = explain(plan, traffic)
    if args.format == "json":
        print(json.dumps(as_json(plan, result), indent=2))
    else:
        show(plan, result)
    return Exit.OK


def _traffic(plan: Plan, args: argparse.Namespace) -> Traffic:
    """Gather what to explain; what is not given is a sample.

    Raises:
        ValueError: no sample can be made.
        OSError: a file cannot be read.
    """
    from guard.cli.explanation import Traffic
    from guard.cli.samples import sample, sample_path
    from guard.model.client import Client
    from guard.proxy.secret import load_secret

    path: str | None = args.path
    if path is None:
        match = plan.policy.routes[0].match
        path = sample_path(plan.routes[0], None if match is None else match.path)
        if path is None:
            raise ValueError("no path to show for the first route; give --path")
    path = path.partition("?")[0]
    found = plan.match(args.method, path)
    made = sample(plan.routes[0] if found is None else found.route)
    needed = found is not None and found.endpoint.access == "scoring"
    if made is None and needed and (args.request is None or args.response is None):
        raise ValueError("only you know what this API's bodies look like; give --request and --response")
    request = _body(args.request) if args.request else (made or (b"", b""))[0]
    answer = _body(args.response) if args.response else (made or (b"", b""))[1]
    csv = str(args.request or "").endswith(".csv")
    content_type = (args.content_type or ("text/csv" if csv else "application/json")).partition(";")[0].strip().lower()
    name, _, group = str(args.client).partition("@")
    client = Client(name, group or name, "api_key")
    secret = load_secret("memory:", Path(args.secret_file) if args.secret_file else None)
    return Traffic(args.method, path, request, content_type, answer, client, secret)


def _body(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(MAX_BYTES)
    with Path(name).open("rb") as file:
        return file.read(MAX_BYTES)


def as_json(plan: Plan, result: Explanation) -> dict[str, object]:
    """Return an explanation for machines."""
    refused = result.refused
    return {
        "policy": {"name": plan.name, "mode": plan.mode, "digest": plan.digest},
        "request": {"method": result.method, "path": result.path, "rows": result.rows},
        "route": result.route,
        "access": result.access or None,
        "routes": [{"name": name, "reason": reason} for name, reason in result.routes],
        "steps": [asdict(step) for step in result.steps],
        "budgets": [asdict(charged) for charged in result.charged],
        "before": _decoded(result.before),
        "after": _decoded(result.after),
        "refused": None
        if refused is None
        else {"status": refused.status, "code": refused.code, "message": refused.message},
        "notes": result.notes,
        "privacy": list(result.statement),
        "detection": None if result.detection is None else detection_json(result.detection),
        "warnings": [asdict(warning) for warning in plan.warnings],
    }


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def show(plan: Plan, result: Explanation) -> None:
    """Print an explanation on stdout."""
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=False, emoji=False, markup=False)
    out.print(f"{plan.name} ({plan.mode}, digest {plan.digest[:12]})  {result.method} {result.path}", style="bold")
    for name, reason in result.routes:
        out.print(f"  route {name}: {reason}", style="green" if name == result.route else "dim")
    for note in result.notes:
        out.print(f"  note: {note}")
    if result.steps:
        _show_steps(out, result)
    if result.charged:
        _show_budgets(out, result)
    if result.refused is not None:
        out.print(
            f"\nrefused: {result.refused.status} {result.refused.code}: {result.refused.message}", style="bold red"
        )
    if result.after:
        _show_bodies(out, result)
    if result.detection is not None:
        show_detection(out, result.detection)
    if result.statement:
        out.print("\nwhat you may publish", style="bold")
        for sentence in result.statement:
            out.print(f"  {sentence}")
    for warning in plan.warnings:
        out.print(f"warning: {_place(warning)}{warning.message}; {warning.hint}", style="yellow")


def _place(warning: Problem) -> str:
    return f"{warning.path}: " if warning.path else ""


def _show_steps(out: Console, result: Explanation) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="steps", title_justify="left")
    table.add_column("phase", no_wrap=True)
    for column in ("step", "what it does and costs", "here"):
        table.add_column(column, overflow="fold")
    for step in result.steps:
        if step.phase == "admit":
            continue  # the budgets have a table of their own
        does = Text(step.does)
        if step.costs:
            does.append(f"\n{step.costs}", style="dim")
        table.add_row(Text(step.phase), Text(step.what), does, Text(step.result))
    out.print(table)


def _show_budgets(out: Console, result: Explanation) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="budgets", title_justify="left")
    for column in ("budget", "charges", "this request", "limit", "then", "mode"):
        table.add_column(column, overflow="fold")
    for charged in result.charged:
        then = charged.then + (f", denied after {charged.hard_limit:,} rows" if charged.hard_limit else "")
        row = (charged.budget, charged.scope, str(charged.amount), f"{charged.limit:,}", then, charged.mode)
        table.add_row(*map(Text, row))
    out.print(table)


def _show_bodies(out: Console, result: Explanation) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    table.add_column("the model says", ratio=1, overflow="fold")
    table.add_column("the client gets", ratio=1, overflow="fold")
    table.add_row(Text(pretty(result.before)), Text(pretty(result.after)))
    out.print(table)


def pretty(body: bytes, lines: int = 60) -> str:
    """Return a body to read: JSON indented, lists of numbers on one line, long ones cut.

    >>> print(pretty(b'{"a": [0.5, 0.25]}'))
    {
      "a": [0.5, 0.25]
    }
    """
    decoded = _decoded(body)
    text = decoded if isinstance(decoded, str) else _indented(decoded, "")
    shown = text.splitlines()
    return "\n".join(shown[:lines] + ([f"... {len(shown) - lines} more lines"] if len(shown) > lines else []))


def _indented(value: object, margin: str) -> str:
    inner = margin + "  "
    if isinstance(value, dict) and value:
        members = cast("dict[str, object]", value)
        lines = [f"{inner}{json.dumps(key)}: {_indented(item, inner)}" for key, item in members.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    items = cast("list[object]", value) if isinstance(value, list) else []
    if any(isinstance(item, dict | list) for item in items):
        return "[\n" + ",\n".join(inner + _indented(item, inner) for item in items) + f"\n{margin}]"
    return json.dumps(value)
