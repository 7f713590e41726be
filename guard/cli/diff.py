"""`guard diff`: say in words what a policy's edit changes."""

from __future__ import annotations

import argparse
import json
import os
import textwrap
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option

if TYPE_CHECKING:
    from guard.replay.changes import Difference, Version

HELP = "say in words what a policy's edit changes"
EPILOG = """examples:
  guard diff balanced strict --api mlflow
  guard diff old.yaml new.yaml --api mlflow
  git show main:policy.yaml > before.yaml && guard diff before.yaml policy.yaml --api mlflow
  guard diff old.yaml new.yaml --format json

Policies are compared as they are in force: presets and extends resolved, plans compiled. Comments, the order of keys
and what a default says anyway are no differences. What loosens comes first; !! marks what must not be overlooked.
Values of secrets are compared and never printed. `guard replay` says what an edit does to recorded traffic.

exit codes, as of diff: 0 nothing changes, 1 something does, 2 usage or a policy that cannot be used
"""
_TITLES = {
    "looser": "looser: clients may learn more",
    "unclear": "changes whose direction cannot be said",
    "stricter": "stricter: clients may learn less",
    "neutral": "neither",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("old", metavar="OLD", help="policy file or preset before")
    parser.add_argument("new", metavar="NEW", help="policy file or preset now")
    add_option(parser, "--api", help="the API of routes that name none, as for serve")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="how to print (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print and return the exit code."""
    from guard.replay.changes import difference

    old, new = (_version(source, args) for source in (args.old, args.new))
    found = difference(old, new)
    print(json.dumps(as_json(args, old, new, found), indent=2) if args.format == "json" else text(args, found))
    return Exit.FAILED if found.changes else Exit.OK


def _version(source: str, args: argparse.Namespace) -> Version:
    from guard.policy.load import load_policy, plan_of
    from guard.replay.changes import Version

    loaded = load_policy(source, env=os.environ)
    return Version(loaded, plan_of(loaded, api=args.api))


def text(args: argparse.Namespace, found: Difference) -> str:
    """Return the difference to read."""
    if not found.changes:
        return f"{args.old} and {args.new}: nothing changes"
    counts = {way: sum(change.way == way for change in found.changes) for way in _TITLES}
    said = ", ".join(f"{count} {way}" for way, count in counts.items() if count)
    lines = [f"from {args.old} to {args.new}: {said}"]
    for way, title in _TITLES.items():
        changes = [change for change in found.changes if change.way == way]
        if changes:
            lines += ["", title]
        for change in changes:
            lines += _wrapped(change.said, "!!" if change.loud else "- ")
    lines += ["", "what follows"]
    for sentence in found.consequences:
        lines += _wrapped(sentence, "- ")
    return "\n".join(lines)


def _wrapped(said: str, mark: str) -> list[str]:
    return textwrap.wrap(said, 118, initial_indent=f"  {mark.strip():<2} ", subsequent_indent="     ")


def as_json(args: argparse.Namespace, old: Version, new: Version, found: Difference) -> dict[str, object]:
    """Return the difference for machines."""
    return {
        "version": 1,
        "old": {"source": args.old, "name": old.plan.name, "digest": old.plan.digest},
        "new": {"source": args.new, "name": new.plan.name, "digest": new.plan.digest},
        "changes": [
            {"way": change.way, "path": change.path, "said": change.said, "loud": change.loud}
            for change in found.changes
        ],
        "consequences": list(found.consequences),
    }
