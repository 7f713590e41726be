"""`guard audit verify PATH`: is the audit log of `guard serve` what was written?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.audit_lines import STDIN, lines_of
from guard.cli.common import Exit, fail
from guard.cli.ledgers import printable
from guard.errors import StateError
from guard.telemetry.audit_check import Checker
from guard.telemetry.audit_file import rotated
from guard.telemetry.audit_head import Head, Keys, read_head
from guard.telemetry.audit_keys import SigningKey, verifies

if TYPE_CHECKING:
    import argparse

SHOWN = 50
_USE = b"guard audit"
_MOST_HEAD = 4096


def run_verify(args: argparse.Namespace) -> int:
    """Verify a log, print what was found and return the exit code."""
    try:
        trusted, whose = keys_of(args)
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        return fail(str(error))
    keys = Keys(verifies, trusted)
    try:
        head, headed = (None, "") if args.path == STDIN else _head(Path(args.path), keys)
        checker = Checker(keys, head, stream=args.path == STDIN, begin=args.begin or 1)
        for name, number, raw in lines_of(args.path):
            checker.feed(name, number, raw)
    except OSError as error:
        return fail(f"{error.filename or args.path} cannot be read: {error.strerror}", code=Exit.UNREACHABLE)
    if head is None and not (checker.lines or checker.found or headed):
        return fail(f"there is no audit log {args.path}", code=Exit.NOTHING_RAN)
    checker.finish()
    return _tell(args, checker, keys, whose, headed)


def keys_of(args: argparse.Namespace) -> tuple[frozenset[str], str]:
    """Return the public keys that count, and where they are from; none when nobody gave one.

    Raises:
        ValueError: a key is none.
        OSError: its file cannot be read.
    """
    if args.key:
        return frozenset(_key(text) for text in args.key), "--key"
    if args.any_key:
        return frozenset(), ""
    own = own_key(args)
    return (frozenset(), "") if own is None else (frozenset((own[0],)), own[1])


def own_key(args: argparse.Namespace) -> tuple[str, str] | None:
    """Return the public key that belongs to the secret at hand, and where that is from; None without a secret."""
    from guard.proxy.secret import derived, known_secret

    found = known_secret(args.state, Path(args.secret_file) if args.secret_file else None)
    return None if found is None else (SigningKey(derived(found[0], _USE)).public, found[1])


def _key(text: str) -> str:
    """Read a public key, or a file that holds one.

    Raises:
        ValueError: it is none.
        OSError: the file cannot be read.
    """
    given = text if len(text) == 64 else Path(text).read_text(encoding="utf-8").strip()
    if len(given) != 64 or set(given) - set("0123456789abcdef"):
        raise ValueError(f"{text} is neither a public key of 64 hexadecimal digits nor a file that holds one")
    return given


def _head(path: Path, keys: Keys) -> tuple[Head | None, str]:
    """Read the head; return it, and what is wrong with it: empty when nothing is, or there is no log.

    It is read before the log: a guard that writes meanwhile only adds to what it names.
    """
    head_path = Path(f"{path}.head")
    try:
        with head_path.open("rb") as file:
            head = read_head(file.read(_MOST_HEAD), keys)
    except FileNotFoundError:
        there = path.exists() or bool(rotated(path))
        return None, f"there is no head {head_path}: a cut tail could not be told" if there else ""
    return (None, f"the head {head_path}: {head}") if isinstance(head, str) else (head, "")


def _tell(args: argparse.Namespace, checker: Checker, keys: Keys, whose: str, headed: str) -> int:
    """Print what was found."""
    where = "stdin" if args.path == STDIN else str(args.path)
    signers = ", ".join(sorted(keys.seen)) or "nobody"
    print(
        f"{where}: {checker.lines:,} lines, seq {checker.first} to {checker.seq}, log {printable(checker.log) or '?'}"
    )
    print(f"{where}: signed by {signers}{f' ({whose})' if whose else ''}, to seq {checker.signed_to}")
    for instance in checker.instances:
        print(f"{where}: written by {printable(instance)}")
    for text in checker.notes[:SHOWN]:
        print(printable(f"{where}: note: {text}"))
    problems = [f"{p.file}:{p.line}: {p.text}" if p.file else f"{where}: {p.text}" for p in checker.problems]
    found = checker.found
    if headed:
        problems.insert(0, headed)
        found += 1
    if args.at_least is not None and checker.seq < args.at_least:
        problems.insert(0, f"{where}: it ends at seq {checker.seq}, and was at {args.at_least} already: rolled back")
        found += 1
    for text in problems[:SHOWN]:
        print(printable(text))
    if found > SHOWN:
        print(f"{where}: and {found - SHOWN:,} more")
    if found:
        what = "1 problem" if found == 1 else f"{found:,} problems"
        return fail(f"{what}: this is not what was written", code=Exit.FAILED)
    if not keys.trusted and not args.any_key:
        hint = "give --secret-file or GUARD_SECRET, or --key with what `guard audit key` says there; or --any-key"
        fail(
            "the chain and its signatures hold, BUT WHOSE KEY IT IS WAS NOT CHECKED: anybody can sign a log anew", hint
        )
    return Exit.OK


def run_key(args: argparse.Namespace) -> int:
    """Print the public key."""
    try:
        own = own_key(args)
    except StateError as error:
        return fail(error.message)
    if own is None:
        return fail("there is no secret here", "give --secret-file or GUARD_SECRET, or --state as for serve")
    print(own[0])
    return Exit.OK
