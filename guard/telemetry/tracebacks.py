"""Exceptions for the log: where they were raised and what they are, never what they say.

The text of a foreign exception quotes what it stumbled over ("could not convert string to float: ..."), and that may be
a client's input or a secret. Guard's own errors are safe to show, and so is what the operating system says. Values of
local variables are never looked at.
"""

from __future__ import annotations

import re
import traceback
from typing import TypedDict

from guard.errors import GuardError

_UNPRINTABLE = re.compile(r"[^\n\x20-\x7e]")
MOST_FRAMES = 50
"""Frames shown of one exception; of a deeper stack, the innermost."""
MOST_LINKED = 8
"""Exceptions shown of a chain of causes, the outermost first."""


class Frame(TypedDict):
    """One call on the stack."""

    file: str
    line: int
    function: str


class Raised(TypedDict):
    """One exception.

    `message` is empty where it could quote an input; `frames` stand outermost first.
    """

    type: str
    message: str
    frames: list[Frame]


def chain_of(error: BaseException) -> list[Raised]:
    """Return an exception and what it came from, itself first.

    >>> try:
    ...     float("a client's input")
    ... except ValueError as error:
    ...     [(raised["type"], raised["message"]) for raised in chain_of(error)]
    [('ValueError', '')]
    """
    found: list[Raised] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(found) < MOST_LINKED:
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__, limit=-MOST_FRAMES)
        found.append(
            Raised(
                type=_name(type(current)),
                message=safe_message(current),
                frames=[Frame(file=f.filename, line=f.lineno or 0, function=f.name) for f in frames],
            )
        )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def safe_message(error: BaseException) -> str:
    """Return what an exception says, if that cannot hold an input."""
    if isinstance(error, GuardError):
        return error.message
    if isinstance(error, OSError):
        return error.strerror or ""
    return ""


def shown(chain: list[Raised]) -> str:
    """Return a chain as text, every line indented, so that none can pass for a line of the log."""
    lines: list[str] = []
    for number, raised in enumerate(chain):
        said = f": {plain(raised['message'])}" if raised["message"] else ""
        lines.append(f"  {'caused by ' if number else ''}{raised['type']}{said}")
        lines += [f"    {frame['file']}:{frame['line']} in {frame['function']}" for frame in raised["frames"]]
    return "\n".join(lines)


def plain(text: str) -> str:
    r"""Return text that a client may have a part in so that it cannot pass for a line of its own.

    >>> print(plain("one\r\n2030-01-01 INFO guard: all is well\x1b[2J"))
    one\x0d
        2030-01-01 INFO guard: all is well\x1b[2J
    """
    return _UNPRINTABLE.sub(_escaped, text).replace("\n", "\n    ")


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 32 else ascii(character)[1:-1]


def _name(kind: type[BaseException]) -> str:
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", "guard.errors")
        else f"{kind.__module__}.{kind.__qualname__}"
    )
