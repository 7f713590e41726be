"""The command `guard`: finds the command's module, and turns whatever it raises into an exit code.

A command is a module of this package with `HELP`, `EPILOG`, `configure(parser)` and `run(args) -> exit code`, and one
word in `COMMANDS`. Only the command that runs is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from guard import __version__
from guard.cli.common import Exit, fail
from guard.errors import GuardError, PolicyError, StateError, UpstreamError
from guard.policy.suggest import closest

COMMANDS: tuple[str, ...] = (
    "serve", "demo", "check", "explain", "schema", "selftest", "tune", "calibrate", "replay", "diff", "budget", "audit",
    "secrets", "doctor",
)  # fmt: skip

_HELP = """usage: guard COMMAND [options]

Guard is a reverse proxy in front of a model's prediction API. It decides how much each client may learn from it.

commands:
{commands}

start here:
  guard demo                                   a model, Guard in front of it, and a theft with and without: one minute
  guard serve --policy observe --api open_inference --upstream http://127.0.0.1:8080
                                               stand in front of your model, change nothing, count everything
  guard explain --policy balanced --api mlflow what a policy does to an answer, step by step
  guard check policy.yaml                      every mistake in a policy, with file and line
  guard budget plan --epsilon 8 --answers 1000 --teachers 100
                                               the noise that so much privacy takes, and what it leaves

presets: observe (count only), balanced (customers first), strict (the model first), label-only,
  private-ensemble (several models on disjoint shards answer as one), llm (language models and embeddings)
options: every --option of a command is also GUARD_OPTION in the environment; guard COMMAND --help lists them
exit codes: 0 fine, 1 a check failed, 2 usage or bad policy, 3 dependency out of reach, 4 internal, 5 nothing ran
"""


class Command(Protocol):
    """What a command's module offers."""

    HELP: str
    EPILOG: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None takes the process's.
    """
    return guarded(lambda: _dispatch(list(sys.argv[1:] if argv is None else argv)))


def guarded(work: Callable[[], int]) -> int:
    """Do the work; return its exit code, or the one that what it raised stands for."""
    try:
        code = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output is gone; the interpreter must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.BROKEN_PIPE
    except GuardError as error:
        code = _tell(error)
    except Exception as error:  # The outermost caller: a bug ends with an exit code of its own.
        traceback.print_exc()
        message = f"internal error: {type(error).__name__}"
        code = fail(message, "please report this with the lines above", Exit.INTERNAL)
    return code


def _tell(error: GuardError) -> int:
    if isinstance(error, PolicyError):
        from guard.cli.check import print_problems

        print_problems(error)
        return Exit.USAGE
    reachable = not isinstance(error, StateError | UpstreamError)
    return fail(error.message, code=Exit.INTERNAL if reachable else Exit.UNREACHABLE)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if first in ("-h", "--help", "help"):
        if len(arguments) == 1:
            print(_HELP.format(commands=_listing()), end="")
            return Exit.OK
        arguments = [arguments[1], "--help"]
        first = arguments[0]
    if first in ("-V", "--version"):
        print(f"guard {__version__}")
        return Exit.OK
    if first not in COMMANDS:
        near = closest(first, COMMANDS)
        what = f"there is no command {first}" if first else "a command is missing"
        return fail(what, f"did you mean {near}?" if near else f"one of {', '.join(COMMANDS)}; guard --help says more")
    return run(_load(first), first, arguments[1:])


def run(command: Command, name: str, arguments: list[str]) -> int:
    """Parse a command's arguments and run it."""
    parser = argparse.ArgumentParser(
        prog=f"guard {name}",
        description=command.HELP,
        epilog=command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    try:
        command.configure(parser)
        args = parser.parse_args(arguments)
    except SystemExit as done:
        return Exit.OK if not done.code else Exit.USAGE
    return command.run(args)


def _load(name: str) -> Command:
    return cast("Command", import_module(f"guard.cli.{name}"))


def _listing() -> str:
    return "\n".join(f"  {name:<10}{_load(name).HELP}" for name in COMMANDS)
