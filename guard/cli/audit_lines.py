"""The lines of an audit log, for commands: from all of its files, or from a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from guard.telemetry.audit_file import LONGEST_LINE, rotated

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN = "-"
_PROGRESS_LINES = 100_000


def lines_of(path: str) -> Iterator[tuple[str, int, bytes]]:
    """Return (file, number, line) of every line, oldest first; `-` reads stdin, nothing is kept in memory.

    Raises:
        OSError: a file cannot be read.
    """
    if path == STDIN:
        # Collectors put their own words before a line.
        for number, raw in _numbered(sys.stdin.buffer, "stdin"):
            yield "stdin", number, raw[max(0, raw.find(b'{"seq":')) :]
        return
    for name, file in _opened(Path(path)):
        with file:
            for number, raw in _numbered(file, name):
                yield name, number, raw


def _opened(path: Path) -> list[tuple[str, BinaryIO]]:
    """Open all files of a log, again when one was rotated meanwhile: an open file stays what it is."""
    while True:
        old = rotated(path)
        files: list[tuple[str, BinaryIO]] = []
        for one in (*old, path):
            try:
                files.append((one.name, one.open("rb")))
            except FileNotFoundError:
                continue
        if old == rotated(path):
            return files
        for _, file in files:
            file.close()


def _numbered(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Return lines with their numbers, and say on a terminal how far they are."""
    shown = sys.stderr.isatty()
    number = 0
    while raw := file.readline(LONGEST_LINE):
        number += 1
        if shown and number % _PROGRESS_LINES == 0:
            print(f"\r{name}: {number:,} lines", end="", file=sys.stderr, flush=True)
        yield number, raw
    if shown and number >= _PROGRESS_LINES:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
