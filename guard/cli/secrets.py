"""`guard secrets`: hash documents that a model must not recite, and try the secrets defence out on texts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import Exit, add_option, fail

if TYPE_CHECKING:
    from guard.defences.secrets import Secrets

HELP = "hash documents for the secrets defence, and try it out on texts"
EPILOG = """parts:
  hash FILE...   write documents as hashed n-grams on stdout, for document_files of {kind: secrets}
  scan FILE...   print texts as an answer would leave, and on stderr what was taken out, with line and column

examples:
  guard secrets hash hr-handbook.txt salaries.md > hr.ngrams
  guard secrets hash --run 48 contracts/*.txt > contracts.ngrams
  guard secrets scan answers.txt --policy policy.yaml --count      # how often it strikes in texts that are harmless
  guard secrets scan - --policy llm < answer.txt

in the policy:  defences: [{kind: secrets, document_files: [hr.ngrams], canaries: {file: /run/secrets/canaries}}]

A run is --run letters and digits in a row; case, accents, spaces and signs do not count. The first 31 of a run of 32
leave before it is one; from the 32nd on all is redacted. Fewer catch shorter quotations and strike more often in common
phrases: of a legal notice that stands in many texts, hash the rest only. Texts are UTF-8; make such of PDFs first.

The file holds salted hashes and no text, 10 MB for 1 MB of text. It is no safe place for what can be guessed: the salt
stands in it, so whoever has the file can try texts, and from 31 known characters can walk on, one at a time. Keep it
where the documents themselves may be kept. A canary that is short (a PIN, a code) belongs into canaries, not here.

exit codes: 0 fine, 1 scan took something out, 2 usage, a file that cannot be read, or a policy without secrets
"""
PARTS = ("hash", "scan")
_MOST_BYTES = 2**26


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("part", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("files", metavar="FILE", nargs="*", help="UTF-8 texts; - is stdin")
    parser.add_argument("--run", type=int, metavar="N", help="hash: letters and digits of a run (default: 32)")
    add_option(
        parser, "--policy", help="scan: policy file or preset; left out, everything that has a form is looked for"
    )
    parser.add_argument("--route", help="scan: the route of that name (default: the first with the secrets defence)")
    parser.add_argument("--count", action="store_true", help="scan: print no text, only what was taken out")


def run(args: argparse.Namespace) -> int:
    """Do the part that was asked for, and return the exit code."""
    if args.part not in PARTS:
        return fail(f"guard secrets: there is no part {args.part}", f"one of {', '.join(PARTS)}")
    if not args.files:
        return fail(f"guard secrets {args.part}: which file?", "- reads stdin")
    texts: list[tuple[str, str]] = []
    for name in args.files:
        try:
            data = sys.stdin.buffer.read(_MOST_BYTES + 1) if name == "-" else Path(name).read_bytes()
            if len(data) > _MOST_BYTES:
                return fail(f"{name} is larger than {_MOST_BYTES} bytes", "split it")
            texts.append((name, data.decode("utf-8-sig")))
        except OSError as error:
            return fail(f"cannot read {name}: {error.strerror}")
        except UnicodeDecodeError:
            return fail(f"{name} is not UTF-8 text", "pdftotext, or iconv -t utf-8, makes such of it")
    return _hash(args, texts) if args.part == "hash" else _scan(args, texts)


def _hash(args: argparse.Namespace, texts: list[tuple[str, str]]) -> int:
    from guard.defences.secret_ngrams import DEFAULT, LEAST, MOST, NgramsError, encode
    from guard.defences.secret_normal import normal_text
    from guard.defences.secret_window import Window

    length: int = DEFAULT if args.run is None else args.run
    if not LEAST <= length <= MOST:
        return fail(f"--run is {LEAST} to {MOST}", "shorter ones are no documents: write them into canaries")
    if sys.stdout.isatty():
        return fail("the n-grams are binary", f"guard secrets hash {args.files[0]} > documents.ngrams")
    normal: list[str] = []
    for name, text in texts:
        window = Window()
        window.add(text, last=True)
        normal.append(normal_text(window.text))
        if len(normal[-1]) < length:
            print(f"guard: {name} has fewer than {length} letters and digits: nothing of it is found", file=sys.stderr)
    try:
        data = encode(normal, length, os.urandom(16))
    except NgramsError as error:
        return fail(str(error))
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    print(f"guard: {sum(map(len, normal))} letters and digits, runs of {length}: {len(data)} bytes", file=sys.stderr)
    return Exit.OK


def _scan(args: argparse.Namespace, texts: list[tuple[str, str]]) -> int:
    defence = _defence(args)
    if isinstance(defence, int):
        return defence
    found = 0
    for name, text in texts:
        cleared = defence.scanner("").feed(text, last=True)
        if not args.count:
            print(cleared.text, end="")
        found += len(cleared.redacted)
        for said in _places(name, text, cleared.redacted):
            print(said, file=sys.stderr)
    print(f"guard: {found} taken out of {sum(len(text) for _, text in texts)} characters", file=sys.stderr)
    return Exit.FAILED if found else Exit.OK


def _places(name: str, text: str, spans: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield file, line, column and length of what was taken out, and never what it was."""
    line, begin, at = 1, 0, 0
    for a, b in spans:
        line += text.count("\n", at, a)
        begin = max(begin, text.rfind("\n", 0, a) + 1)
        at = a
        yield f"{name}:{line}:{a - begin + 1}: {b - a} characters"


def _defence(args: argparse.Namespace) -> Secrets | int:
    """Return the defence that the policy has, or the exit code."""
    from guard.defences.secrets import Secrets
    from guard.policy.load import load_plan

    if not args.policy:
        return Secrets()
    plan = load_plan(args.policy, api=None, env=os.environ)
    for route in plan.routes:
        if args.route in (None, route.name):
            for defence in route.defences:
                if isinstance(defence, Secrets):
                    return defence
    where = f"route {args.route} of {args.policy}" if args.route else args.policy
    return fail(f"{where} has no defence of kind secrets", "defences: [{kind: secrets}]")
