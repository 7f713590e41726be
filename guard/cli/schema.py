"""`guard schema`: the policy language, for editors and for people."""

from __future__ import annotations

import argparse
import json

from guard.cli.common import Exit

HELP = "print the policy language: JSON Schema for editors, Markdown for people"
EPILOG = """examples:
  guard schema > guard.schema.json       # then, on top of a policy: # yaml-language-server: $schema=guard.schema.json
  guard schema --format markdown > docs/policy.md
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--format", choices=("json", "markdown"), default="json", help="what to print (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    from guard.policy.reference import json_schema, markdown

    print(
        markdown() if args.format == "markdown" else json.dumps(json_schema(), indent=2),
        end="" if args.format == "markdown" else "\n",
    )
    return Exit.OK
