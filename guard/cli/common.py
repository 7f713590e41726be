"""What all commands share: exit codes, options that the environment can give, and how mistakes are told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    FAILED = 1
    """A check failed."""
    USAGE = 2
    """Usage, or a policy that cannot be used."""
    UNREACHABLE = 3
    """A dependency is out of reach."""
    INTERNAL = 4
    NOTHING_RAN = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def add_option(
    parser: argparse.ArgumentParser,
    flag: str,
    *,
    help: str,
    default: str | float | None = None,
    kind: Callable[[str], object] = str,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Add an option that the environment can give too: `--secret-file` is also `GUARD_SECRET_FILE`.

    The command line wins.

    Args:
        parser: the command's.
        flag: such as `--secret-file`.
        help: what it is; the variable's name is added.
        default: value when neither gives one.
        kind: turns the text into the value; raises ValueError for one that cannot be.
        choices: allowed texts.
        metavar: what stands for the value in the help.
        env: the environment; None is the process's.
    """
    name = "GUARD_" + flag.strip("-").replace("-", "_").upper()
    given = (os.environ if env is None else env).get(name)
    value: object = default
    if given:
        try:
            value = kind(given)
        except ValueError:
            parser.error(f"{name}: invalid value: {given}")
        if choices is not None and given not in choices:
            parser.error(f"{name} must be one of {', '.join(choices)}, not {given}")
    shown = f"{help} [{name}]"
    parser.add_argument(flag, help=shown, default=value, type=kind, choices=choices, metavar=metavar)


def add_switch(parser: argparse.ArgumentParser, flag: str, *, help: str) -> None:
    """Add an option without a value; in the environment `1`, `true`, `yes` and `on` switch it on."""
    name = "GUARD_" + flag.strip("-").replace("-", "_").upper()
    given = os.environ.get(name, "").lower()
    if given not in ("", "0", "false", "no", "off", "1", "true", "yes", "on"):
        parser.error(f"{name} is yes or no, not {given}")
    on = given in ("1", "true", "yes", "on")
    parser.add_argument(flag, help=f"{help} [{name}]", default=on, action="store_true")


def one_thread() -> None:
    """Give linear algebra one thread, before numpy is imported: on few cores more of them are slower by far."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def fail(message: str, hint: str = "", code: int = Exit.USAGE) -> int:
    """Say on stderr what went wrong and what to do, and return `code`."""
    print(f"guard: {message}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)
    return int(code)
